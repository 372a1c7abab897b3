"""Ends that come from outside, whoever is told of them, and how the same command goes on afterwards."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.hooks.signals import Signals
from accel_trainer.hooks.time_limit import TimeLimit
from accel_trainer.trainer.hooks import Hook
from tests.helpers.runs import (
    PYTHON,
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
from tests.helpers.training import model, series, trainer, windows

# Draws random numbers in every step, and takes its time while a test waits for the right moment.
SLOW = """
import os, time
from torch import nn


class Slow(nn.Module):
    def __init__(self, shape, p=0.3):
        super().__init__()
        self.net = nn.Sequential(nn.Dropout(p), nn.Linear(shape.context, shape.horizon))
        self.targets = shape.targets

    def forward(self, past_values):
        time.sleep(float(os.environ.get("STEP_TIME" if self.training else "BATCH_TIME", "0")))
        return self.net(past_values.transpose(1, 2)).transpose(1, 2)[..., : self.targets]
"""
OPTIONS = {"model__name": "slow:Slow", "training__epochs": 3, "checkpoint__every_steps": 5}

LAUNCHERS = {
    "python": PYTHON,
    "accelerate, 1 process": ["accelerate", "launch", "-m"],
    "accelerate, 2 processes": TWO_PROCESSES,
    "torchrun, 2 processes": TORCHRUN,
}
ENDS = ("SIGTERM", "SIGUSR1", "SIGINT")
QUICK = {("accelerate, 1 process", "SIGTERM")}  # python -m alone is told in test_interrupted_run.py


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[Any]]]:
    """Processes that must not outlive the test, whatever becomes of it."""
    processes: list[subprocess.Popen[Any]] = []
    yield processes
    for process in processes:
        kill_family(process.pid)
        process.wait()


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of runs that nobody disturbed, by their number of processes; made when asked for."""

    class Wholes(dict[int, Path]):
        def __missing__(self, processes: int) -> Path:
            folder = tmp_path_factory.mktemp("whole")
            (folder / "slow.py").write_text(SLOW)
            run(command(folder, "whole", PYTHON if processes == 1 else TWO_PROCESSES, **OPTIONS), cwd=folder)
            self[processes] = folder / "whole"
            return self[processes]

    return Wholes()


def start(
    words: Sequence[str], started: list[subprocess.Popen[Any]], folder: Path | None = None, **more: Any
) -> subprocess.Popen[Any]:
    """Start a run whose every step takes a moment; with a folder, come back when it has a checkpoint."""
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **more}
    process: subprocess.Popen[Any] = subprocess.Popen(words, env=environment(STEP_TIME="0.1"), **options)
    started.append(process)
    if folder is not None:
        wait_until(lambda: checkpoint_steps(folder) or process.poll() is not None)
        assert process.poll() is None, "the run ended by itself"
    return process


def assert_preempted(folder: Path, *reasons: str) -> None:
    status = read(folder / "status.json")
    assert (status["status"], status["exit_code"]) == ("preempted", 75)
    assert any(reason in status["reason"] for reason in reasons)
    assert checkpoint_steps(folder)[-1] == status["step"]


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        pytest.param(name, number, marks=() if (name, number) in QUICK else pytest.mark.slow)
        for name in LAUNCHERS
        for number in ENDS
    ],
)
def test_told_to_the_launcher_alone(
    here: Path, wholes: dict[int, Path], started: list[subprocess.Popen[Any]], launcher: str, number: str
) -> None:
    words = command(here, "asked", LAUNCHERS[launcher], **OPTIONS)
    process = start(words, started, here / "asked")
    members = family(process.pid)
    process.send_signal(signal.Signals[number])
    assert (process.wait(timeout=60) == 75) == (launcher == "python")
    wait_until(lambda: not any(alive(member) for member in members), seconds=30)
    # The end of the launcher arrives as SIGTERM.
    assert_preempted(here / "asked", f"{number} received in step", "SIGTERM received in step")
    run(words)
    assert_same_run(wholes[2 if "2" in launcher else 1], here / "asked")


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once(here: Path, started: list[subprocess.Popen[Any]]) -> None:
    words = command(here, "r", **{**OPTIONS, "checkpoint__every_steps": 1})
    process = subprocess.Popen(words, env=environment(STEP_TIME="2"), stderr=subprocess.PIPE, text=True)
    started.append(process)
    wait_until(lambda: checkpoint_steps(here / "r"))
    before = checkpoint_steps(here / "r")
    process.send_signal(signal.SIGTERM)  # what comes besides is not counted
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    status = read(here / "r/status.json")
    assert (status["status"], status["exit_code"]) == ("failed", 130)
    assert checkpoint_steps(here / "r") == before  # nothing was saved on the way out


@pytest.mark.slow
def test_an_evaluation_is_not_waited_for(
    here: Path, wholes: dict[int, Path], started: list[subprocess.Popen[Any]]
) -> None:
    words = command(here, "r", **OPTIONS)
    # The validation takes half a minute then, and the first one follows step 36.
    process = subprocess.Popen([*words, "--evaluation.batch_size", "16"], env=environment(BATCH_TIME="3"))
    started.append(process)
    wait_until(lambda: (checkpoint_steps(here / "r") or [0])[-1] == 35)
    time.sleep(1)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=12) == 75
    assert_preempted(here / "r", "SIGUSR1 received in the evaluation after step 36")
    run(words)
    assert_same_run(wholes[1], here / "r")


@pytest.mark.slow
def test_a_run_outlives_the_readers_of_its_output(here: Path, started: list[subprocess.Popen[Any]]) -> None:
    def unread() -> int:
        reader, writer = os.pipe()
        os.close(reader)
        return writer

    words = command(here, "r", **OPTIONS)
    process = start(words, started, here / "r", stdout=unread(), stderr=unread())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    assert_preempted(here / "r", "SIGTERM received in step")
    done = subprocess.run(words, env=environment(), stdout=unread(), stderr=unread(), timeout=120, check=False)
    assert done.returncode == 0
    assert read(here / "r/status.json")["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate, 1 process", "torchrun, 2 processes"])
def test_a_launcher_is_read_for_one_line_only(here: Path, started: list[subprocess.Popen[Any]], launcher: str) -> None:
    words = command(here, "r", LAUNCHERS[launcher], **OPTIONS)

    def read_one_line(step_time: str) -> subprocess.Popen[Any]:
        process = subprocess.Popen(
            words, env=environment(STEP_TIME=step_time), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        return process

    process = read_one_line("0.05")
    wait_until(lambda: (checkpoint_steps(here / "r") or [0])[-1] >= 36)  # after an evaluation, which prints
    members = family(process.pid)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: not any(alive(member) for member in members), seconds=30)
    assert_preempted(here / "r", "SIGTERM received in step")
    assert read_one_line("0").wait(timeout=120) == 0
    assert read(here / "r/status.json")["status"] == "finished"


def test_a_terminal_that_is_closed(here: Path) -> None:
    words = command(here, "r", **OPTIONS)
    child, terminal = pty.fork()
    if child == 0:  # leads a session whose terminal the pty is
        os.execvpe(words[0], list(words), environment(STEP_TIME="0.1"))
    try:
        wait_until(lambda: checkpoint_steps(here / "r"))
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert_preempted(here / "r", "SIGHUP received in step")


@pytest.mark.slow
def test_ignored_signals_stay_ignored(here: Path, started: list[subprocess.Popen[Any]]) -> None:
    """As nohup starts a command, or a script with `&`."""
    ignoring = "import os, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGHUP, signal.SIGINT)]; "
    words = [sys.executable, "-c", ignoring + "os.execv(sys.executable, sys.argv[1:])"]
    process = start([*words, *command(here, "r", **OPTIONS)], started, here / "r")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGINT):
        process.send_signal(number)
    step = checkpoint_steps(here / "r")[-1]
    wait_until(lambda: checkpoint_steps(here / "r")[-1] > step + 5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    assert_preempted(here / "r", "SIGTERM received in step")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["python", "accelerate, 2 processes"])
def test_a_run_ends_when_its_time_is_over(here: Path, wholes: dict[int, Path], launcher: str) -> None:
    words = command(here, "r", LAUNCHERS[launcher], **OPTIONS)
    done = subprocess.run(
        [*words, "--training.max_time", "0.5"], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode == 75) == (launcher == "python"), done.stderr
    assert_preempted(here / "r", "training.max_time of 0.5 s is over in step 1")
    run(words)
    assert_same_run(wholes[2 if "2" in launcher else 1], here / "r")


class Sender(Hook):
    """Sends this process a signal after some step, and may fail after it."""

    name = "sender"

    def __init__(self, step: int, number: signal.Signals, fails: bool = False) -> None:
        self._step, self._number, self._fails = step, number, fails

    def on_step_end(self, trainer: Any) -> None:
        if trainer.state.step == self._step:
            signal.raise_signal(self._number)
            if self._fails:
                raise RuntimeError("the disk is gone")


class ReceivedError(Exception):
    """What the handlers of the program around a training raise."""


@pytest.fixture
def own_handlers() -> Iterator[dict[signal.Signals, Any]]:
    """A program with handlers of its own."""

    def raise_it(number: int, _frame: object) -> None:
        raise ReceivedError(signal.Signals(number).name)

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, raise_it) for number in numbers}
    yield dict.fromkeys(numbers, raise_it)
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers(like: dict[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in like}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT"])
def test_a_program_gets_its_handlers_back(own_handlers: dict[signal.Signals, Any], name: str) -> None:
    hooks = [Sender(3, signal.Signals[name]), Signals()]
    state = trainer(model(), windows(series()), hooks=hooks).fit()
    assert state.stop is not None
    assert (state.stop.kind, state.stop.reason, state.step) == ("preempted", f"{name} received in step 3", 3)
    assert handlers(own_handlers) == own_handlers


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_that_came_too_late_is_the_programs(own_handlers: dict[signal.Signals, Any], name: str) -> None:
    training = trainer(
        model(), windows(series()), hooks=[Signals(), Sender(2, signal.Signals[name])], training__max_steps=2
    )
    with pytest.raises(ReceivedError, match=name):
        training.fit()
    assert training.state.step == 2
    assert handlers(own_handlers) == own_handlers


def test_an_error_is_not_taken_for_the_end_that_was_asked_for(own_handlers: dict[signal.Signals, Any]) -> None:
    training = trainer(model(), windows(series()), hooks=[Signals(), Sender(2, signal.SIGTERM, fails=True)])
    with pytest.raises(RuntimeError, match="the disk is gone"):
        training.fit()
    assert handlers(own_handlers) == own_handlers


def test_time_that_is_not_over_changes_nothing() -> None:
    for began, steps in ((time.monotonic(), 6), (time.monotonic() - 3600, 1)):
        limit = TimeLimit(3600, began)
        state = trainer(model(), windows(series()), hooks=[limit], training__epochs=1).fit()
        assert state.stop is not None
        assert state.step == steps
    assert (state.stop.kind, state.stop.reason) == ("preempted", "training.max_time of 3600 s is over in step 1")
