"""What lies in a run's folder of checkpoints, and what of it can go. Read without torch."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.checkpoint import Checkpoint
from accel_trainer.checkpoints.files import digest
from accel_trainer.checkpoints.manifest import problem, read_manifest
from accel_trainer.checkpoints.store import EXPERIMENT, Store
from accel_trainer.errors import CheckpointError, UserError, not_written

if TYPE_CHECKING:
    from collections.abc import Iterable

    from accel_trainer.run.folder import RunFolder

_SET_ASIDE = re.compile(r"(damaged|replaced)-step-\d{8,}-\d+")


@dataclass(frozen=True)
class Listed:
    """A folder named like a checkpoint, as far as it can be known without reading its large files.

    Attributes:
        path: the folder.
        step: steps done when it was written.
        manifest: what its manifest says; empty when that cannot be read.
        time: when it was written, in seconds since 1970.
        size: bytes of its files.
        trouble: what is wrong with it; None when nothing is missing and all sizes are right.
        newest: whether it is the newest one without trouble.
        best: whether the newest one's state names it as the best.
    """

    path: Path
    step: int
    manifest: dict[str, Any]
    time: float
    size: int
    trouble: str | None
    newest: bool = False
    best: bool = False

    @property
    def epoch(self) -> float | None:
        """Epochs done; None in the first format."""
        value = self.manifest.get("epoch")
        return value if isinstance(value, int | float) else None

    @property
    def processes(self) -> int | None:
        """Processes that wrote it."""
        value = self.manifest.get("processes")
        return value if isinstance(value, int) else None

    @property
    def metric(self) -> tuple[str, float] | None:
        """Name and value of the monitored metric, if it was evaluated just then."""
        metric = self.manifest.get("metric")
        name, value = (metric.get("name"), metric.get("value")) if isinstance(metric, dict) else (None, None)
        return (name, value) if isinstance(name, str) and isinstance(value, int | float) else None


@dataclass(frozen=True)
class Others:
    """What lies beside the checkpoints.

    Attributes:
        leftovers: half written or half removed folders: of a killed process, or of one that is at work.
        set_aside: checkpoints whose place was taken when a run went on from an older one.
        foreign: everything else.
    """

    leftovers: list[Path]
    set_aside: list[Path]
    foreign: list[Path]


@dataclass(frozen=True)
class Pruning:
    """What :func:`prune` removes and leaves.

    Attributes:
        removed: path -> bytes.
        kept: checkpoints that stay.
        left: what is not this run's to remove -> why.
    """

    removed: dict[Path, int]
    kept: list[Path]
    left: dict[Path, str]


def list_checkpoints(store: Store) -> list[Listed]:
    """Return the checkpoints of a folder, oldest first; one that a live run removes meanwhile may be left out."""
    found = []
    for step, path in sorted(store.folders().items()):
        manifest, trouble = read_manifest(path)
        try:
            time = path.stat().st_mtime
        except FileNotFoundError:
            continue
        found.append((path, step, manifest, time, size_of(path), trouble or _missing(path, manifest)))
    newest = max((step for _, step, *_, trouble in found if trouble is None), default=None)
    best = None
    if newest is not None:
        with suppress(CheckpointError):  # a state that cannot be read is for verify to tell
            best = Checkpoint(store.path(newest), newest).best_step()
    return [Listed(*each, newest=each[1] == newest, best=each[1] == best) for each in found]


def list_others(store: Store) -> Others:
    """Return what lies beside the checkpoints of a folder."""
    entries = sorted(store.root.iterdir()) if store.root.is_dir() else []
    leftovers = [path for path in store.leftovers() if _is_folder(path)]
    set_aside = [path for path in entries if _SET_ASIDE.fullmatch(path.name) and _is_folder(path)]
    known = {*leftovers, *set_aside, *store.folders().values()}
    return Others(leftovers, set_aside, [path for path in entries if path not in known])


def best_checkpoint(store: Store) -> Checkpoint:
    """Return the checkpoint with the best value so far, verified, as the newest one that verifies knows it.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    newest = _newest(store)
    step = newest.best_step()
    if step is None:
        raise CheckpointError(f"{newest.path}: no evaluation has given a best checkpoint yet")
    return newest if step == newest.step else store.at(step)


def prune(folder: RunFolder, keep_last: int, *, dry_run: bool = False) -> Pruning:
    """Remove what is not needed for going on with a run or for using its best weights.

    Kept are the newest checkpoints that verify, and the best one that the state of each of these names. Removed are
    this run's other checkpoints, half written or half removed folders, and those that were set aside. Another
    experiment's checkpoints, those whose manifest cannot be read, links and all other files are left alone.

    Args:
        folder: of the run; locked by the caller unless it is a dry run.
        keep_last: that many of the newest.
        dry_run: only tell.

    Raises:
        CheckpointError: no checkpoint verifies: what is there may be all that is left of the run.
        RunLockedError: another host took over.
        UserError: something cannot be read or removed.
    """
    newest = _newest(Store(folder.checkpoints))
    manifest = newest.manifest()
    store = Store(folder.checkpoints, experiment={name: manifest[name] for name in EXPERIMENT if name in manifest})
    own, folders, beside = store.own(), store.folders(), list_others(store)
    kept = _kept(store, sorted(own, reverse=True), newest.step, keep_last)
    unwanted = [path for step, path in sorted(folders.items()) if step in own and step not in kept and _is_folder(path)]
    removed = {path: size_of(path) for path in (*beside.leftovers, *beside.set_aside, *unwanted)}
    left = dict.fromkeys(beside.foreign, "no checkpoint")
    for step, path in sorted(folders.items()):
        if step not in kept and path not in removed:
            left[path] = read_manifest(path)[1] or ("a link" if path.is_symlink() else "of another experiment")
    if not dry_run:
        for path in removed:
            folder.check()
            try:
                # A checkpoint is renamed first: no instant shows a part of it.
                store.remove(path) if path in unwanted else shutil.rmtree(path)
            except OSError as error:
                raise not_written(path, error, "cannot be removed") from None
    return Pruning(removed, [folders[step] for step in sorted(kept)], left)


def size_of(path: Path) -> int:
    """Return the bytes of a file or of all files below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for each in (path, *path.rglob("*")) if _is_folder(path) else (path,):
        try:
            total += each.lstat().st_size if not _is_folder(each) else 0
        except FileNotFoundError:
            continue
    return total


def _newest(store: Store) -> Checkpoint:
    newest, passed_over = store.newest()
    if newest is None:
        details = f": {'; '.join(passed_over)}" if passed_over else ""
        raise CheckpointError(f"{store.root}: no checkpoint verifies{details}")
    return newest


def _kept(store: Store, steps: Iterable[int], newest: int, keep_last: int) -> set[int]:
    """Return the newest steps that verify, and the best ones that they know of.

    Args:
        store: of this run's checkpoints.
        steps: of these, newest first.
        newest: the newest one that verifies.
        keep_last: how many.
    """
    kept: set[int] = set()
    bests: set[int | None] = set()
    for step in steps:
        if len(kept) == keep_last:
            break
        path = store.path(step)
        if step == newest or (step < newest and problem(path) is None):
            kept.add(step)
            bests.add(Checkpoint(path, step).best_step())
        else:
            _check_readable(path)
    return kept | {step for step in store.own() if step in bests}


def _check_readable(path: Path) -> None:
    """Make sure that a checkpoint that does not verify is damaged, not just out of reach for a moment."""
    try:
        for file in path.rglob("*"):
            if file.is_file():
                digest(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read, nothing was removed: {error}") from None


def _missing(path: Path, manifest: dict[str, Any]) -> str | None:
    """Return which file is missing or of another size than the manifest says; no file is read."""
    for name, entry in manifest["files"].items():
        try:
            size = (path / name).stat().st_size
        except (OSError, ValueError):
            return f"{name} is missing"
        if not isinstance(entry, dict) or size != entry.get("size"):
            return f"{name} has {size} bytes, not those of its manifest"
    return None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
