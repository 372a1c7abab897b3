"""metrics.jsonl: every number of every step, once, in order; trackers are fed from it."""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING, Any

from accel_trainer.checkpoints.files import finite, write_text
from accel_trainer.trainer.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from accel_trainer.trainer.hooks import Request, Row
    from accel_trainer.trainer.loop import Trainer


class MetricsFile(Hook):
    """Appends rows on the main process and brings them to the disk before every checkpoint.

    After a crash the file may hold rows of steps that will be computed again; they are cut off when training starts,
    so that every step stands in it once.
    """

    name = "metrics_file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Cut the file back to the step the run goes on from."""
        if not trainer.accelerator.is_main_process:
            return None
        kept = [row for row in read_rows(self._path) if row["step"] <= trainer.state.step]
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", encoding="utf-8")
        return None

    def on_rows(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        """Append; JSON has no NaN, so a number that is none becomes null."""
        if self._file is None:
            return
        for row in rows:
            self._file.write(json.dumps(finite(row), allow_nan=False) + "\n")
        self._file.flush()

    def before_checkpoint(self, trainer: Trainer) -> None:
        """Bring the rows to the disk: those after the last checkpoint are computed again, those before it are not."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a metrics file; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    # What follows the last line break is empty or torn.
    return [json.loads(line) for line in lines[:-1] if line]
