"""Disks that are full, files that may not grow, folders that turn read-only; and the moment when that is over."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.faults.case import NotPossibleError
from tests.faults.moments import FILL, Fault, ballast
from tests.faults.proof import Watch
from tests.helpers.runs import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from random import Random

    from tests.faults.bench import Bench

_NOT_WRITTEN, _AGAIN = "NOT written", "checkpoints are written again"
_ROWS_WAIT = "rows wait in memory"
IN_A_SAVE = (Fault(FILL, "states written", 6),)
"""What the failed save had written is removed, which leaves a little room."""
TO_THE_LAST_BYTE = (Fault(FILL, "staged", 6), Fault(FILL, "evaluation", 144))
"""Before anything of a save is written; then, in the start that goes on from there, in the test."""
_SLOWLY = {"training": 0.003}
"""So that a run is not over before its disk has room again."""


@contextmanager
def _small_disk(at: Path) -> Iterator[Path]:
    """Make a disk of a few megabytes, of which a run takes about half."""
    at.mkdir()
    _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def _mount(*words: str) -> None:
    try:
        subprocess.run(["mount", *words], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotPossibleError(f"mount: {getattr(error, 'stderr', None) or error}") from None


def full_for_a_while(bench: Bench, random: Random, behind: bool = False) -> int:
    """Fill the disk in the midst of saves, make room when that was noticed; return how often."""
    stages = ("staged", "states written", "own state written")
    with _small_disk(bench.root / f"full-{behind}") as disk:
        run = bench.new(behind=behind, folder=disk / "run")
        watch = Watch(run, bench.undisturbed(), saves_fail=True)
        faults = [Fault(FILL, stage, 2 + 3 * number) for number, stage in enumerate(stages)]
        start = run.start(*faults, pauses=_SLOWLY, disk=disk)
        for number in range(len(stages)):
            start.wait_until(ballast(disk).exists, "the disk was filled")
            start.wait_until_said(_NOT_WRITTEN, start.output.count(_NOT_WRITTEN) + 1)
            if number == 0:
                start.wait_until_said(_ROWS_WAIT)
            ballast(disk).unlink()
            start.wait_until_said(_AGAIN, number + 1)
        output = start.end()
        assert "written again, nothing is missing" in output, output
        watch.finished()
    return len(stages)


def full_until_the_end(bench: Bench, random: Random, fillings: Sequence[Fault] = IN_A_SAVE) -> int:
    """Fill the disk for good: exit code 4, and the same command goes on once there is room; return how often."""
    with _small_disk(bench.root / f"full for good {len(fillings)}") as disk:
        run = bench.new(folder=disk / "run")
        watch = Watch(run, bench.undisturbed(), saves_fail=True)
        for fault in fillings:
            output = run.start(fault, disk=disk).end(4)
            assert "the same command goes on" in output, output
            assert "Traceback" not in output, output
            status = read(run.folder / "status.json")
            assert (status["status"], status["exit_code"]) == ("failed", 4), f"{status}\n{output}"
            watch.interrupted()
            ballast(disk).unlink()
        run.finish()
        watch.finished()
    return len(fillings)


def file_size_limit(bench: Bench, random: Random) -> int:
    """Let no file grow beyond a few thousand bytes, for a while; return how often."""
    limits = (3000, 10_000)  # the log as well, and the optimizer's state alone
    run = bench.new()
    watch = Watch(run, bench.undisturbed(), saves_fail=True)
    start = run.start(pauses=_SLOWLY)
    for number, limit in enumerate(limits):
        run.wait_for_checkpoint(start)
        resource.prlimit(start.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        start.wait_until_said(_NOT_WRITTEN, start.output.count(_NOT_WRITTEN) + 2)
        if number == 0:
            start.wait_until_said(_ROWS_WAIT)
        resource.prlimit(start.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        start.wait_until_said(_AGAIN, number + 1)
    start.end()
    watch.finished()
    return len(limits)


def read_only(bench: Bench, random: Random) -> int:
    """Turn the folder of checkpoints read-only, for a while and then until the end; return how often."""
    run = bench.new()
    watch = Watch(run, bench.undisturbed(), saves_fail=True)
    run.folder.mkdir()
    with _changeable(run.folder / "checkpoints") as let_write:
        start = run.start(pauses=_SLOWLY)
        run.wait_for_checkpoint(start)
        let_write(False)
        start.wait_until_said(_NOT_WRITTEN, 2)
        let_write(True)
        start.wait_until_said(_AGAIN)
        let_write(False)
        output = start.end(4)
        assert read(run.folder / "status.json")["status"] == "failed", output
        watch.interrupted()
        let_write(True)
        run.finish()
        watch.finished()
    return 2


@contextmanager
def _changeable(folder: Path) -> Iterator[Callable[[bool], None]]:
    """Make a folder; yield what forbids to write to it, and allows it again."""
    if os.geteuid() != 0:
        folder.mkdir()
        yield lambda writable: folder.chmod(0o755 if writable else 0o555)
        return

    def let_write(writable: bool) -> None:  # permissions do not concern root
        while True:
            try:
                return _mount("-o", "remount,rw" if writable else "remount,ro", str(folder))
            except NotPossibleError as error:
                if "busy" not in str(error):  # a save is under way
                    raise

    with _small_disk(folder):
        yield let_write
