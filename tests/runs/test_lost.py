"""Runs that lose what they depend on: another process, an answer of it, their folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.runs import (
    TORCHRUN,
    TWO_PROCESSES,
    alive,
    assert_same_run,
    checkpoint_steps,
    command,
    environment,
    family,
    kill_family,
    read,
    run,
    wait_until,
)

SLOW = """
import os, time
from torch import nn


class Slow(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.map = nn.Linear(shape.context, shape.horizon)
        self.targets = shape.targets

    def forward(self, past_values):
        time.sleep(float(os.environ.get("STEP_TIME", "0")))
        return self.map(past_values.transpose(1, 2)).transpose(1, 2)[..., : self.targets]
"""
OPTIONS = {"model__name": "slow:Slow", "checkpoint__every_steps": 5}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Started:
    """A run in a process of its own, which has made its first checkpoints."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.members: set[int] = set()
        self.output = folder.with_suffix(".txt").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            words,
            env=environment(STEP_TIME="0.05"),
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until(lambda: len(checkpoint_steps(folder)) > 1 or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def rank(self, number: int) -> int:
        """The process id of a rank."""
        self.members |= set(family(self.process.pid))  # some outlive their launcher, which is then nobody's parent
        for pid in filter(alive, self.members):
            if f"\0RANK={number}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return pid
        raise AssertionError("no such rank")

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def end(self) -> None:
        kill_family(self.process.pid)
        for pid in filter(alive, self.members):
            kill_family(pid)
        self.process.wait()
        self.output.close()


@pytest.fixture
def start() -> Iterator[Any]:
    """Start a run; it does not outlive the test."""
    started: list[Started] = []

    def begin(words: list[str], folder: Path) -> Started:
        started.append(Started(words, folder))
        return started[-1]

    yield begin
    for each in started:
        each.end()


def ended(folder: Path) -> dict[str, Any]:
    status: dict[str, Any] = read(folder / "status.json")
    return status if status["status"] != "running" else {}


@pytest.mark.parametrize("launcher", [TORCHRUN, pytest.param(TWO_PROCESSES, marks=pytest.mark.slow)])
def test_the_death_of_another_process_is_one_line(here: Path, start: Any, launcher: list[str]) -> None:
    words = command(here, "r", launcher, **OPTIONS)
    training = start(words, here / "r")
    os.kill(training.rank(1), signal.SIGKILL)
    assert training.process.wait(timeout=60) == 1
    status = ended(here / "r")
    assert (status["status"], status["exit_code"]) == ("failed", 5)
    assert "another process of this run died" in status["reason"]
    assert "goes on from the last checkpoint" in status["reason"]
    [line] = [line for line in training.said().splitlines() if "error: " in line]
    assert line.startswith("error: another process of this run died or gave no answer (")
    assert "accel_trainer/trainer" not in training.said(), "a traceback of ours"
    run(words)
    run(command(here, "whole", launcher, **OPTIONS))
    assert_same_run(here / "whole", here / "r")


def test_a_process_that_hangs_is_not_waited_for_for_ever(here: Path, start: Any) -> None:
    training = start(command(here, "r", TORCHRUN, training__process_timeout=4, **OPTIONS), here / "r")
    os.kill(training.rank(1), signal.SIGSTOP)
    wait_until(lambda: ended(here / "r"), seconds=30)
    assert ended(here / "r")["exit_code"] == 5
    assert "gave no answer" in ended(here / "r")["reason"]


@pytest.mark.slow
def test_a_second_interrupt_ends_a_process_that_waits_for_another(here: Path, start: Any) -> None:
    training = start(command(here, "r", TORCHRUN, **OPTIONS), here / "r")
    first = training.rank(0)
    os.kill(training.rank(1), signal.SIGSTOP)
    time.sleep(0.5)
    for _ in range(2):
        os.kill(first, signal.SIGINT)
        time.sleep(0.2)
    wait_until(lambda: ended(here / "r"), seconds=20)
    assert (ended(here / "r")["status"], ended(here / "r")["exit_code"]) == ("failed", 130)
    assert "told to end while it waited" in ended(here / "r")["reason"]


@pytest.mark.slow
def test_interrupts_of_a_launcher_whose_trainers_hang_leave_no_orphan(here: Path, start: Any) -> None:
    """Launchers pass on the first Ctrl-C alone; the second ends them."""
    training = start(command(here, "r", TWO_PROCESSES, **OPTIONS), here / "r")
    first = training.rank(0)
    os.kill(training.rank(1), signal.SIGSTOP)
    time.sleep(0.5)
    for _ in range(3):
        os.killpg(training.process.pid, signal.SIGINT)
        time.sleep(1)
    wait_until(lambda: not alive(first), seconds=40)
    assert ended(here / "r")["exit_code"] in (5, 130)


@pytest.mark.slow
def test_an_error_of_another_process_alone_is_told_by_it(here: Path) -> None:
    (here / "elsewhere").mkdir()
    (here / "own.py").write_text(
        "import os, sys\n"
        "from accel_trainer.train import main\n"
        "if os.environ['RANK'] == '1':\n"
        "    os.chdir('elsewhere')\n"
        "sys.exit(main())\n"
    )
    words = command(here, "r", [*TORCHRUN[:-1], "own.py"], module="")
    words = [word for word in words if word]
    (here / "data.csv").write_text("time,a\n" + "".join(f"{n},{n % 7}\n" for n in range(2000)))
    done = run([*words, "--data.path", "data.csv"], cwd=here, code=None)
    assert done.returncode != 0
    assert "error in process 1: data.path: no such file: data.csv" in done.stderr


def test_a_log_on_a_full_disk_ends_no_training(here: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command(here, "r"), stdout=full, stderr=full, env=environment(), timeout=120, check=False)
    assert done.returncode == 0
    assert ended(here / "r")["status"] == "finished"


def test_a_folder_that_is_moved_ends_the_run_and_goes_on_where_it_is(here: Path, start: Any) -> None:
    words = command(here, "r", **OPTIONS)
    training = start(words, here / "r")
    (here / "r").rename(here / "elsewhere")
    assert training.process.wait(timeout=30) == 4
    assert "the folder was moved or deleted while this run was writing to it" in training.said()
    assert "Traceback" not in training.said()
    assert not (here / "r").exists()
    run(command(here, "elsewhere", **OPTIONS))
    run(command(here, "whole", **OPTIONS))
    assert_same_run(here / "whole", here / "elsewhere")


@pytest.mark.slow
def test_another_run_in_the_place_of_a_folder_that_was_moved(here: Path, start: Any) -> None:
    words = command(here, "r", **OPTIONS)
    training = start(words, here / "r")
    shutil.move(here / "r", here / "elsewhere")
    other = start(words, here / "r")
    assert training.process.wait(timeout=30) == 4
    assert "Traceback" not in training.said()
    assert other.process.wait(timeout=120) == 0
    run(command(here, "whole", **OPTIONS))
    assert_same_run(here / "whole", here / "r")


def test_a_folder_that_is_deleted(here: Path, start: Any) -> None:
    training = start(command(here, "r", **OPTIONS), here / "r")
    shutil.rmtree(here / "r", ignore_errors=True)
    assert training.process.wait(timeout=30) == 4
    assert "Traceback" not in training.said()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_during_imports_waits_for_their_end(tmp_path: Path, name: str) -> None:
    (tmp_path / "slowly.py").write_text("import time\nfor _ in range(80):\n    time.sleep(0.01)\nprint('imported')\n")
    (tmp_path / "program.py").write_text(
        "import sys, time\n"
        "from accel_trainer.command import run_command\n"
        "def body(outcome):\n"
        "    print('begun', flush=True)\n"
        "    import slowly\n"
        "    time.sleep(10)\n"
        "    return 0\n"
        "sys.exit(run_command(body))\n"
    )
    program = [sys.executable, str(tmp_path / "program.py")]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.Signals[name])
        said, complained = process.communicate(timeout=8)
    assert process.returncode == {"SIGTERM": 75, "SIGINT": 130}[name]
    assert said == "imported\n"
    assert "Traceback" not in complained


def test_one_interrupt_during_an_import_is_not_taken_for_two(here: Path) -> None:
    """The step that training is in when it hears of it is finished, however long it takes."""
    (here / "slow.py").write_text("import time\ntime.sleep(3)\n" + SLOW)
    words = command(here, "r", **OPTIONS)
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment(STEP_TIME="7")) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (75, 130)
    assert "while it waited" not in ended(here / "r")["reason"]
