"""A run's checkpoints: staged, listed, synced, renamed into place, rotated, found again."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer import __version__
from accel_trainer.checkpoints.files import read_json, sync, sync_tree, write_json
from accel_trainer.checkpoints.manifest import NAME as MANIFEST
from accel_trainer.checkpoints.manifest import problem, write_manifest
from accel_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")
_STAGING = ".staging-"
_SCALER = "scaler.pt"  # Accelerate's name for the state of the GradScaler


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was verified.

    Attributes:
        path: its folder.
        step: steps done when it was written.
    """

    path: Path
    step: int

    def own_state(self) -> dict[str, Any]:
        """Return what the trainer handed to the store."""
        state: dict[str, Any] = read_json(self.path / STATE)
        return state

    def manifest(self) -> dict[str, Any]:
        """Return what the manifest says about the run."""
        content: dict[str, Any] = read_json(self.path / MANIFEST)
        return content

    def load_weights(self, model: nn.Module) -> None:
        """Load the weights alone into a bare model."""
        load_weights(self.path, model)

    def restore(self, accelerator: Accelerator) -> None:
        """Load weights, optimizer and loss scale into what the accelerator prepared."""

        def unwrapped(models: list[nn.Module], _folder: str) -> None:
            models[:] = [bare(accelerator, model) for model in models]

        handle = accelerator.register_load_state_pre_hook(unwrapped)
        scaler = accelerator.scaler
        if not (self.path / _SCALER).exists():
            accelerator.scaler = None  # saved in another precision: the loss scale starts anew
        try:
            accelerator.load_state(str(self.path))
        finally:
            accelerator.scaler = scaler
            handle.remove()


class Store:
    """The folder of a run's checkpoints.

    Args:
        root: the folder; made when the first checkpoint is written.
        keep_last: newest checkpoints that rotation leaves, besides the best one.
        facts: what every manifest says about the run, JSON-ready.
        files: JSON files that lie in every checkpoint, name -> content: what its weights belong to.
    """

    def __init__(
        self,
        root: Path,
        keep_last: int = 2,
        facts: dict[str, Any] | None = None,
        files: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.root, self._keep_last = root, keep_last
        self._facts, self.files = facts or {}, files or {}

    def save(self, accelerator: Accelerator, step: int, own_state: dict[str, Any], protect: int | None) -> Path:
        """Write a checkpoint; called on all processes together.

        Args:
            accelerator: whose prepared objects are saved.
            step: steps done.
            own_state: JSON-ready values of the trainer and its hooks; the main process's are kept.
            protect: step of a checkpoint that rotation must not take.

        Raises:
            CheckpointError: it could not be written; older checkpoints are untouched.
        """
        from safetensors import SafetensorError

        name = f"step-{step:08d}"
        staging, final = self.root / f"{_STAGING}{name}", self.root / name

        def stage() -> None:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)

        def commit() -> None:
            for extra, content in {**self.files, STATE: own_state}.items():
                write_json(staging / extra, content)
            facts = {"step": step, "processes": accelerator.num_processes, **self._facts, "versions": versions()}
            write_manifest(staging, facts)
            sync_tree(staging)
            self._set_aside(final)
            staging.rename(final)
            sync(self.root)

        parts: list[tuple[Callable[[], None], bool, str]] = [
            (stage, True, "could not be written"),
            (lambda: self._save_state(accelerator, staging), False, "could not be written"),
            (commit, True, "could not be written"),
            (lambda: self._rotate(step, protect), True, "is written, but older ones could not be removed"),
        ]
        # After each part the processes tell each other whether it went well: one that gave up alone would leave the
        # others waiting for it.
        for part, main_only, failure in parts:
            trouble = ""
            if accelerator.is_main_process or not main_only:
                try:
                    part()
                except (OSError, RuntimeError, SafetensorError) as error:
                    # A full disk is each of them, depending on who writes.
                    trouble = str(error) or type(error).__name__
            if trouble := next(filter(None, _from_all(accelerator, trouble)), ""):
                if accelerator.is_main_process:
                    shutil.rmtree(staging, ignore_errors=True)  # what is half there fills a disk for nothing
                raise CheckpointError(f"{final}: {failure}: {trouble}; older checkpoints are untouched")
        return final

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that verifies, and what was passed over on the way and why."""
        passed_over: list[str] = []
        for step, path in sorted(self._folders().items(), reverse=True):
            trouble = problem(path)
            if trouble is None:
                return Checkpoint(path, step), passed_over
            passed_over.append(f"{path}: {trouble}")
        return None, passed_over

    def path(self, step: int) -> Path:
        """Return where the checkpoint of a step lies or would lie."""
        return self.root / f"step-{step:08d}"

    def adopt(self, source: Checkpoint) -> Checkpoint:
        """Copy another run's verified checkpoint into this folder; return the copy."""
        staging, final = self.root / f"{_STAGING}{source.path.name}", self.path(source.step)
        try:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(source.path, staging)
            sync_tree(staging)
            self._set_aside(final)
            staging.rename(final)
            sync(self.root)
        except OSError as error:
            raise CheckpointError(f"{final}: could not be copied from {source.path}: {error}") from None
        return Checkpoint(final, source.step)

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

    def clear_staging(self) -> None:
        """Remove what a killed save left behind; only for the process that holds the run's lock."""
        if self.root.is_dir():
            for left in self.root.glob(f"{_STAGING}*"):
                shutil.rmtree(left)

    def _folders(self) -> dict[int, Path]:
        if not self.root.is_dir():
            return {}
        found = ((_NAME.fullmatch(path.name), path) for path in self.root.iterdir() if path.is_dir())
        steps = {int(match[1]): path for match, path in found if match}
        return {step: path for step, path in steps.items() if path == self.path(step)}

    @staticmethod
    def _save_state(accelerator: Accelerator, folder: Path) -> None:
        def bare_names(models: list[nn.Module], weights: list[dict[str, Tensor]], _folder: str) -> None:
            # Accelerate keeps the "module." that DistributedDataParallel puts before every name; without it any
            # number of processes reads the file.
            weights[:] = [bare(accelerator, model).state_dict() for model in models]

        handle = accelerator.register_save_state_pre_hook(bare_names)
        try:
            accelerator.save_state(str(folder), safe_serialization=True)
        finally:
            handle.remove()

    def _rotate(self, step: int, protect: int | None) -> None:
        """Remove checkpoints older than the newest few, never the best; folders that are no checkpoints stay."""
        *surplus, _ = older = sorted(s for s in self._folders() if s <= step)
        kept = older[-self._keep_last :]
        # Should the newest be damaged one day, an older one is gone back to, and needs the best of its own time.
        best = {protect} | {self._best_of(s) for s in kept}
        for number in surplus:
            if number not in kept and number not in best:
                shutil.rmtree(self.path(number))

    def _best_of(self, step: int) -> int | None:
        state = self.path(step) / STATE
        best = read_json(state).get("trainer", {}).get("best") if state.exists() else None
        return best["step"] if best else None

    @staticmethod
    def _set_aside(final: Path) -> None:
        """Make room for a checkpoint whose place is taken by one that was passed over when the run went on."""
        if final.exists():
            number = 1
            while (aside := final.with_name(f"damaged-{final.name}-{number}")).exists():
                number += 1
            final.rename(aside)


def _from_all(accelerator: Accelerator, text: str) -> list[str]:
    """Return what each process says."""
    if accelerator.num_processes == 1:
        return [text]
    from accelerate.utils import gather_object

    said: list[str] = gather_object([text])
    return said


def bare(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """Return a model without what Accelerate wraps around it: its weights have the names that it gave them itself."""
    unwrapped: nn.Module = accelerator.unwrap_model(model, keep_torch_compile=False)
    return unwrapped


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    others = {name: version(name) for name in ("torch", "accelerate", "numpy", "safetensors")}
    return {"accel_trainer": __version__, **others}


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint or of an exported model into a bare model.

    Raises:
        CheckpointError: a name or a shape differs; the first few are listed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    # Tied weights are stored once; the names left out of the file share memory with one that is in it.
    stored = {own[name].data_ptr() for name in own if name in weights and own[name].numel()}
    missing = [name for name in missing if own[name].data_ptr() not in stored]
    if missing or extra or reshaped:
        parts = [
            f"{label}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for label, names in (("missing", missing), ("unknown", extra), ("of another shape", reshaped))
            if names
        ]
        raise CheckpointError(f"{path}: the weights belong to another model ({'; '.join(parts)})")
    model.load_state_dict(weights, strict=False)
