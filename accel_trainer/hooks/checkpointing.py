"""When checkpoints are written, and what is said when one cannot be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from accel_trainer.trainer.hooks import Hook, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from accel_trainer.checkpoints.writer import Saved
    from accel_trainer.config import CheckpointOptions
    from accel_trainer.trainer.loop import Trainer


class Checkpointing(Hook):
    """Asks for a checkpoint at intervals and after every evaluation, so that the best weights are on disk.

    Args:
        options: the intervals.
        say: prints one line for people.
        mark: called on the main process after every checkpoint that is whole.
    """

    name = "checkpointing"

    def __init__(
        self,
        options: CheckpointOptions,
        say: Callable[[str], None] = print,
        mark: Callable[[], None] | None = None,
    ) -> None:
        self._options, self._say, self._mark = options, say, mark
        self._last = time.monotonic()
        self._failing = False

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Begin to count minutes."""
        self._last = time.monotonic()
        return None

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Ask at the intervals."""
        options, step = self._options, trainer.state.step
        epochs = options.every_epochs and options.every_epochs * trainer.plan.steps_per_epoch
        minutes = options.every_minutes
        due = (
            bool(options.every_steps and step % options.every_steps == 0)
            or bool(epochs and step % epochs == 0)
            or (minutes is not None and time.monotonic() - self._last >= 60 * minutes)
        )
        if due:
            self._last = time.monotonic()
        return Request(save=True) if due else None

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> Request | None:
        """Ask after every evaluation."""
        return Request(save=True)

    def on_saved(self, trainer: Trainer, saved: Saved) -> None:
        """Say that a checkpoint could not be written, and when that is over."""
        if saved.problem:
            # At length the first time; a disk that stays full for a night has nothing new to tell at every interval.
            more = "" if self._failing else "; older ones are untouched, and the next one is tried as usual"
            self._say(f"checkpoint of step {saved.step} NOT written: {saved.problem}{more}")
            self._failing = True
        elif self._failing:
            self._failing = False
            self._say(f"checkpoints are written again, from step {saved.step} on")
        if self._mark is not None and not saved.problem and trainer.accelerator.is_main_process:
            self._mark()
        if saved.note:
            self._say(f"checkpoint of step {saved.step}: {saved.note}")
