"""What every command shares: one error for a user's mistake, an exit code, and both in status.json."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from accel_trainer.errors import ExitCode, LaunchError, RunLockedError, UserError
from accel_trainer.launching import rank
from accel_trainer.run.folder import RunFolder
from accel_trainer.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Outcome:
    """Where a command reports how it ended.

    Attributes:
        folder: the run's folder, as soon as it is known.
    """

    def __init__(self) -> None:
        self.folder: RunFolder | None = None

    def failed(self, code: ExitCode, reason: str) -> None:
        """Say in status.json that the command failed."""
        self.ended("failed", code, reason)

    def ended(self, status: str, code: ExitCode, reason: str) -> None:
        """Write status.json, unless the folder is unknown or belongs to a live run."""
        if self.folder is None or not _speaks():
            return
        try:
            if not self.folder.locked:
                self.folder.lock()
            self.folder.write_status(status, code, reason)
        except (UserError, OSError) as error:
            print(f"{self.folder.status}: not written: {error}", file=sys.stderr)


class _TerminatedError(BaseException):
    """SIGTERM came while nothing was in hand that had to be finished first; no ``except Exception`` may stop it."""


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def run_command(body: Callable[[Outcome], ExitCode]) -> int:
    """Run a command; return its exit code.

    A user's mistake is printed once, by the main process, without a traceback; anything else that is raised is a defect
    and keeps its traceback.
    """
    # Threads that wait by spinning make a small model tens of times slower as soon as another process wants a core.
    # Read when torch is imported, so it has to be said here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    outcome = Outcome()
    listens = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if listens else None
    try:
        return int(body(outcome))
    except _TerminatedError:
        reason = "SIGTERM received outside of training; the same command goes on from the last checkpoint"
        outcome.ended("preempted", ExitCode.PREEMPTED, reason)
        if _speaks():
            print(reason, file=sys.stderr)
        return int(ExitCode.PREEMPTED)
    except UserError as error:
        if isinstance(error, SettingsError) and error.run_folder is not None:
            outcome.folder = RunFolder(error.run_folder)
        if _speaks():
            print(f"error: {error}", file=sys.stderr, flush=True)
        if not isinstance(error, RunLockedError):
            outcome.failed(error.exit_code, str(error))
        return int(error.exit_code)
    except KeyboardInterrupt:
        outcome.failed(ExitCode.INTERRUPTED, "interrupted from the keyboard")
        if _speaks():
            print("interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BaseException as error:
        outcome.failed(ExitCode.DEFECT, f"{type(error).__name__}: {error}")
        raise
    finally:
        if listens:
            signal.signal(signal.SIGTERM, before)


def _speaks() -> bool:
    """Whether this process reports for all; where the launcher's variables make no sense, every process does."""
    try:
        return rank() == 0
    except LaunchError:
        return True
