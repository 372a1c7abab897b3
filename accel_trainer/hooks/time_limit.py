"""An end in time, for machines that are lent for so many hours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from accel_trainer.trainer.hooks import Hook, Request
from accel_trainer.trainer.state import Stop

if TYPE_CHECKING:
    from accel_trainer.trainer.loop import Trainer


class TimeLimit(Hook):
    """Saves and stops, as a signal would make it, once the process has lived for ``training.max_time``.

    Every start does the evaluation that the one before it broke off, and at least one step: a run whose preparation
    alone takes longer still comes to its end.

    Args:
        seconds: that it may live; saving, and the step in hand, come on top.
        began: moment it began, by ``time.monotonic()``.
    """

    name = "time_limit"

    def __init__(self, seconds: float, began: float) -> None:
        self._seconds, self._end = seconds, began + seconds
        self._further = False  # whether this start has done a step

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Ask all processes to stop, whichever of them began first."""
        self._further = True
        return self._request(f"in step {trainer.state.step}")

    def on_evaluation_batch(self, trainer: Trainer) -> Request | None:
        """Ask all processes to leave the evaluation and stop."""
        return self._request(f"in the evaluation after step {trainer.state.step}") if self._further else None

    def _request(self, when: str) -> Request | None:
        if time.monotonic() < self._end:
            return None
        reason = f"training.max_time of {self._seconds:.12g} s is over {when}"
        return Request(save=True, stop=Stop("preempted", reason), any_process=True)
