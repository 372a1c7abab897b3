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

    The best of ``trainer.state`` is the best evaluation whose weights are on the disk or on their way there: what
    cannot be loaded again can be neither tested nor exported. When a save fails, the best that is on the disk takes
    its place.

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
        self._on_disk: Best | None = None  # the best evaluation whose weights are whole
        self._on_its_way: Best | None = None  # the best as the save under way tells it
        self._resumed_at: int | None = None

    def resumed(self, checkpoint: Checkpoint) -> None:
        """Take note of what training goes on from."""
        if checkpoint.path == self._store.path(checkpoint.step):
            self._resumed_at = checkpoint.step

    def begin(self) -> None:
        """Take note that the best so far, if any, is on the disk."""
        self._on_disk = self._trainer.state.best

    def evaluated(self) -> None:
        """Take note of an evaluation: it may be of the checkpoint that training went on from."""
        state = self._trainer.state
        if state.step == self._resumed_at:
            if state.best is not None and state.best.step == state.step:
                self._on_disk = state.best
            self._writer.amend(state.step, self._facts())

    @property
    def news(self) -> bool:
        """Whether a save that went on behind training has ended; the main process knows."""
        return self._writer.news

    def save(self) -> None:
        """Write a checkpoint of the present state, or begin to; on all processes together."""
        trainer, state = self._trainer, self._trainer.state
        self.settle()  # first: a failure changes what the state says of the best
        if state.step == self._resumed_at:
            return  # what is on the disk has these weights; replacing it would leave an instant without either

        def before() -> None:
            for hook in trainer.hooks:
                hook.before_checkpoint(trainer)

        own_state = {
            "trainer": state.to_dict(),
            "environment": asdict(trainer.environment),
            "hooks": {hook.name: hook.state_dict() for hook in trainer.hooks},
        }
        self._on_its_way = state.best
        best = state.best.step if state.best is not None else None
        self._heed(self._writer.save(state.step, own_state, facts=self._facts(), protect=best, before=before))

    def settle(self) -> None:
        """Wait for a save that goes on behind training; on all processes together."""
        self._heed(self._writer.settle())

    def fall_back(self) -> None:
        """Let the best that is on the disk be the best."""
        self._trainer.state.best = self._on_disk

    def close(self, *, at_once: bool) -> None:
        """Let nothing be written any more; after an error, on this process alone.

        Args:
            at_once: give up a save that goes on behind training rather than wait until it is whole.
        """
        self._writer.close(at_once=at_once)

    def _facts(self) -> dict[str, Any]:
        state, options = self._trainer.state, self._trainer.config.early_stopping
        value = self._trainer.evaluated.get(options.monitor)
        return {
            "epoch": round(self._trainer.epoch, 6),
            "metric": None if value is None else {"name": options.monitor, "value": value},
            "windows": state.windows,
        }

    def _heed(self, outcome: Saved | None) -> None:
        if outcome is None:
            return
        trainer, state = self._trainer, self._trainer.state
        if outcome.problem:
            self.unsaved = outcome
            if state.best is not None and state.best.step == outcome.step:
                self.fall_back()
                # An evaluation since then did not beat the one that is lost, but may beat the one before it.
                if outcome.step != state.step:
                    trainer.note_best(trainer.evaluated)
        else:
            self.unsaved, self._on_disk = None, self._on_its_way
        for hook in trainer.hooks:
            hook.on_saved(trainer, outcome)
