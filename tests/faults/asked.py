"""Signals that ask for an end: saved, exit code 75, and the same command goes on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.stages import STAGES
from tests.faults.bench import WAITING
from tests.faults.family import Start
from tests.faults.moments import Fault
from tests.faults.proof import Watch
from tests.helpers.runs import read, rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from tests.faults.bench import Bench, Run

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
MOMENTS = ("training", "evaluation", "save")
PAIRINGS = tuple(tuple(zip(SIGNALS, MOMENTS[turn:] + MOMENTS[:turn], strict=True)) for turn in range(3))
"""Each signal with a moment of its own, in three ways: together every signal at every moment."""
_BATCHES = 11
"""Batches of an evaluation by one process."""


def politely(
    bench: Bench, random: Random, behind: bool = WAITING, asked: Sequence[tuple[str, str]] = PAIRINGS[0]
) -> int:
    """Send a signal while a run trains, evaluates or saves, another start each; return how often."""
    run = bench.new(behind=behind)
    watch = Watch(run, bench.undisturbed())
    for name, moment in asked:
        if moment == "save":
            fault = Fault(name, random.choice(STAGES), 1)
        else:
            fault = Fault(name, moment, random.randint(2, _BATCHES - 1 if moment == "evaluation" else 30))
        status = _saved(run, run.start(fault), watch, name)
        if moment == "evaluation":
            assert "in the evaluation after step" in status["reason"]
            pending = read(run.store.path(run.newest()) / "state.json")["trainer"]["pending"]
            assert pending["step"] == run.newest(), "the evaluation was not broken off"
            assert rows(run.folder)[-1]["step"] == run.newest() - 1, "the row does not wait for its evaluation"
    run.finish()
    watch.finished()
    return len(asked)


def several_processes(bench: Bench, random: Random) -> int:
    """Send signals to one process of two, to their launcher, and to all of them at once; return how often."""
    run = bench.new(2)
    watch = Watch(run, bench.undisturbed(2))
    # The evaluation takes so long that the processes ask each other in its midst.
    _saved(run, run.start(Fault("SIGUSR1", "evaluation", 3, rank=1), pauses={"evaluation": 0.4}), watch, "SIGUSR1")
    for send, name in ((Start.send, "SIGTERM"), (Start.send_to_group, "SIGINT")):  # a scheduler; Ctrl-C
        start = run.start(pauses={"training": 0.01})
        run.wait_for_checkpoint(start)
        send(start, signal.Signals[name])
        _saved(run, start, watch, "SIG")
    run.finish()
    watch.finished()
    return 3


def _saved(run: Run, start: Start, watch: Watch, name: str) -> dict[str, Any]:
    """Check that a run was saved and ended because of a signal; return its status."""
    start.end(75)
    status: dict[str, Any] = read(run.folder / "status.json")
    assert status["status"] == "preempted"
    assert name in status["reason"]
    watch.interrupted()
    return status
