"""The same command twice at a time: one trains, the other is refused."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.faults.proof import Watch
from tests.helpers.runs import read

if TYPE_CHECKING:
    from random import Random

    from tests.faults.bench import Bench


def of_a_live_run(bench: Bench, random: Random) -> int:
    """Start a run that is training; return 1."""
    run = bench.new()
    watch = Watch(run, bench.undisturbed())
    first = run.start(pauses={"training": 0.005})
    first.wait_until(lambda: run.newest() > 0, "a checkpoint")
    output = run.start().end(2)
    assert f"process {first.pid} " in output, output
    assert "is writing to this run" in output, output
    assert "Traceback" not in output, output
    assert not first.over, "the first start was to train longer"
    assert read(run.folder / "status.json")["status"] == "running"
    first.end()
    watch.finished()
    return 1


def at_the_same_instant(bench: Bench, random: Random, times: int = 1) -> int:
    """Start an interrupted run twice at once; return how often."""
    for _ in range(times):
        run = bench.interrupted(91)
        watch = Watch(run, bench.undisturbed())
        both = [run.start(pauses={"training": 0.01}) for _ in range(2)]
        while not any(start.over for start in both):
            time.sleep(0.01)
        first, second = sorted(both, key=lambda start: start.over)
        assert "is writing to this run" in second.end(2)
        first.end()
        watch.finished()
    return times
