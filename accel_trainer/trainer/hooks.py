"""Hooks ask, the trainer acts.

A hook watches ordered events and returns requests. In every step the requests of all processes are brought together
once; then all processes do the same: save, stop, or go on. The order of events in a step is: step ended, rows of
earlier steps, evaluation ended, rows up to this step, checkpoint written; a checkpoint comes last, when what every hook
knows is settled. One that is written behind training is told of in a later step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accel_trainer.checkpoints.writer import Saved
    from accel_trainer.trainer.loop import Trainer
    from accel_trainer.trainer.state import Stop

Row = dict[str, float | int]


@dataclass(frozen=True)
class Request:
    """What a hook wants done at the end of the step.

    Attributes:
        save: write a checkpoint.
        stop: end training for this reason.
        any_process: obey even if only one process asks (a signal reaches one of them); otherwise the main process
            decides for all, so that a metric that differs by a rounding cannot part them.
    """

    save: bool = False
    stop: Stop | None = None
    any_process: bool = False


class Hook:
    """Base of all hooks; every event does nothing unless overridden. Hooks run on every process.

    Attributes:
        name: key of the hook's state in a checkpoint; unique in a run.
    """

    name = "hook"

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Handle the moment before the first step, after a checkpoint was loaded, if any."""

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Handle the end of an optimizer step; ``trainer.state.step`` counts it already."""

    def on_evaluation_batch(self, trainer: Trainer) -> Request | None:
        """Handle a moment in a long evaluation, about once a second; only a request to stop is heeded there."""

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> Request | None:
        """Handle the result of an evaluation, the same on all processes."""

    def on_rows(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        """Handle finished rows of numbers, one for each step, in order; each step comes once."""

    def before_checkpoint(self, trainer: Trainer) -> None:
        """Handle the moment before a checkpoint is written: what it relies on must be on disk by now.

        An OSError or CheckpointError fails the save, not the training.
        """

    def on_saved(self, trainer: Trainer, saved: Saved) -> None:
        """Handle the end of a save: the checkpoint is on disk, whole, or ``saved.problem`` says why it is not."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Handle the end of training, whatever its reason; also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the hook has to remember over a restart, as JSON-ready values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned; options come from the configuration, not from here."""
