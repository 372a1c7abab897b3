"""When checkpoints are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accel_trainer.trainer.hooks import Hook, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from accel_trainer.config import CheckpointOptions
    from accel_trainer.trainer.loop import Trainer


class Checkpointing(Hook):
    """Asks for a checkpoint every so many steps and after every evaluation, so that the best weights are on disk."""

    name = "checkpointing"

    def __init__(self, options: CheckpointOptions) -> None:
        self._every = options.every_steps

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Ask at the interval."""
        return Request(save=True) if self._every and trainer.state.step % self._every == 0 else None

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> Request | None:
        """Ask after every evaluation."""
        return Request(save=True)
