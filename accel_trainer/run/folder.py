"""The folder of a run: its files by name, its lock, its status."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

from accel_trainer.checkpoints.files import read_json, write_json, write_text
from accel_trainer.errors import ExitCode, RunLockedError, UserError


class RunFolder:
    """Everything a run leaves on the disk.

    Args:
        path: ``<run.dir>/<run.name>``; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

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
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def lock(self) -> None:
        """Make this process the only one that writes to the folder, until it ends.

        Raises:
            RunLockedError: a live process holds it.
            UserError: the folder cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be used as a run folder: {error}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise RunLockedError(
                f"{self.path}: {holder} is writing to this run; wait for it, stop it, or choose another --run.name"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._lock = file

    @property
    def locked(self) -> bool:
        """Whether this process holds the lock."""
        return self._lock is not None

    def unlock(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
        """Say how the latest start stands: running, finished, preempted or failed."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"status": status, "exit_code": exit_code, "reason": reason, **more}
        write_json(self.status, {**content, "pid": os.getpid(), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})

    def read_summary(self) -> dict[str, Any] | None:
        """Return the result of a finished run, or None."""
        return read_json(self.summary) if self.summary.exists() else None

    def write_config(self, text: str) -> None:
        """Save the resolved configuration."""
        write_text(self.config, text)
