"""What every command shares: one error for a user's mistake, an exit code, and both in status.json."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.files import read_json
from accel_trainer.errors import ExitCode, LaunchError, RunLockedError, UserError
from accel_trainer.hooks.signals import give_back, listen
from accel_trainer.launching import end_with_launcher, rank
from accel_trainer.run.folder import RunFolder
from accel_trainer.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)

_began = time.monotonic()


def command_began() -> float:
    """Return when the command began, by ``time.monotonic()``; in a program of one's own, when this was imported."""
    return _began


class Outcome:
    """Where a command reports how it ended.

    Attributes:
        follows: whether another process decides how the command ends: a signal that this one hears outside of
            training is kept for training to hear of, and else has no effect. One that left alone would tear down what
            the others are in the middle of.
    """

    def __init__(self) -> None:
        self.follows = False
        self._folder: RunFolder | None = None
        self._before: dict[str, Any] | None = None  # status.json as an earlier start left it

    @property
    def folder(self) -> RunFolder | None:
        """The run's folder, as soon as it is known."""
        return self._folder

    @folder.setter
    def folder(self, folder: RunFolder) -> None:
        self._folder = folder
        self._before = self.status()

    def settled(self) -> ExitCode | None:
        """Return the exit code that this process has already said the command ends with, or None."""
        status = self.status()
        if status is None or status == self._before or status.get("pid") != os.getpid():
            return None
        code = status.get("exit_code")  # None while it runs
        return None if code is None else ExitCode(code)

    def failed(self, code: ExitCode, reason: str) -> None:
        """Say in status.json that the command failed."""
        self.ended("failed", code, reason)

    def ended(self, status: str, code: ExitCode, reason: str) -> None:
        """Write status.json, unless the folder is unknown or belongs to a live run."""
        if self.folder is None or not _speaks():
            return
        try:
            if not self.folder.locked:
                self.folder.lock(wait=False)
            self.folder.write_status(status, code, reason)
        except (UserError, OSError) as error:
            print(f"{self.folder.status}: not written: {error}", file=sys.stderr)

    def status(self) -> dict[str, Any] | None:
        """Return what status.json says now; None when there is none that can be read."""
        if self._folder is None:
            return None
        try:
            content: dict[str, Any] = read_json(self._folder.status)
        except (OSError, ValueError):
            return None  # there is none, or it is nothing that this process wrote
        return content


class _TerminatedError(BaseException):
    """A signal came while nothing was in hand that had to be finished first; no ``except Exception`` may stop it."""


class _Listener:
    """Ends the command on a signal, once."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome, self._deaf = outcome, False
        self.received: signal.Signals | None = None

    def deafen(self) -> None:
        """Let no signal disturb what is left to do; one that came before still ends the command."""
        self._deaf = True

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self._deaf:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._outcome.follows:
            self.received = signal.Signals(number)
            return
        # One end often brings several signals: the scheduler's, the launcher's, and that of the launcher's own end.
        if self.received is None and self._outcome.settled() is None:
            self.received = signal.Signals(number)
            raise _TerminatedError


def run_command(body: Callable[[Outcome], ExitCode]) -> int:
    """Run a command; return its exit code.

    A user's mistake is printed once, by the main process, without a traceback; so is a disk that is full. Anything else
    that is raised is a defect and keeps its traceback.
    """
    global _began
    _began = time.monotonic()
    # Threads that wait by spinning make a small model tens of times slower as soon as another process wants a core.
    # Read when torch is imported, so it has to be said here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _outlive_readers()
    outcome = Outcome()
    listener = _Listener(outcome)
    before = listen(listener)
    try:
        try:
            if before:
                end_with_launcher()
            return int(body(outcome))
        finally:
            listener.deafen()
    except _TerminatedError:
        assert listener.received is not None
        reason = f"{listener.received.name} received outside of training"
        if outcome.folder is not None:
            reason += "; the same command goes on from the last checkpoint"
        outcome.ended("preempted", ExitCode.PREEMPTED, reason)
        _say(reason)
        return int(ExitCode.PREEMPTED)
    except UserError as error:
        if isinstance(error, SettingsError) and error.run_folder is not None:
            outcome.folder = RunFolder(error.run_folder)
        _say(f"error: {error}")
        # A command line that could not be read says nothing about a run that is finished.
        said = outcome.status() or {}
        unread = isinstance(error, SettingsError) and said.get("status") == "finished"
        if not isinstance(error, RunLockedError) and not unread:
            outcome.failed(error.exit_code, str(error))
        return int(error.exit_code)
    except KeyboardInterrupt:
        settled = outcome.settled()
        if settled is not None:
            return int(settled)  # all was done but the end of the process
        outcome.failed(ExitCode.INTERRUPTED, "interrupted from the keyboard")
        _say("interrupted")
        return int(ExitCode.INTERRUPTED)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            where = error.filename or (outcome.folder.path if outcome.folder else "a file")
            problem = (
                f"{where}: could not be written: {error.strerror}; nothing saved before is lost, and the same command "
                "goes on once there is room"
            )
            _say(f"error: {problem}")
            outcome.failed(ExitCode.CHECKPOINT, problem)
            return int(ExitCode.CHECKPOINT)
        outcome.failed(ExitCode.DEFECT, f"{type(error).__name__}: {error}")
        raise
    finally:
        if outcome.folder is not None:
            outcome.folder.unlock()
        give_back(before)


def _speaks() -> bool:
    """Whether this process reports for all; where the launcher's variables make no sense, every process does."""
    try:
        return rank() == 0
    except LaunchError:
        return True


def _say(line: str) -> None:
    if _speaks():
        print(line, file=sys.stderr, flush=True)


class _Stream(io.FileIO):
    """A standard stream; what is written after its reader has gone goes nowhere."""

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe, a terminal
                raise
            return memoryview(content).nbytes


def _outlive_readers() -> None:
    """Let standard output and standard error outlive whoever reads them.

    A launcher that was ended, a pipe into ``head``, a terminal that was closed: what is said then is lost, but a run
    has to save, to write its status and to leave with the right code. The streams stay so for the rest of the process,
    whose last act is to flush them.
    """
    for number, name in enumerate(("stdout", "stderr"), start=1):
        stream = getattr(sys, name)
        if stream is None:  # closed from the start, which leaves its number to the next file that is opened
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
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
