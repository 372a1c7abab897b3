"""Checkpoints that changed on the disk: bits, ends, files, and what a killed save left."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

from accel_trainer.checkpoints.manifest import NAME as MANIFEST
from tests.faults.moments import KILL, Fault
from tests.faults.proof import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from tests.faults.bench import Bench, Run


def _flip_a_bit(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, random: Random) -> None:
    content = path.read_bytes()
    # More than the last byte, a line feed: without it a manifest says the same.
    path.write_bytes(content[: random.randrange(1, len(content) - 1)])


def _empty(path: Path, random: Random) -> None:
    path.write_bytes(b"")


def _remove(path: Path, random: Random) -> None:
    path.unlink()


_KINDS: tuple[Callable[[Path, Random], None], ...] = (_flip_a_bit, _cut, _empty, _remove)


def of_every_file(bench: Bench, random: Random) -> int:
    """Damage each file of a checkpoint in each way, and the folder, in as many checkpoints; return how many.

    All of them are newer than the newest one that is whole; besides lies what killed saves leave.
    """
    run, undisturbed = bench.interrupted(104), bench.undisturbed()
    watch = Watch(run, undisturbed)
    watch.interrupted()
    folders = [path for _, path in sorted(run.store.folders().items(), reverse=True)]
    names = sorted(path.name for path in folders[0].iterdir())
    tasks = [(name, damage) for name in names for damage in _KINDS]
    random.shuffle(tasks)
    for folder, (name, damage) in zip(folders, tasks, strict=False):
        damage(folder / name, random)
    no_files, whole = folders[len(tasks)], folders[len(tasks) + 1]
    shutil.rmtree(no_files)
    no_files.mkdir()
    shutil.copytree(whole, run.store.staging(106))
    shutil.copytree(whole, whole.with_name(f".removing-{run.store.path(2).name}"))

    output = run.finish()
    for folder, (name, _) in zip(folders, tasks, strict=False):
        assert _passed_over(output, folder, name), f"{name} of {folder} is not named:\n{output}"
    assert _passed_over(output, no_files, MANIFEST), output
    assert f"going on from step {int(whole.name.removeprefix('step-'))} " in output, output
    watch.finished()
    return len(tasks) + 3


def of_the_newest_in_turn(bench: Bench, random: Random) -> int:
    """Kill a run and damage a file of its newest checkpoint, another file each time; return how often."""
    run = bench.new()
    watch = Watch(run, bench.undisturbed())
    names = sorted(path.name for path in bench.undisturbed().store.path(bench.undisturbed().newest()).iterdir())
    newest: Path | None = None
    for number, name in enumerate(names):
        start = run.start(Fault(KILL, "rotated", 3))
        output = start.end(-signal.SIGKILL)
        assert newest is None or _passed_over(output, newest, names[number - 1]), output
        watch.interrupted()
        newest = run.store.path(run.newest())
        random.choice(_KINDS)(newest / name, random)
        watch.damaged(run.newest())
    run.finish()
    watch.finished()
    return len(names)


def between_two_saves(bench: Bench, random: Random) -> int:
    """Damage a checkpoint of a step that is not saved again: it takes nobody's place in rotation; return 1."""
    run = bench.new()
    watch = Watch(run, bench.undisturbed())
    # Five passes a step; a signal in step 10 has it saved, which no interval does.
    run.start(Fault("SIGTERM", "training", 5 * 9 + 1)).end(75)
    watch.interrupted()
    assert run.newest() == 10
    random.choice(_KINDS[:2])(run.store.path(10) / "model.safetensors", random)
    watch.damaged(10)
    for _ in range(2):
        run.start(Fault(KILL, "rotated", 1)).end(-signal.SIGKILL)
        watch.interrupted()
    run.finish()
    watch.finished()
    return 1


def of_a_random_state(bench: Bench, random: Random) -> int:
    """Lose the random states of the second process; return 1."""
    run = bench.interrupted(84, processes=2)
    watch = Watch(run, bench.undisturbed(2))
    newest = run.store.path(run.newest())
    (newest / "random_states_1.pkl").unlink()
    assert _passed_over(run.finish(), newest, "random_states_1.pkl")
    watch.finished()
    return 1


def of_all(bench: Bench, random: Random) -> int:
    """Damage every checkpoint there is: an error that leaves everything as it is; return how many."""
    run = bench.interrupted(98)
    watch = Watch(run, bench.undisturbed())
    folders = run.store.folders()
    shutil.copytree(run.store.root, bench.root / "backup")
    for folder in folders.values():
        random.choice(_KINDS)(folder / random.choice(sorted(path.name for path in folder.iterdir())), random)
    before = _content(run)
    output = run.start().end(4)
    assert "no checkpoint verifies" in output, output
    assert all(str(folder) in output for folder in folders.values()), output
    assert "Traceback" not in output
    assert _content(run) == before
    shutil.rmtree(run.store.root)
    shutil.move(bench.root / "backup", run.store.root)
    run.finish()
    watch.finished()
    return len(folders)


def _passed_over(output: str, folder: Path, name: str) -> bool:
    return any(line.startswith(f"passed over {folder}: ") and name in line for line in output.splitlines())


def _content(run: Run) -> dict[Path, bytes]:
    """Return every file but those that belong to a start: its lock, its lease, its status."""
    files = (path for path in run.folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if not path.name.startswith((".lock", ".lease", "status.json"))}
