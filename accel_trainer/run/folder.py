"""The folder of a run: its files by name, its lock, its status."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from accel_trainer.checkpoints.files import finite, read_json, write_json, write_text
from accel_trainer.errors import ExitCode, RunLockedError, UserError, not_written
from accel_trainer.run.lease import LOCK, Lease, boot_id, newest, refusal

_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # the last on SMB


class RunFolder:
    """Everything a run leaves on the disk.

    Args:
        path: ``<run.dir>/<run.name>``; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lease: Lease | None = None
        self._was_locked = False
        self._let_go: weakref.finalize[[Lease, IO[str]], RunFolder] | None = None

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """Every logged number by step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the best weights, ready to be used elsewhere."""
        return self.path / "model"

    @property
    def predictions(self) -> Path:
        """Folder of the forecast after the end of the data."""
        return self.path / "predictions"

    @property
    def summary(self) -> Path:
        """Result of the run; written last."""
        return self.path / "summary.json"

    @property
    def status(self) -> Path:
        """Outcome of the latest start, for scripts."""
        return self.path / "status.json"

    @property
    def saved(self) -> Path:
        """A mark that there was a checkpoint once: should all be gone one day, that is no reason to begin anew."""
        return self.path / ".saved"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def lock(self, *, wait: bool = True) -> None:
        """Make this process the only one that writes to the folder, until it ends.

        Processes of one kernel exclude each other by ``flock``, those of several hosts by a :class:`Lease`. A run that
        was killed on another host is taken over once its lease has lapsed; waiting for that is said on stderr.

        Args:
            wait: whether to wait for that; otherwise a lease of another host that was not released counts as live.

        Raises:
            RunLockedError: a live process holds it.
            UserError: the folder cannot be made or written to.
            NotWrittenError: the disk is full or read-only.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with ExitStack() as undo:
                file = undo.enter_context((self.path / LOCK).open("a+", encoding="utf-8"))
                self._lease = Lease.take(self.path, flocked=self._flock(file), wait=wait, say=_say)
                undo.pop_all()
        except OSError as error:
            raise not_written(self.path, error, "cannot be used as a run folder") from None
        # Also called when the process ends, or drops this object.
        self._let_go = weakref.finalize(self, _let_go, self._lease, file)

    def _flock(self, file: IO[str]) -> bool:
        """Lock a file among the processes of this kernel; return False where the filesystem knows no such locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return False
            if error.errno not in _HELD:
                raise
            holder = newest(self.path)
            if holder is not None and not holder.released and holder.boot == boot_id():
                raise refusal(self.path, holder) from None
            file.seek(0)  # one that waits for another host's lease to lapse, or an earlier version
            raise refusal(self.path, file.read().strip()) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        return True

    @property
    def locked(self) -> bool:
        """Whether this process holds the lock."""
        return self._lease is not None

    def check(self) -> None:
        """Make sure that the lock is still this process's; to be called before anything is written.

        Takes some 25 µs on a local disk. What was never locked cannot be lost, and nothing is looked at.

        Raises:
            RunLockedError: this process has let go.
            RunLostError: it was stopped for so long that another host took over.
            NotWrittenError: the folder was moved or deleted.
        """
        if self._lease is not None:
            self._lease.check()
        elif self._was_locked:
            raise RunLockedError(f"{self.path}: this process writes to it no more")

    def unlock(self) -> None:
        """Let others write."""
        if self._let_go is not None:
            self._let_go()
            self._was_locked = True
        self._lease = self._let_go = None

    def clear_leftovers(self) -> None:
        """Remove files that a killed process was writing; only for the process that holds the lock."""
        for left in self.path.glob(".*.tmp"):
            left.unlink()

    def mark_saved(self) -> None:
        """Leave the mark that there is a checkpoint. On a full disk without it: it only guards against deletion."""
        with suppress(OSError):
            self.saved.touch()

    def has_run(self) -> bool:
        """Whether a run was started here before; a lock and a status alone are none."""
        return any(path.exists() for path in (self.config, self.metrics, self.checkpoints, self.summary))

    def set_aside(self) -> Path:
        """Move an existing run to ``<name>.1`` (or the next free number); return where it went."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside

    def write_status(self, status: str, exit_code: ExitCode | None = None, reason: str = "", **more: Any) -> None:
        """Say how the latest start stands: running, finished, preempted or failed.

        Raises:
            RunLockedError: the folder is another host's by now.
        """
        self.check()
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"status": status, "exit_code": exit_code, "reason": reason, **more}
        content |= {"pid": os.getpid(), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        try:
            write_json(self.status, content)
        except OSError as error:
            if error.errno not in _FULL or not self.status.exists():
                raise
            # There is no room for a second file beside it, but the one that is there has room of its own: that a disk
            # is full is what it has to tell.
            text = json.dumps(finite(content)) + "\n"
            with self.status.open("r+", encoding="utf-8") as file:
                file.write(text)
                file.truncate()

    def read_summary(self) -> dict[str, Any] | None:
        """Return the result of a finished run, or None."""
        if not self.summary.exists():
            return None
        try:
            summary: dict[str, Any] = read_json(self.summary)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.summary}: cannot be read: {error}; without it the same command tests the run again"
            ) from None
        return summary

    def write_config(self, text: str) -> None:
        """Save the resolved configuration."""
        write_text(self.config, text)


def _let_go(lease: Lease, file: IO[str]) -> None:
    lease.release()
    file.close()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
