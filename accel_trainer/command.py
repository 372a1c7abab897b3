"""What every command shares: one error for a user's mistake, an exit code, and both in status.json."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from accel_trainer.checkpoints.files import read_json
from accel_trainer.errors import NO_ROOM, ExitCode, LaunchError, RunLockedError, UserError
from accel_trainer.launching import end_with_launcher, rank, world_size
from accel_trainer.listening import Listener, TerminatedError, ignore_signals
from accel_trainer.run.folder import RunFolder
from accel_trainer.settings import SettingsError
from accel_trainer.streams import outlive_readers

if TYPE_CHECKING:
    from collections.abc import Callable

_ALONE = 3.0
"""Seconds after which a process that a launcher has not ended by then is taken to have failed alone."""
_LOST = ("DistBackendError", "DistNetworkError", "DistStoreError")
"""Errors of torch.distributed that say that another process cannot be reached."""

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
        unsaid: why status.json could not be written, to be said after what it should have told.
    """

    def __init__(self) -> None:
        self.follows = False
        self.unsaid = ""
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
        more, said = {}, self.status()
        if said is not None and said == self._before:
            # A start that did not come as far as its first word takes nothing from what an earlier one has finished.
            finished = said if said.get("status") == "finished" else said.get("finished")
            more = {"finished": finished} if finished else {}
        try:
            if not self.folder.locked:
                self.folder.lock(wait=False)
            self.folder.write_status(status, code, reason, **more)
        except (UserError, OSError) as error:
            if str(error) != reason:  # else it is just what was said
                self.unsaid = f"{self.folder.status}: not written: {error}"

    def remedy(self, when: str = "") -> str:
        """Return what the same command will do, as the end of a sentence; nothing where no run is concerned."""
        if self.folder is None:
            return ""
        does = "goes on from the last checkpoint" if self.folder.saved.exists() else "begins anew"
        return f"; the same command {does}{' ' + when if when else ''}"

    def let_go(self) -> None:
        """Let others write to the run's folder."""
        if self.folder is not None:
            self.folder.unlock()

    def status(self) -> dict[str, Any] | None:
        """Return what status.json says now; None when there is none that can be read."""
        if self._folder is None:
            return None
        try:
            content: dict[str, Any] = read_json(self._folder.status)
        except (OSError, ValueError):
            return None  # there is none, or it is nothing that this process wrote
        return content


def run_command(body: Callable[[Outcome], ExitCode]) -> int:
    """Run a command; return its exit code.

    A user's mistake is printed once, by the main process, without a traceback; so are a disk that is full and another
    process that died. Anything else that is raised is a defect and keeps its traceback.
    """
    global _began
    _began = time.monotonic()
    # Threads that wait by spinning make a small model tens of times slower as soon as another process wants a core.
    # Read when torch is imported, so it has to be said here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    outlive_readers()
    outcome = Outcome()
    listener = Listener(outcome, lambda: int(_stuck(outcome)))
    try:
        try:
            if listener.begin():
                end_with_launcher()
            return int(body(outcome))
        finally:
            listener.deafen()
    except BaseException as error:
        code = _ended_by(error, outcome, listener)
        if code is None:
            outcome.failed(ExitCode.DEFECT, f"{type(error).__name__}: {error}")
        if outcome.unsaid:
            print(outcome.unsaid, file=sys.stderr, flush=True)
        if code is None:
            raise
        if _is_together():
            # The group that these processes formed is broken; taking it down in order would wait for the others.
            outcome.let_go()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return int(code)
    finally:
        outcome.let_go()
        listener.end()


def leave(code: int) -> NoReturn:
    """End the process of a command; a signal that comes while the interpreter shuts down changes nothing any more."""
    ignore_signals()
    sys.exit(code)


def _ended_by(error: BaseException, outcome: Outcome, listener: Listener) -> ExitCode | None:
    """Say what ended the command, in status.json and on stderr, and return its exit code; None: a defect."""
    lost = _is_lost_process(error)
    if lost and listener.heard:
        # Whoever heard the signal first has left; that is how the others learned of it.
        first_heard = listener.heard[0]
        error = KeyboardInterrupt() if first_heard == signal.SIGINT else TerminatedError(first_heard)
    if isinstance(error, TerminatedError):
        [number] = error.args
        reason = f"{number.name} received outside of training{outcome.remedy()}"
        outcome.ended("preempted", ExitCode.PREEMPTED, reason)
        _say(reason)
        return ExitCode.PREEMPTED
    if isinstance(error, UserError):
        if isinstance(error, SettingsError) and error.run_folder is not None:
            outcome.folder = RunFolder(error.run_folder)
        if not isinstance(error, RunLockedError):
            outcome.failed(error.exit_code, str(error))
        _complain(str(error), listener)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        settled = outcome.settled()
        if settled is not None:
            return settled  # all was done but the end of the process
        outcome.failed(ExitCode.INTERRUPTED, f"interrupted from the keyboard{outcome.remedy()}")
        _say("interrupted")
        return ExitCode.INTERRUPTED
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = error.filename or (outcome.folder.path if outcome.folder else "a file")
        problem = f"{where}: could not be written: {error.strerror}{outcome.remedy('once there is room')}"
        outcome.failed(ExitCode.CHECKPOINT, problem)
        _complain(problem, listener)
        return ExitCode.CHECKPOINT
    if lost:
        # Without the place in gloo's source that it begins with, and what it goes on to suggest.
        [first, *_] = str(error).splitlines() or [type(error).__name__]
        why = re.sub(r"^\[[^\]]*\] *", "", first).partition(". ")[0]
        problem = f"another process of this run died or gave no answer ({why}){outcome.remedy()}"
        outcome.failed(ExitCode.LOST_PROCESS, problem)
        _complain(problem, listener)
        return ExitCode.LOST_PROCESS
    return None


def _stuck(outcome: Outcome) -> ExitCode:
    """Say that the process ends although its main thread does not answer."""
    reason = f"told to end while it waited for something else, another process perhaps{outcome.remedy()}"
    outcome.failed(ExitCode.INTERRUPTED, reason)
    _say(reason)
    return ExitCode.INTERRUPTED


def _is_lost_process(error: BaseException) -> bool:
    """Whether an error tells that another process of the run is gone.

    Gloo's are plain errors that name the place in its source; those of NCCL and of the store have types of their own.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or _world_size() == 1:
        return False
    kinds = tuple(getattr(distributed, name) for name in _LOST if hasattr(distributed, name))
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


def _is_together() -> bool:
    """Whether this process has joined others."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and _world_size() > 1 and distributed.is_available() and distributed.is_initialized()


def _world_size() -> int:
    try:
        return world_size()
    except LaunchError:
        return 1


def _speaks() -> bool:
    """Whether this process reports for all; where the launcher's variables make no sense, every process does."""
    try:
        return rank() == 0
    except LaunchError:
        return True


def _complain(problem: str, listener: Listener) -> None:
    """Print an error: the main process does, and another one whose error is its own."""
    if _speaks():
        print(f"error: {problem}", file=sys.stderr, flush=True)
    # What ends all processes is told once: the launcher ends this one as soon as the main process has left.
    elif not listener.is_told_to_end(within=_ALONE):
        print(f"error in process {rank()}: {problem}", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    if _speaks():
        print(line, file=sys.stderr, flush=True)
