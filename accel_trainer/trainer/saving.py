"""Checkpoints of a training: what goes into them, and what becomes of the training when one cannot be written."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.writer import Saved, Writer

if TYPE_CHECKING:
    from accel_trainer.checkpoints.checkpoint import Checkpoint
    from accel_trainer.checkpoints.store import Store
    from accel_trainer.trainer.loop import Trainer
    from accel_trainer.trainer.state import Best


class Saving:
    """Saves a trainer's state into a store and keeps account of what is on the disk.

    Args:
        trainer: whose state, hooks, model and optimizer are saved.
        store: where to.

    Attributes:
        unsaved: the latest save, when it could not be written.
    """

    def __init__(self, trainer: Trainer, store: Store) -> None:
        self._trainer, self._store = trainer, store
        behind = trainer.config.checkpoint.asynchronous
        self._writer = Writer(store, trainer.accelerator, trainer.model, trainer.optimizer, behind=behind)
        self.unsaved: Saved | None = None
        # The best evaluation whose weights are on the disk, and those whose weights are on their way there.
        self._best: Best | None = None
        self._candidates: dict[int, Best] = {}
        self._resumed_at: int | None = None

    def begin(self) -> None:
        """Take note that the best so far, if any, is on the disk."""
        self._best = self._trainer.state.best

    def resumed(self, checkpoint: Checkpoint) -> None:
        """Take note of what training goes on from."""
        if checkpoint.path == self._store.path(checkpoint.step):
            self._resumed_at = checkpoint.step

    @property
    def news(self) -> bool:
        """Whether a save that went on behind training has ended; the main process knows."""
        return self._writer.news

    def save(self) -> None:
        """Write a checkpoint of the present state, or begin to; on all processes together."""
        trainer, state = self._trainer, self._trainer.state
        if state.step == self._resumed_at:
            return  # what is on the disk has these weights; replacing it would leave an instant without either

        def before() -> None:
            for hook in trainer.hooks:
                hook.before_checkpoint(trainer)

        if state.best is not None and state.best.step == state.step:
            self._candidates[state.step] = state.best
        own_state = {
            "trainer": state.to_dict(),
            "environment": asdict(trainer.environment),
            "hooks": {hook.name: hook.state_dict() for hook in trainer.hooks},
        }
        best = state.best.step if state.best is not None else None
        self._heed(self._writer.save(state.step, own_state, facts=self._facts(), protect=best, before=before))

    def settle(self) -> None:
        """Wait for a save that goes on behind training; on all processes together."""
        self._heed(self._writer.settle())

    def _facts(self) -> dict[str, Any]:
        state, options = self._trainer.state, self._trainer.config.early_stopping
        value = self._trainer.evaluated.get(options.monitor)
        return {
            "epoch": round(self._trainer.epoch, 6),
            "metric": None if value is None else {"name": options.monitor, "value": value},
            "windows": state.windows,
        }

    def _heed(self, outcomes: list[Saved]) -> None:
        state = self._trainer.state
        for saved in outcomes:
            candidate = self._candidates.pop(saved.step, None)
            if saved.problem:
                self.unsaved = saved
                if state.best is not None and state.best.step == saved.step:
                    state.best = self._best  # what is not on the disk cannot be tested or exported
            else:
                self.unsaved = None
                self._best = candidate or self._best
            for hook in self._trainer.hooks:
                hook.on_saved(self._trainer, saved)
