"""Standard output and standard error that outlive whoever reads them."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

from accel_trainer.errors import NO_ROOM


class _Stream(io.FileIO):
    """A standard stream; what is written after its reader has gone goes nowhere."""

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in (errno.EPIPE, *NO_ROOM):  # a pipe, a terminal or a disk that is full
                raise
            return memoryview(content).nbytes


def outlive_readers() -> None:
    """Let standard output and standard error outlive whoever reads them.

    A launcher that was ended, a pipe into ``head``, a terminal that was closed, a log on a full disk: what is said then
    is lost, but a run has to save, to write its status and to leave with the right code. The streams stay so for the
    rest of the process, whose last act is to flush them.
    """
    for number, name in enumerate(("stdout", "stderr"), start=1):
        stream = getattr(sys, name)
        if stream is None:  # closed from the start, which leaves its number to the next file that is opened
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            with suppress(OSError, ValueError):
                stream.flush()  # what was said before comes first
            raw = _Stream(number, "w", closefd=False)
            raw.name = f"<{name}>"
            setattr(
                sys,
                name,
                io.TextIOWrapper(
                    raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw),
                    encoding=stream.encoding,
                    errors=stream.errors,
                    line_buffering=stream.line_buffering,
                    write_through=stream.write_through,
                ),
            )
