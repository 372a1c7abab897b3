"""metrics.jsonl: every number of every step, once, in order; trackers are fed from it."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.files import finite
from accel_trainer.errors import CheckpointError
from accel_trainer.trainer.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from accel_trainer.trainer.hooks import Request, Row
    from accel_trainer.trainer.loop import Trainer


class MetricsFile(Hook):
    """Appends rows on the main process and brings them to the disk before every checkpoint.

    After a crash the file may hold rows of steps that will be computed again; they are cut off when training starts,
    so that every step stands in it once. Rows that cannot be written (a full disk) wait in memory, and no checkpoint
    is written before them.

    Args:
        path: the file.
        say: prints one line for people.
        guard: called before anything is written; raises when the folder is no longer this run's to write to.
    """

    name = "metrics_file"

    def __init__(self, path: Path, say: Callable[[str], None] = print, guard: Callable[[], None] | None = None) -> None:
        self._path, self._say, self._guard = path, say, guard or (lambda: None)
        self._file: int | None = None  # a descriptor: nothing is held back between a write and the disk's answer
        self._size = 0  # bytes of whole rows
        self._waiting: list[bytes] = []
        self._failing = False

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Cut the file back to the step the run goes on from."""
        if not trainer.accelerator.is_main_process:
            return None
        # The row of a step whose evaluation is still to come is written when it has been made.
        last = trainer.state.step - (1 if trainer.state.pending is not None else 0)
        kept = list(itertools.takewhile(lambda row: row[0]["step"] <= last, _whole_rows(self._path)))
        self._size = sum(size for _, size in kept)
        if (written := kept[-1][0]["step"] if kept else 0) < last:
            self._say(f"{self._path}: the rows of steps {written + 1} to {last} are missing; the run goes on without")
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._file, self._size)
        return None

    def on_rows(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        """Append; JSON has no NaN, so a number that is none becomes null."""
        if self._file is None:
            return
        self._waiting += [json.dumps(finite(row), allow_nan=False).encode() + b"\n" for row in rows]
        try:
            self._write()
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._say(f"{self._path}: rows wait in memory, since they cannot be written: {error}")

    def before_checkpoint(self, trainer: Trainer) -> None:
        """Bring the rows to the disk: those after the last checkpoint are computed again, those before it are not."""
        if self._file is None:
            return
        try:
            self._write()
            os.fsync(self._file)
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be written: {error}") from None

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self) -> None:
        assert self._file is not None
        content = b"".join(self._waiting)
        if not content:
            return
        self._guard()
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(self._file, content[written:], self._size + written)
        except OSError:
            os.ftruncate(self._file, self._size)  # a part of a row would hide those after it
            raise
        self._size += len(content)
        self._waiting.clear()
        if self._failing:
            self._failing = False
            self._say(f"{self._path}: written again, nothing is missing")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a metrics file; what a crash left torn at its end is left out."""
    return [row for row, _ in _whole_rows(path)]


def _whole_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each row with its size in bytes, up to the first that is none: a power cut may leave anything there."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            return
        yield row, len(line) + 1
