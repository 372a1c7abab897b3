"""A checkpoint on the disk, and what is taken from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.files import read_json
from accel_trainer.checkpoints.manifest import read_manifest
from accel_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

STATE = "state.json"
DESCRIPTION = "config.json"
_LOSS_SCALE = "scaler.pt"  # Accelerate's name for the state of the GradScaler


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
        """Return what the trainer handed over when it was saved.

        Raises:
            CheckpointError: it is no JSON object.
        """
        return read_object(self.path / STATE)

    def trainer_state(self) -> dict[str, Any]:
        """Return the counters of the run.

        Raises:
            CheckpointError: there are none.
        """
        state = self.own_state().get("trainer")
        if not isinstance(state, dict):
            raise CheckpointError(f"{self.path / STATE}: it holds no state of a trainer")
        return state

    def best_step(self) -> int | None:
        """Return the step of the best checkpoint that was known when this one was saved; None if there was none yet.

        Raises:
            CheckpointError: the state does not say.
        """
        best = self.trainer_state().get("best")
        step = best.get("step") if isinstance(best, dict) else best
        if step is not None and type(step) is not int:
            raise CheckpointError(f"{self.path / STATE}: it does not say which checkpoint is the best")
        return step

    def manifest(self) -> dict[str, Any]:
        """Return what the manifest says about the run.

        Raises:
            CheckpointError: it cannot be read.
        """
        manifest, trouble = read_manifest(self.path)
        if trouble is not None:
            raise CheckpointError(f"{self.path}: {trouble}")
        return manifest

    def load_weights(self, model: nn.Module) -> None:
        """Load the weights alone into a bare model.

        Raises:
            CheckpointError: they cannot be read or belong to another model.
        """
        from accel_trainer.checkpoints.weights import load_weights

        load_weights(self.path, model)

    def restore(self, accelerator: Accelerator, *, trust: bool = False) -> None:
        """Load weights, optimizer, loss scale and random states into what the accelerator prepared.

        Args:
            accelerator: prepared with the model and the optimizer that were saved.
            trust: let the optimizer's file run code while it is read. Few optimizers need it.

        Raises:
            CheckpointError: a file would run code when read, cannot be read, or belongs to something else.
        """
        from accel_trainer.checkpoints.safe import UNREADABLE, check_harmless, first_line
        from accel_trainer.checkpoints.weights import bare

        if not trust:
            check_harmless(self.path)

        def unwrapped(models: list[nn.Module], _folder: str) -> None:
            for model in models:
                self.load_weights(bare(accelerator, model))
            models.clear()  # loaded here, where a difference is told by name

        handle = accelerator.register_load_state_pre_hook(unwrapped)
        scaler = accelerator.scaler
        if not (self.path / _LOSS_SCALE).exists():
            accelerator.scaler = None  # saved in another precision: the loss scale starts anew
        try:
            accelerator.load_state(str(self.path), load_kwargs={"weights_only": not trust})
        except UNREADABLE as error:
            raise CheckpointError(f"{self.path}: the optimizer's state cannot be used: {first_line(error)}") from None
        finally:
            accelerator.scaler = scaler
            handle.remove()


def read_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: it holds no JSON object")
    return content
