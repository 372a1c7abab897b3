"""What every command shares: one error for a user's mistake, an exit code, and both in status.json."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from accel_trainer.errors import ExitCode, LaunchError, RunLockedError, UserError
from accel_trainer.launching import rank
from accel_trainer.run.folder import RunFolder
from accel_trainer.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable


class Outcome:
    """Where a command reports how it ended.

    Attributes:
        folder: the run's folder, as soon as it is known.
    """

    def __init__(self) -> None:
        self.folder: RunFolder | None = None

    def failed(self, code: ExitCode, reason: str) -> None:
        """Write status.json, unless the folder is unknown or belongs to a live run."""
        if self.folder is None or not _speaks():
            return
        try:
            if not self.folder.locked:
                self.folder.lock()
            self.folder.write_status("failed", code, reason)
        except (UserError, OSError) as error:
            print(f"{self.folder.status}: not written: {error}", file=sys.stderr)


def run_command(body: Callable[[Outcome], ExitCode]) -> int:
    """Run a command; return its exit code.

    A user's mistake is printed once, by the main process, without a traceback; anything else that is raised is a defect
    and keeps its traceback.
    """
    # Threads that wait by spinning make a small model tens of times slower as soon as another process wants a core.
    # Read when torch is imported, so it has to be said here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    outcome = Outcome()
    try:
        return int(body(outcome))
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


def _speaks() -> bool:
    """Whether this process reports for all; where the launcher's variables make no sense, every process does."""
    try:
        return rank() == 0
    except LaunchError:
        return True
