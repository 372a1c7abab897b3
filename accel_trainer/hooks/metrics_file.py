"""metrics.jsonl: every number of every step, once, in order; trackers are fed from it."""

from __future__ import annotations

import json
import mmap
import os
import time
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.files import finite
from accel_trainer.errors import CheckpointError
from accel_trainer.trainer.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from accel_trainer.trainer.hooks import Request, Row
    from accel_trainer.trainer.loop import Trainer

_PAUSE = 1.0
"""Seconds between two tries to write rows that wait."""


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
        self._failing, self._tried = False, 0.0

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Cut the file back to the step the run goes on from."""
        if not trainer.accelerator.is_main_process:
            return None
        # The row of a step whose evaluation is still to come is written when it has been made.
        last = trainer.state.step - (1 if trainer.state.pending is not None else 0)
        written, self._size = _last_row(self._path, last)
        if written < last:
            self._say(f"{self._path}: the rows of steps {written + 1} to {last} are missing; the run goes on without")
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._file, self._size)
        return None

    def on_rows(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        """Append; JSON has no NaN, so a number that is none becomes null."""
        if self._file is None:
            return
        self._waiting += [json.dumps(finite(row), allow_nan=False).encode() + b"\n" for row in rows]
        if not self._failing or time.monotonic() - self._tried > _PAUSE:
            self._try()

    def before_checkpoint(self, trainer: Trainer) -> None:
        """Bring the rows to the disk: those after the last checkpoint are computed again, those before it are not."""
        if self._file is None:
            return
        try:
            self._write()
            os.fsync(self._file)
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be written: {error.strerror}") from None

    def on_train_end(self, trainer: Trainer) -> None:
        """Write what waits, bring it to the disk and close the file."""
        if self._file is None:
            return
        try:
            self._try()
            if not self._failing:
                os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = None

    def _try(self) -> None:
        self._tried = time.monotonic()
        try:
            self._write()
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._say(f"{self._path}: rows wait in memory, since they cannot be written: {error.strerror}")

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
    return list(iterate_rows(path))


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows that :func:`read_rows` returns, and read nothing before the first is asked for."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            row = _row(line) if line.endswith(b"\n") else None
            if row is None:
                return
            yield row


def _row(line: bytes) -> dict[str, Any] | None:
    """Return a line as a row, or None: a power cut may leave anything."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _last_row(path: Path, last: int) -> tuple[int, int]:
    """Return the step of the last row up to a step, and where it ends; looked for from the end of the file.

    What a run has to cut off is what it did since its last checkpoint, however long it has been.
    """
    size = path.stat().st_size if path.exists() else 0
    if not size:
        return 0, 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n")  # what follows is torn
        while end >= 0:
            begin = content.rfind(b"\n", 0, end) + 1
            row = _row(content[begin:end])
            if row is not None and row["step"] <= last:
                return row["step"], end + 1
            end = begin - 1
    return 0, 0
