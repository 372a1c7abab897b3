"""The learning rate over the run, counted in updates: a step that changed no weights does not advance it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from accel_trainer.config import ScheduleOptions


def rate(options: ScheduleOptions, total_updates: int, updates_per_epoch: int) -> Callable[[int], float]:
    """Return the share of ``optimizer.lr`` that holds after a number of updates.

    Args:
        options: which schedule.
        total_updates: updates of the whole run.
        updates_per_epoch: updates of one epoch.
    """
    warmup = options.warmup

    def share(updates: int) -> float:
        if updates < warmup:
            return (updates + 1) / (warmup + 1)
        if options.name == "cosine":
            progress = min(1.0, (updates - warmup) / max(1, total_updates - warmup))
            return options.min_ratio + (1 - options.min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
        if options.name == "halving":
            # lr, lr, lr/2, lr/4, …: the first halving comes after the second epoch (Informer2020, "type1").
            return float(0.5 ** max(0, updates // updates_per_epoch - 1))
        return 1.0

    return share


class Schedule:
    """Sets the rate of every group; holds no state, so that there is none to save or to restore wrongly.

    Args:
        optimizer: whose groups' rates are set; their rates now are the ones the schedule multiplies.
        share: part of those rates after a number of updates.
    """

    def __init__(self, optimizer: Optimizer, share: Callable[[int], float]) -> None:
        self._optimizer, self._share = optimizer, share
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self.set(0)

    def set(self, updates: int) -> None:
        """Make the rates those of the step that follows ``updates`` updates."""
        share = self._share(updates)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
