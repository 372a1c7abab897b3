"""The lease on a run folder: who may write to it when several hosts see the same folder.

``flock`` decides between the processes of one kernel: it ends with its holder, however that dies. On a cluster's
filesystem it may hold on one host only, or not exist. So the holder also leaves a record in the folder and renews it,
and a starter on another host looks whether the record changes. No clocks of two hosts are compared.

A record is a file of its own, ``.lease.<number>``, and the one with the highest number counts. Three properties follow:

* The next number is taken by exclusive creation, which a file server grants once. Of two takers one succeeds.
* A holder renews through the descriptor of its own file. However long it was stopped, it cannot overwrite the record of
  who took over, and it makes no file in a folder that was renamed.
* A released record stays until the next start, marked. A holder that wakes up after all was done by another learns so.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.errors import NotWrittenError, RunLockedError, RunLostError

if TYPE_CHECKING:
    from collections.abc import Callable

RENEW = 5.0
"""Seconds between two renewals."""
LAPSE = 30.0
"""Seconds without a change after which the holder on another host counts as dead."""
SETTLE = 1.0
"""Seconds given to the writer of a record that cannot be read, before it counts as no record."""
POLL = 0.5
"""Seconds between two looks at a record that is watched."""

LOCK = ".lock"
"""The file that processes of one kernel lock; it is never removed."""

_NAME = re.compile(r"\.lease\.([1-9][0-9]*)")
_ENOUGH = 4096  # bytes; a record has about 250


@dataclass(frozen=True)
class Record:
    """What a holder tells of itself.

    Attributes:
        host: name of its host, for people.
        pid: its process on that host, for people.
        boot: the kernel it runs on (:func:`boot_id`).
        token: a random word, so that no two leases are taken for one.
        renewals: how often it was renewed.
        released: whether the holder has let go.
    """

    host: str
    pid: int
    boot: str
    token: str
    renewals: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def encode(self) -> bytes:
        """Return the file's content.

        Its length depends on neither the renewals nor the release, so it can be overwritten in place, and a reader on
        another host that sees the half of a renewal still sees a record.
        """
        fixed = json.dumps({"host": self.host, "pid": self.pid, "boot": self.boot, "token": self.token})
        released = "true" if self.released else "false"
        return f'{fixed[:-1]}, "renewals": {self.renewals:12d}, "released": {released:>5}}}\n'.encode()

    @classmethod
    def decode(cls, content: bytes) -> Record | None:
        """Return the record, or None if the content is not one: empty, damaged, or of another version."""
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError):
            return None
        wanted = {"host": str, "pid": int, "boot": str, "token": str, "renewals": int, "released": bool}
        if not isinstance(fields, dict) or any(not isinstance(fields.get(key), kind) for key, kind in wanted.items()):
            return None
        return cls(**{key: fields[key] for key in wanted})


class Lease:
    """A lease that this process holds and renews until it is released; taken with :meth:`take`."""

    def __init__(self, folder: Path, number: int) -> None:
        """Create the record.

        Raises:
            FileExistsError: another process took this number first.
            OSError: the record cannot be written.
        """
        self._folder = folder
        self._record = Record(socket.gethostname(), os.getpid(), boot_id(), secrets.token_hex(16))
        self._ended = threading.Event()
        path = _path(folder, number)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            self._write()
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def take(cls, folder: Path, *, flocked: bool, wait: bool, say: Callable[[str], None]) -> Lease:
        """Take the lease on a folder, or wait until it is known whether its holder lives.

        Args:
            folder: of the run; it exists.
            flocked: whether this process holds the folder's ``flock``. Any other holder on this kernel is dead then.
            wait: whether to wait for up to :data:`LAPSE` seconds; otherwise a record that may be alive is taken as so.
            say: told once what is waited for, and once from whom the run was taken over.

        Raises:
            RunLockedError: a live process holds it, or was faster.
            OSError: the folder cannot be read or written.
        """
        number, lapsed = _await_free(folder, flocked, wait, say)
        try:
            lease = cls(folder, number + 1)
        except FileExistsError:
            raise refusal(folder, newest(folder)) from None
        latest, content = _read_newest(folder)
        # A starter that was held up may get a number whose later ones were taken, released and cleared in between.
        if latest != number + 1:
            os.close(lease._file)
            _path(folder, number + 1).unlink(missing_ok=True)
            raise refusal(folder, Record.decode(content))
        for earlier in _numbers(folder):
            if earlier <= number:
                with suppress(OSError):  # one left over does no harm
                    _path(folder, earlier).unlink()
        if lapsed is not None:
            say(f"{folder}: {lapsed} gave no sign of life for {LAPSE:g} s: this process goes on with its run")
        lease._thread.start()
        return lease

    def check(self) -> None:
        """Make sure that the folder is there and that nobody took over, in the time of two system calls on a folder.

        A record that is missing or cannot be read proves nothing: the disk may be full, the server away.

        Raises:
            RunLostError: the lease is another's, because this process was stopped or cut off for too long, or the
                folder was moved and another run has begun in its place.
            NotWrittenError: the folder was moved or deleted, or all that was in it.
        """
        try:
            number, content = _read_newest(self._folder)
        except FileNotFoundError:
            number, content = 0, b""
        except OSError:
            return
        if self._record.token.encode() in content:
            return
        if number == 0 and not (self._folder / LOCK).exists():
            raise NotWrittenError(
                f"{self._folder}: the folder was moved or deleted while this run was writing to it; nothing more is "
                "written (from a folder that was moved the run goes on, under its new run.dir and run.name)"
            )
        taker = Record.decode(content)
        if taker is not None:
            raise RunLostError(
                f"{self._folder}: {taker} writes here now: it took over while this process was stopped or cut off, or "
                "the folder was moved; nothing more is written here"
            )

    def release(self) -> None:
        """Let another host take over without waiting; does nothing the second time, or in a forked child."""
        if os.getpid() != self._record.pid:
            return
        self._ended.set()
        # Garbage collection may come here on the renewing thread itself.
        if threading.current_thread() is not self._thread:
            self._thread.join(RENEW)  # where the server hangs, the lease is left to lapse

    def _keep(self) -> None:
        """Renew until the end, then mark the record; all on one thread, so that no renewal follows a release."""
        renewals = 0
        while not self._ended.wait(RENEW):
            renewals += 1
            with suppress(OSError):  # full disk, server away: tried again next time, and check() knows of real losses
                self._write(renewals)
        with suppress(OSError):  # it lapses instead
            self._write(renewals, released=True)
        with suppress(OSError):
            os.close(self._file)

    def _write(self, renewals: int = 0, released: bool = False) -> None:
        holder = self._record
        content = Record(holder.host, holder.pid, holder.boot, holder.token, renewals, released).encode()
        if os.pwrite(self._file, content, 0) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file)  # network filesystems show it to other hosts only then


def boot_id() -> str:
    """Return what tells this kernel from every other: the id of its boot, or the host name where there is none.

    Containers on one machine share it, as they share ``flock``; their host names and process ids differ.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def newest(folder: Path) -> Record | None:
    """Return the record that counts in a folder, or None if there is none or it cannot be understood."""
    return Record.decode(_read_newest(folder)[1])


def refusal(folder: Path, holder: Record | str | None) -> RunLockedError:
    """Return the error that names the holder of a run."""
    who = holder or "another process"
    return RunLockedError(f"{folder}: {who} is writing to this run; wait for it, stop it, or choose another --run.name")


def _await_free(folder: Path, flocked: bool, wait: bool, say: Callable[[str], None]) -> tuple[int, Record | None]:
    """Return the highest number there is once its holder is known to be gone, and that holder if its lease lapsed."""
    seen, changed = _read_newest(folder), False
    while not _is_free(seen, flocked):
        holder = Record.decode(seen[1])
        if holder is None:
            patience = SETTLE  # damaged, or just being written
        elif changed or not wait:
            raise refusal(folder, holder)
        else:
            patience = LAPSE
            say(f"{folder}: waiting up to {patience:g} s to see whether {holder} is still writing to this run")
        before = seen
        # Counted, not timed: a pause of the whole machine then takes nothing from the time the holder is given.
        for _ in range(max(1, round(patience / POLL))):
            time.sleep(POLL)
            seen = _read_newest(folder)
            if seen != before:
                changed = True
                break
        else:
            return seen[0], holder
    return seen[0], None


def _is_free(seen: tuple[int, bytes], flocked: bool) -> bool:
    """Whether nobody can hold what was read: there is no record, it is released, or its holder died on this kernel."""
    record = Record.decode(seen[1])
    if record is None:
        return seen[0] == 0
    return record.released or (flocked and record.boot == boot_id())


def _read_newest(folder: Path) -> tuple[int, bytes]:
    """Return the highest number, 0 if there is none, and the content of its record, empty if it went meanwhile."""
    number = max(_numbers(folder), default=0)
    if number == 0:
        return 0, b""
    try:
        with _path(folder, number).open("rb", buffering=0) as file:
            return number, file.read(_ENOUGH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return number, b""
        raise


def _numbers(folder: Path) -> list[int]:
    return [int(found[1]) for name in os.listdir(folder) if (found := _NAME.fullmatch(name))]


def _path(folder: Path, number: int) -> Path:
    return folder / f".lease.{number}"
