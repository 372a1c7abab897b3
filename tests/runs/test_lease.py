"""Who may write to a run folder: processes of one host, and of hosts that lock each for itself."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel_trainer.errors import NotWrittenError, RunLockedError, UserError
from accel_trainer.run import lease
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lease import Record

LONG = 60.0
"""A lapse that no test waits for."""
SHORT = 0.5
"""A lapse that a test waits for; five renewals."""

PROCESS = """
import fcntl, resource, sys
from pathlib import Path
from accel_trainer.errors import UserError
from accel_trainer.run import lease
from accel_trainer.run.folder import RunFolder

folder, boot = RunFolder(Path(sys.argv[1])), sys.argv[2]
lease.LAPSE, lease.RENEW, lease.SETTLE, lease.POLL = *map(float, sys.argv[3:]), 0.2, 0.05
if boot:  # another host, on a filesystem where every host locks for itself
    lease.boot_id = lambda: boot
    fcntl.flock = lambda *_: None
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
orders = {
    "lock": folder.lock,
    "check": folder.check,
    "unlock": folder.unlock,
    "fill the disk": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, unlimited[1])),  # less than a record
    "free the disk": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, unlimited),
}
for order in sys.stdin:
    try:
        orders[order.strip()]()
    except UserError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    else:
        print("done", flush=True)
"""


class Process:
    """Another process that locks, checks and unlocks a run folder when told to."""

    def __init__(self, folder: Path, boot: str, lapse: float, renew: float) -> None:
        words = [sys.executable, "-c", PROCESS, str(folder), boot, str(lapse), str(renew)]
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)
        self.pid = self.popen.pid

    def tell(self, order: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{order}\n")

    def answer(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def does(self, order: str) -> str:
        self.tell(order)
        return self.answer()

    def warning(self) -> str:
        assert self.popen.stderr is not None
        return self.popen.stderr.readline().strip()

    def stop(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def go_on(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self) -> int:
        """Let it end as a program does that is done, without unlocking."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        return self.popen.wait()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start processes; with ``boot`` on another host."""
    started: list[Process] = []

    def one(boot: str = "", lapse: float = LONG, renew: float = 0.1) -> Process:
        started.append(Process(tmp_path / "run", boot, lapse, renew))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        for stream in (process.popen.stdin, process.popen.stdout, process.popen.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"RENEW": 0.1, "LAPSE": LONG, "SETTLE": 0.2, "POLL": 0.05}.items():
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """The run folder as this process sees it."""
    run = RunFolder(tmp_path / "run")
    yield run
    run.unlock()


def lapse_after(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LAPSE", seconds)


def record(folder: RunFolder) -> Path:
    return max(folder.path.glob(".lease.*"), key=lambda path: int(path.suffix[1:]))


def changes(path: Path, within: float) -> bool:
    before, end = path.read_bytes(), time.monotonic() + within
    while time.monotonic() < end:
        time.sleep(0.02)
        if path.read_bytes() != before:
            return True
    return False


@pytest.mark.parametrize("stopped", [False, True])
def test_a_second_process_of_this_host_is_refused_at_once(start: Start, folder: RunFolder, stopped: bool) -> None:
    first = start(lapse=SHORT)
    assert first.does("lock") == "done"
    if stopped:
        first.stop()
        time.sleep(SHORT)
    begin = time.monotonic()
    with pytest.raises(RunLockedError, match=f"process {first.pid} on {socket.gethostname()} is writing"):
        folder.lock()
    assert time.monotonic() - begin < 1
    assert not folder.locked
    if stopped:
        first.go_on()
        assert first.does("check") == "done"


def test_a_process_of_this_host_that_was_killed_is_followed_at_once(
    start: Start, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start()
    assert first.does("lock") == "done"
    first.kill()
    begin = time.monotonic()
    folder.lock()
    assert time.monotonic() - begin < 1
    assert capsys.readouterr().err == ""


def test_a_live_lease_of_another_host_is_refused(
    start: Start, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start("another kernel")
    assert first.does("lock") == "done"
    for _ in range(2):  # a refusal takes nothing from the holder
        with pytest.raises(RunLockedError, match=f"process {first.pid} on {socket.gethostname()} is writing"):
            folder.lock()
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert f"process {first.pid}" in said[0]
        assert "waiting up to 60 s" in said[0]
        assert first.does("check") == "done"


def test_a_killed_process_of_another_host_is_followed_after_its_lease_lapsed(
    start: Start, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start("another kernel")
    assert first.does("lock") == "done"
    first.kill()
    with pytest.raises(RunLockedError, match=f"process {first.pid}"):
        folder.lock(wait=False)
    assert capsys.readouterr().err == ""
    lapse_after(SHORT, monkeypatch)
    begin = time.monotonic()
    folder.lock()
    assert time.monotonic() - begin >= SHORT
    waited, followed = capsys.readouterr().err.splitlines()
    assert f"process {first.pid}" in waited
    assert f"process {first.pid}" in followed
    folder.check()


@pytest.mark.parametrize("how", ["unlock", "end"])
def test_what_was_let_go_is_free_for_another_host_at_once(start: Start, folder: RunFolder, how: str) -> None:
    first = start("another kernel")
    assert first.does("lock") == "done"
    if how == "unlock":
        assert first.does("unlock") == "done"
    else:
        assert first.end() == 0
    begin = time.monotonic()
    folder.lock()
    assert time.monotonic() - begin < 1


def test_who_waits_for_another_host_goes_on_as_soon_as_that_ends(start: Start, folder: RunFolder) -> None:
    """Until then it is the one that keeps a second process of its own host out."""
    first, waiting = start("another kernel", renew=LONG), start()
    assert first.does("lock") == "done"
    waiting.tell("lock")
    assert f"process {first.pid}" in waiting.warning()
    with pytest.raises(RunLockedError, match=f"process {waiting.pid} "):
        folder.lock()
    assert first.does("unlock") == "done"
    assert waiting.answer() == "done"


@pytest.mark.parametrize("before", ["nothing", "killed on another host", "damaged"])
def test_of_several_hosts_that_start_at_once_one_wins(start: Start, folder: RunFolder, before: str) -> None:
    folder.path.mkdir()
    if before == "damaged":
        (folder.path / ".lease.3").write_text('{"host": "a')
    elif before != "nothing":
        first = start("dead kernel")
        assert first.does("lock") == "done"
        first.kill()
    hosts = [start(f"kernel {number}", lapse=1.5) for number in range(5)]
    for host in hosts:
        assert host.does("check") == "done"  # it is up
    for host in hosts:
        host.tell("lock")
    answers = [host.answer() for host in hosts]
    assert answers.count("done") == 1
    winner = hosts[answers.index("done")]
    for host, answer in zip(hosts, answers, strict=True):
        if host is not winner:
            assert answer.startswith("RunLockedError")
            assert f"process {winner.pid} on" in answer or "another process" in answer
    assert winner.does("check") == "done"
    assert [path.name for path in folder.path.glob(".lease.*")] == [record(folder).name]


def test_who_was_held_up_between_looking_and_taking_finds_the_run_taken(
    start: Start, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two others had it meanwhile, and the number that it was about to take is free once more."""
    dead, second, third = start(), start("kernel 2", lapse=0.1), start("kernel 3")
    assert dead.does("lock") == "done"
    dead.kill()
    known = lease.boot_id

    def held_up() -> str:  # asked for when the record has been read
        monkeypatch.setattr(lease, "boot_id", known)
        assert [second.does("lock"), second.does("unlock"), third.does("lock")] == ["done"] * 3
        return known()

    monkeypatch.setattr(lease, "boot_id", held_up)
    with pytest.raises(RunLockedError, match=f"process {third.pid} "):
        folder.lock()
    assert third.does("check") == "done"
    assert [path.name for path in folder.path.glob(".lease.*")] == [".lease.3"]


@pytest.mark.parametrize("finished", [False, True])
def test_who_lost_the_run_while_stopped_learns_of_it_and_leaves_the_taker_alone(
    start: Start, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    stopped = start("another kernel")
    assert stopped.does("lock") == "done"
    stopped.stop()
    lapse_after(SHORT, monkeypatch)
    folder.lock()
    if finished:
        folder.unlock()
    stopped.go_on()
    refused = f"RunLostError: {folder.path}: process {os.getpid()} on "
    assert stopped.does("check").startswith(refused)
    time.sleep(0.3)  # some renewals
    if not finished:
        folder.check()
    assert json.loads(record(folder).read_text())["pid"] == os.getpid()
    assert stopped.does("unlock") == "done"
    if finished:
        with pytest.raises(RunLockedError, match="writes to it no more"):
            folder.check()
    else:
        folder.check()
    assert len(list(folder.path.glob(".lease.*"))) == 1


def test_a_record_that_is_gone_or_damaged_is_no_proof_of_a_loss(folder: RunFolder) -> None:
    folder.check()  # nothing held, nothing lost
    folder.lock()
    record(folder).write_bytes(b"\x00\xff{")
    folder.check()
    record(folder).unlink()
    folder.check()
    assert folder.locked


def test_a_folder_that_is_moved_or_emptied_is_noticed(folder: RunFolder) -> None:
    folder.lock()
    moved = folder.path.with_name("moved")
    folder.path.rename(moved)
    with pytest.raises(NotWrittenError, match="was moved or deleted while this run was writing to it"):
        folder.check()
    folder.path.mkdir()
    with pytest.raises(NotWrittenError, match="was moved or deleted"):
        folder.check()
    folder.path.rmdir()
    moved.rename(folder.path)
    folder.check()


@pytest.mark.parametrize(
    "content", [b"", b"\x80\xff", b"process 12 on node1", b"[" * 5000, b'{"pid": 1}', b'{"host": 1, "pid": "2"}']
)
def test_a_record_that_says_nothing_stops_nobody(folder: RunFolder, content: bytes) -> None:
    folder.path.mkdir()
    (folder.path / ".lease.7").write_bytes(content)
    (folder.path / ".lock").write_bytes(content)
    folder.lock()
    folder.check()
    assert record(folder).name == ".lease.8"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_flock_the_lease_decides_alone(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, code: int, start: Start
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    folder.lock()
    second = RunFolder(folder.path)
    with pytest.raises(RunLockedError, match=f"process {os.getpid()} "):
        second.lock()
    folder.check()
    folder.unlock()
    second.lock()
    second.check()
    second.unlock()
    killed = start()
    assert killed.does("lock") == "done"
    killed.kill()
    lapse_after(0.2, monkeypatch)
    folder.lock()


def test_a_lock_that_fails_otherwise_is_not_taken_for_held(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(UserError, match="cannot be used as a run folder: Input/output error") as caught:
        folder.lock()
    assert not isinstance(caught.value, RunLockedError)


def test_a_renewal_that_fails_is_tried_again(start: Start, folder: RunFolder) -> None:
    holder = start("another kernel")
    assert holder.does("lock") == "done"
    assert changes(record(folder), within=5)
    assert holder.does("fill the disk") == "done"
    time.sleep(0.15)  # a renewal under way
    assert not changes(record(folder), within=0.5)
    assert holder.does("check") == "done"
    assert holder.does("free the disk") == "done"
    assert changes(record(folder), within=5)


def test_a_full_disk_at_the_start_is_the_users_matter_and_leaves_no_record(start: Start, folder: RunFolder) -> None:
    process = start("another kernel")
    assert process.does("fill the disk") == "done"
    assert process.does("lock").startswith(f"NotWrittenError: {folder.path}: cannot be used as a run folder")
    assert not list(folder.path.glob(".lease.*"))
    assert process.does("free the disk") == "done"
    assert process.does("lock") == "done"


def test_a_run_set_aside_takes_its_lease_along(folder: RunFolder) -> None:
    folder.lock()
    aside = folder.set_aside()
    folder.unlock()
    released = {path.name: path.read_bytes() for path in aside.iterdir()}
    folder.lock()
    time.sleep(0.3)  # some renewals
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == released
    earlier = RunFolder(aside)
    earlier.lock()
    folder.check()
    earlier.check()
    earlier.unlock()


def test_no_renewal_follows_an_unlock(folder: RunFolder) -> None:
    folder.lock()
    folder.unlock()
    folder.unlock()
    path = record(folder)
    assert json.loads(path.read_text())["released"] is True
    assert not changes(path, within=0.3)
    path.unlink()
    time.sleep(0.3)
    assert not list(folder.path.glob(".lease.*"))


def test_a_folder_object_that_is_dropped_lets_go(folder: RunFolder) -> None:
    dropped = RunFolder(folder.path)
    dropped.lock()
    with pytest.raises(RunLockedError):
        folder.lock()
    del dropped
    folder.lock()


def test_a_forked_child_that_ends_does_not_let_go(folder: RunFolder, start: Start) -> None:
    folder.lock()
    child = os.fork()
    if child == 0:
        folder.unlock()
        os._exit(0)
    os.waitpid(child, 0)
    assert "RunLockedError" in start().does("lock")
    assert "RunLockedError" in start("another kernel").does("lock")


def test_a_lock_alone_is_no_run(folder: RunFolder) -> None:
    folder.lock()
    assert not folder.has_run()


@given(st.binary() | st.text().map(str.encode))
def test_any_content_is_read_or_counts_as_none(content: bytes) -> None:
    assert Record.decode(content) is None


@given(st.text(), st.integers(1, 2**31), st.text(), st.integers(0, 10**11), st.booleans())
def test_a_record_is_read_as_it_was_written_and_keeps_its_length(
    host: str, pid: int, boot: str, renewals: int, released: bool
) -> None:
    written = Record(host, pid, boot, "token", renewals, released)
    assert Record.decode(written.encode()) == written
    assert len(written.encode()) == len(Record(host, pid, boot, "token").encode())
