"""Errors a user can cause, and the exit code each of them ends a command with.

A :class:`UserError` is shown as one message without a traceback. Everything else that is raised is a
defect of the program and keeps its traceback.
"""

from __future__ import annotations

import errno
from difflib import get_close_matches
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
"""Errors of a disk rather than of who writes to it: full, over quota, read-only, file too large, broken."""


class ExitCode(IntEnum):
    """What the process returns to the shell; ``status.json`` holds the same number.

    Launchers (``accelerate launch``, ``torchrun``) replace every code but 0 by 1, so scripts read the file.
    """

    OK = 0  #: finished, stopped early as configured, or finished before
    DEFECT = 1  #: an unexpected error, with a traceback
    USAGE = 2  #: wrong option, file, data or launch: the message says what would be right
    DIVERGED = 3  #: the loss or the gradients stayed NaN or infinite
    CHECKPOINT = 4  #: no checkpoint that verifies, or something could not be written: the disk is full, say
    LOST_PROCESS = 5  #: another process of the run died or gave no answer; the same command continues
    PREEMPTED = 75  #: ended by a signal or training.max_time, saved; the same command continues (EX_TEMPFAIL)
    INTERRUPTED = 130  #: stopped at once from the keyboard; the last checkpoint stands


class UserError(Exception):
    """A mistake the user can mend. The message names the file, the key or the value and what would be right."""

    exit_code: ExitCode = ExitCode.USAGE


class ConfigError(UserError):
    """An option that cannot be used.

    Args:
        key: dotted name of the option, such as ``optimizer.lr``.
        problem: what is wrong with it and what is allowed, as the rest of a sentence that starts with the key.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        """Let the error travel to the other processes of a run."""
        return type(self), (self.key, self.problem)


class DataError(UserError):
    """A data file that cannot be read as it is, or that is too short for what was asked of it."""


class LaunchError(UserError):
    """Processes were started in a way that would train something else than asked for."""


class RunLockedError(UserError):
    """Another live process is writing to the run folder."""


class RunLostError(RunLockedError):
    """Another process writes to the folder of a run that this one was at work on."""

    exit_code: ExitCode = ExitCode.CHECKPOINT


class NotWrittenError(UserError):
    """A result that could not be written: the disk is full, read-only or gone."""

    exit_code: ExitCode = ExitCode.CHECKPOINT


def not_written(path: Path | str, error: OSError, what: str = "cannot be written") -> UserError:
    """Return the error for a file that cannot be written: the disk's fault, or that of who named the file."""
    kind = NotWrittenError if error.errno in NO_ROOM else UserError
    return kind(f"{path}: {what}: {error.strerror or error}")


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or made for something else."""

    exit_code: ExitCode = ExitCode.CHECKPOINT


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to ``name``, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
