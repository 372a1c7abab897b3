"""What a command leaves behind however it ends: exit code, status, and a line for people."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from accel_trainer.command import Outcome, command_began, run_command
from accel_trainer.errors import ConfigError, ExitCode
from accel_trainer.run.folder import RunFolder
from tests.helpers.runs import environment, read

if TYPE_CHECKING:
    from collections.abc import Callable

ENDS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]


def in_folder(folder: Path, body: Callable[[RunFolder], object]) -> int:
    """Run a body as a command that writes to a run folder."""

    def whole(outcome: Outcome) -> ExitCode:
        outcome.folder = RunFolder(folder)
        outcome.folder.lock()
        body(outcome.folder)
        return ExitCode.OK

    return run_command(whole)


def write_into_a_full_disk(_: RunFolder) -> None:
    with open("/dev/full", "w", encoding="utf-8") as file:
        file.write("x")


def raising(error: BaseException) -> Callable[[RunFolder], None]:
    def body(_: RunFolder) -> None:
        raise error

    return body


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_folder(tmp_path / "r", write_into_a_full_disk) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'r'}: could not be written: No space left on device; ")
    status = read(tmp_path / "r/status.json")
    assert (status["status"], status["exit_code"]) == ("failed", 4)
    assert "the same command begins anew once there is room" in status["reason"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_file_that_could_not_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert in_folder(tmp_path / "r", raising(OSError(number, os.strerror(number), "some/file"))) == 4
    assert f"error: some/file: could not be written: {os.strerror(number)}" in capsys.readouterr().err


def test_any_other_error_of_the_system_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        in_folder(tmp_path / "r", raising(PermissionError(errno.EACCES, "no", "some/file")))
    assert read(tmp_path / "r/status.json")["exit_code"] == 1


def test_a_status_that_cannot_be_written_does_not_change_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(outcome: Outcome) -> ExitCode:
        (tmp_path / "file").write_text("")
        outcome.folder = RunFolder(tmp_path / "file" / "r")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    assert run_command(body) == 4
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: some/file")
    assert second.startswith(f"{tmp_path / 'file' / 'r' / 'status.json'}: not written: ")


@pytest.mark.parametrize("number", ENDS)
def test_an_end_outside_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in (*ENDS, signal.SIGINT)]

    def body(_: RunFolder) -> None:
        try:
            signal.raise_signal(number)
        finally:
            # The launcher passes it on, and then ends itself.
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    assert in_folder(tmp_path / "r", body) == 75
    assert [signal.getsignal(n) for n in (*ENDS, signal.SIGINT)] == before
    status = read(tmp_path / "r/status.json")
    assert (status["status"], status["exit_code"]) == ("preempted", 75)
    assert capsys.readouterr().err == f"{status['reason']}\n"
    assert status["reason"].startswith(f"{number.name} received outside of training")


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("failed", 3), ("preempted", 75)])
def test_an_end_after_the_last_word_changes_nothing(tmp_path: Path, status: str, code: int) -> None:
    """A launcher ends all processes as soon as the first has left with an error."""

    def end(folder: RunFolder) -> None:
        folder.write_status(status, ExitCode(code), "as it was", step=7)
        for number in ENDS:
            signal.raise_signal(number)

    assert in_folder(tmp_path / "r", end) == 0  # the body's own code
    said = read(tmp_path / "r/status.json")
    assert (said["status"], said["exit_code"], said["step"]) == (status, code, 7)

    def interrupt(folder: RunFolder) -> None:
        folder.write_status(status, ExitCode(code), "as it was", step=8)
        signal.raise_signal(signal.SIGINT)

    assert in_folder(tmp_path / "r", interrupt) == code
    assert read(tmp_path / "r/status.json")["step"] == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_finished_stays_so_until_a_start_goes_on_with_it(tmp_path: Path, number: signal.Signals) -> None:
    RunFolder(tmp_path).write_status("finished", ExitCode.OK, "all steps done", step=9)
    in_folder(tmp_path, lambda _: signal.raise_signal(number))
    assert in_folder(tmp_path, raising(ConfigError("optimizer.lr", "is wrong"))) == 2
    status = read(tmp_path / "status.json")
    assert (status["status"], status["exit_code"], status["finished"]["step"]) == ("failed", 2, 9)
    in_folder(tmp_path, lambda folder: (folder.write_status("running"), signal.raise_signal(number)))
    assert "finished" not in read(tmp_path / "status.json")


def test_the_last_word_of_an_earlier_start_is_not_this_ones(tmp_path: Path) -> None:
    """In containers every start may have the same process id."""
    RunFolder(tmp_path).write_status("finished", ExitCode.OK, "all steps done")
    assert in_folder(tmp_path, lambda _: signal.raise_signal(signal.SIGTERM)) == 75
    assert read(tmp_path / "status.json")["status"] == "preempted"
    assert in_folder(tmp_path, lambda folder: (folder.write_status("running"), signal.raise_signal(15))) == 75
    assert read(tmp_path / "status.json")["status"] == "preempted"


def test_an_interrupt_outside_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_folder(tmp_path / "r", lambda _: signal.raise_signal(signal.SIGINT)) == 130
    assert read(tmp_path / "r/status.json")["exit_code"] == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_others_may_write_as_soon_as_a_command_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        assert in_folder(tmp_path / "r", lambda _: None) == 0


def test_the_clock_starts_with_the_command(tmp_path: Path) -> None:
    before = time.monotonic()
    in_folder(tmp_path / "r", lambda _: None)
    assert before <= command_began() <= time.monotonic()


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "| true", "| head -1", "2>&1 | true"])
def test_output_that_nobody_reads(tmp_path: Path, redirection: str) -> None:
    line = f"{sys.executable} -u -m accel_trainer.train --print_config {redirection}; echo ${{PIPESTATUS[0]}} >code"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert (tmp_path / "code").read_text() == "0\n"
    assert done.stderr == ""
