"""A run's folder of checkpoints: staged, listed, synced, renamed into place, rotated, found again."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer import __version__
from accel_trainer.checkpoints import stages
from accel_trainer.checkpoints.checkpoint import STATE, Checkpoint
from accel_trainer.checkpoints.files import sync, sync_tree, write_json
from accel_trainer.checkpoints.manifest import NAME as MANIFEST
from accel_trainer.checkpoints.manifest import problem, read_manifest, rewrite_manifest, write_manifest
from accel_trainer.checkpoints.rotation import Keep
from accel_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = re.compile(r"step-(\d{8,})")
_STAGING, _CONDEMNED = ".staging-", ".removing-"


EXPERIMENT = ("data_digest", "batch_size", "experiment")
"""Facts of a manifest that tell one run's checkpoints from another's."""


class Store:
    """The folder of a run's checkpoints; used by one process at a time.

    Args:
        root: the folder; made when the first checkpoint is written.
        keep: what rotation leaves.
        experiment: what tells this run's checkpoints from another's: facts in every manifest, JSON-ready. Rotation
            takes only folders whose manifest agrees with all of them.
        facts: what else every manifest says about the run.
        files: JSON files that lie in every checkpoint, name -> content: what its weights belong to.
        guard: called before anything becomes visible; raises when the folder is no longer this run's to write to.

    Attributes:
        token: in the names of staging folders, so that two processes never share one.
    """

    def __init__(
        self,
        root: Path,
        keep: Keep | None = None,
        *,
        experiment: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
        files: dict[str, dict[str, Any]] | None = None,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self.root, self.keep = root, keep or Keep()
        self._experiment, self._facts, self.files = experiment or {}, facts or {}, files or {}
        self._own_guard, self._closed = guard, False
        self.token = ""

    # ---- writing --------------------------------------------------------------------------------------------------

    def path(self, step: int) -> Path:
        """Return where the checkpoint of a step lies or would lie."""
        return self.root / f"step-{step:08d}"

    def staging(self, step: int) -> Path:
        """Return where the checkpoint of a step is written before it is whole."""
        return self.root / f"{_STAGING}{self.token}{'-' if self.token else ''}{self.path(step).name}"

    def stage(self, step: int, size: int) -> None:
        """Make an empty staging folder.

        Args:
            step: of the checkpoint.
            size: bytes it will have, about.

        Raises:
            OSError: it cannot be made, or the disk has too little room: found before anything is written.
        """
        stages.reached("begun")
        self._guard()
        staging = self.staging(step)
        shutil.rmtree(staging, ignore_errors=True)
        if not self.root.exists():
            self.root.mkdir(parents=True)
            sync(self.root.parent)
        staging.mkdir()
        free = shutil.disk_usage(staging).free
        if free < size:
            staging.rmdir()
            raise OSError(f"it needs about {size / 1e6:,.2f} MB, and the disk has {free / 1e6:,.2f} MB left")
        stages.reached("staged")

    def commit(self, step: int, own_state: dict[str, Any], facts: dict[str, Any]) -> None:
        """Make what was staged a checkpoint.

        Args:
            step: steps done.
            own_state: JSON-ready values of the trainer and its hooks.
            facts: what the manifest says besides the facts of the run.

        Raises:
            OSError: it could not be written.
        """
        staging, final = self.staging(step), self.path(step)
        stages.reached("states written")
        self._guard()
        for extra, content in {**self.files, STATE: own_state}.items():
            write_json(staging / extra, content)
        stages.reached("own state written")
        _as_readable_as_other_files(staging)
        versions_now = {"versions": versions()}
        write_manifest(staging, {"step": step, **facts, **self._facts, **self._experiment, **versions_now})
        stages.reached("listed")
        sync_tree(staging)
        stages.reached("synced")
        self._guard()
        self._set_aside(final)
        staging.rename(final)
        stages.reached("in place")
        sync(self.root)
        stages.reached("committed")

    def amend(self, step: int, facts: dict[str, Any]) -> None:
        """Change what a manifest tells of a checkpoint; its files, their digests and its step stay as they are.

        Raises:
            OSError: it could not be written.
            CheckpointError: there is no such manifest.
        """
        told = Checkpoint(self.path(step), step).manifest()
        self._guard()
        # Written elsewhere: what a kill leaves must not lie in a checkpoint.
        staging = self.staging(step)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        rewrite_manifest(staging, {**told, **facts})
        (staging / MANIFEST).replace(self.path(step) / MANIFEST)
        sync(self.path(step))
        staging.rmdir()

    def close(self) -> None:
        """Let nothing more become a checkpoint; what is under way ends with an error."""
        self._closed = True

    def _guard(self) -> None:
        if self._closed:
            raise CheckpointError("the training was given up meanwhile")
        if self._own_guard is not None:
            self._own_guard()

    def discard(self, step: int) -> None:
        """Remove what a failed save left: half a checkpoint fills a disk for nothing."""
        shutil.rmtree(self.staging(step), ignore_errors=True)

    def rotate(self, step: int, protect: int | None = None) -> list[Path]:
        """Remove this run's checkpoints up to a step but those to be kept; return what was removed.

        Never removed: what is no checkpoint, another experiment's, later ones, and the best one that the state of any
        kept checkpoint speaks of: should the newest be damaged one day, an older one is gone back to, and needs the
        best of its own time.

        Args:
            step: of the newest checkpoint.
            protect: step of a checkpoint that stays in any case.

        Raises:
            OSError: one could not be removed.
        """
        self._guard()
        own = {number: of for number, of in self.own().items() if number <= step}
        kept = self.keep.kept(own) | {protect}
        kept |= {self._best_of(number) for number in kept if number in own}
        removed = [self.path(number) for number in sorted(own) if number not in kept]
        for path in removed:
            self.remove(path)
        return removed

    def remove(self, path: Path) -> None:
        """Remove a checkpoint so that no instant shows a part of it."""
        condemned = path.with_name(f"{_CONDEMNED}{path.name}")
        shutil.rmtree(condemned, ignore_errors=True)
        path.rename(condemned)
        stages.reached("condemned")
        shutil.rmtree(condemned)
        stages.reached("rotated")

    def adopt(self, source: Checkpoint) -> Checkpoint:
        """Copy another run's verified checkpoint into this folder; return the copy.

        Raises:
            CheckpointError: it could not be copied.
        """
        staging, final = self.staging(source.step), self.path(source.step)
        if read_manifest(final)[0] == source.manifest() and problem(final) is None:
            return Checkpoint(final, source.step)  # a start that was killed has copied it
        try:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(source.path, staging)
            sync_tree(staging)
            self._set_aside(final)
            staging.rename(final)
            sync(self.root)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise CheckpointError(f"{final}: could not be copied from {source.path}: {error}") from None
        return Checkpoint(final, source.step)

    def set_aside_after(self, step: int) -> None:
        """Rename the checkpoints after a step, which were passed over: rotation must not count them as the newest.

        Raises:
            OSError: one could not be renamed.
        """
        for number, path in self.folders().items():
            if number > step:
                self._set_aside(path)

    def clear_staging(self) -> None:
        """Remove what a killed process left behind; only for the process that holds the run's lock."""
        for left in self.leftovers():
            shutil.rmtree(left)

    # ---- finding --------------------------------------------------------------------------------------------------

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that verifies, and what was passed over on the way and why."""
        passed_over: list[str] = []
        for step, path in sorted(self.folders().items(), reverse=True):
            trouble = problem(path)
            if trouble is None:
                return Checkpoint(path, step), passed_over
            passed_over.append(f"{path}: {trouble}")
        return None, passed_over

    def at(self, step: int) -> Checkpoint:
        """Return the checkpoint of one step.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        path = self.path(step)
        trouble = problem(path)
        if trouble:
            raise CheckpointError(f"{path}: {trouble}")
        return Checkpoint(path, step)

    def folders(self) -> dict[int, Path]:
        """Return the folders that are named like checkpoints, by step."""
        if not self.root.is_dir():
            return {}
        found = ((_NAME.fullmatch(path.name), path) for path in self.root.iterdir() if path.is_dir())
        steps = {int(match[1]): path for match, path in found if match}
        return {step: path for step, path in steps.items() if path == self.path(step)}

    def own(self) -> dict[int, dict[str, Any]]:
        """Return what the manifests of this run's checkpoints say, by step; their files are not verified."""
        found = {step: read_manifest(path)[0] for step, path in self.folders().items()}
        return {step: of for step, of in found.items() if of and self._is_own(of)}

    def leftovers(self) -> list[Path]:
        """Return the folders that a killed process left half written or half removed."""
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if path.name.startswith((_STAGING, _CONDEMNED)))

    def _is_own(self, manifest: dict[str, Any]) -> bool:
        # A fact that an older format did not tell yet cannot speak against it.
        return all(manifest.get(name, value) == value for name, value in self._experiment.items())

    def _best_of(self, step: int) -> int | None:
        try:
            return Checkpoint(self.path(step), step).best_step()
        except CheckpointError:
            return None  # damaged: nobody will go back to it

    @staticmethod
    def _set_aside(final: Path) -> None:
        """Make room for a checkpoint whose place is taken: by one that was passed over when the run went on."""
        if final.exists():
            kind, number = "damaged" if problem(final) else "replaced", 1
            while (aside := final.with_name(f"{kind}-{final.name}-{number}")).exists():
                number += 1
            final.rename(aside)


def _as_readable_as_other_files(folder: Path) -> None:
    """Undo the 0600 that safetensors gives its file: who may read the run may read the weights."""
    mode = (folder / STATE).stat().st_mode
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode & 0o777)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    others = {name: version(name) for name in ("torch", "accelerate", "numpy", "safetensors")}
    return {"accel_trainer": __version__, **others}
