"""SIGKILL: to all processes of a training, or to one of several."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from accel_trainer.checkpoints.stages import STAGES
from tests.faults.bench import WAITING
from tests.faults.moments import KILL, KILL_PROCESS, Fault
from tests.faults.proof import Watch
from tests.helpers.runs import read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from tests.faults.bench import Bench

MOMENTS = (*STAGES, "writing")
"""Every stage of a save, and one before or between its large files."""
_SAVES = 3
"""A kill at a stage comes in one of that many saves of a start."""
_SLOW_DISK = {"writing": 0.05}
"""Training takes a few steps while a file is written behind its back."""


def in_saves(
    bench: Bench, random: Random, processes: int = 1, behind: bool = WAITING, moments: Sequence[str] = MOMENTS
) -> int:
    """Kill everything at each of these moments of a save, one after the other; return how often."""
    run = bench.new(processes, behind)
    watch = Watch(run, bench.undisturbed(processes))
    for moment in moments:
        fault = Fault(KILL, moment, random.randint(1, _SAVES))
        run.start(fault, pauses=_SLOW_DISK if behind else None).end(-signal.SIGKILL)
        watch.interrupted()
    run.finish()
    watch.finished()
    return len(moments)


def at_random_instants(
    bench: Bench, random: Random, processes: int = 1, behind: bool = WAITING, times: int = 10
) -> int:
    """Kill everything so many times at instants that nobody chose; return how often.

    Most kills come while it trains, soon after a checkpoint; the others at any time after the start, most of them
    before training began. A run that comes to its end in between is followed by another.
    """
    undisturbed, left = bench.undisturbed(processes), times
    while left:
        run = bench.new(processes, behind)
        watch = Watch(run, undisturbed)
        while left:
            start = run.start()
            if random.random() < 0.8:
                before = run.newest()
                while run.newest() <= before and not start.over:
                    time.sleep(0.002)
                time.sleep(random.uniform(0, 0.4))
            else:
                time.sleep(random.uniform(0, 5.0))
            if start.over:
                start.end()
                break
            start.kill()
            left -= 1
            watch.interrupted()
        run.finish()
        watch.finished()
    return times


def after_training(bench: Bench, random: Random, times: int = 3) -> int:
    """Kill everything so many times while the test is made and the result written; return how often."""
    run, undisturbed = bench.interrupted(bench.undisturbed().newest()), bench.undisturbed()
    watch = Watch(run, undisturbed)
    for _ in range(times):
        start = run.start()
        start.wait_until_said("training ended")
        time.sleep(random.uniform(0, 1.0))
        start.kill()
        watch.interrupted()
    run.finish()
    watch.finished()
    return times


def in_replacements(bench: Bench, random: Random) -> int:
    """Kill everything between the writing of a file and its replacing the one before; return how often."""
    run = bench.new()
    watch = Watch(run, bench.undisturbed())
    for name, nth in (("status.json", 1), ("config.yaml", 1), ("state.json", 2), ("manifest.json", 4)):
        run.start(Fault(KILL, f"replacing {name}", nth)).end(-signal.SIGKILL)
        watch.interrupted()
    # What an evaluation finds that was broken off is told in the manifest of a checkpoint that is whole.
    run.start(Fault("SIGTERM", "evaluation", 2)).end(75)
    watch.interrupted()
    run.start(Fault(KILL, "replacing manifest.json", 1)).end(-signal.SIGKILL)
    watch.interrupted()
    run.start(Fault(KILL, "replacing summary.json", 1)).end(-signal.SIGKILL)
    watch.interrupted()
    run.finish()
    watch.finished()
    return 6


def of_one_process(bench: Bench, random: Random, behind: bool = WAITING) -> int:
    """Kill either process of two while the other one and the launcher live on; return how often."""
    run = bench.new(2, behind)
    watch = Watch(run, bench.undisturbed(2))
    of_main = Fault(KILL_PROCESS, random.choice(STAGES), random.randint(1, _SAVES))  # it alone knows stages
    of_other = Fault(KILL_PROCESS, "training", random.randint(1, 60), rank=1)
    for fault in (of_main, of_other):
        run.start(fault).end(None)
        watch.interrupted()
    run.finish()
    watch.finished()
    return 2


def of_the_launcher(bench: Bench, random: Random) -> int:
    """Kill the launcher of two processes, which save and end; return 1."""
    run = bench.new(2)
    watch = Watch(run, bench.undisturbed(2))
    start = run.start(pauses={"training": 0.01})
    run.wait_for_checkpoint(start)
    start.send(signal.SIGKILL)
    start.end(-signal.SIGKILL)
    assert read(run.folder / "status.json")["status"] == "preempted"
    watch.interrupted()
    run.finish()
    watch.finished()
    return 1
