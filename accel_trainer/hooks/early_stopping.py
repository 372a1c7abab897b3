"""Stop when the validation result no longer improves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accel_trainer.trainer.hooks import Hook, Request
from accel_trainer.trainer.state import Stop, better

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from accel_trainer.config import EarlyStoppingOptions
    from accel_trainer.trainer.loop import Trainer


@dataclass
class Patience:
    """Counts evaluations without improvement; feed it values, read ``exhausted``.

    An improvement is measured against the last value that counted as one, so that many gains smaller than
    ``min_delta`` add up to an improvement instead of moving the mark along with them.

    Attributes:
        patience: evaluations without improvement that are allowed.
        min_delta: least change that counts.
        mode: min or max.
        best: the last value that counted as an improvement.
        waited: evaluations since then.
    """

    patience: int
    min_delta: float = 0.0
    mode: Literal["min", "max"] = "min"
    best: float | None = None
    waited: int = 0

    def feed(self, value: float) -> bool:
        """Take one evaluation's value; return whether it is an improvement. NaN never is."""
        mark = self.best
        if mark is not None and self.min_delta:
            mark += -self.min_delta if self.mode == "min" else self.min_delta
        improved = math.isfinite(value) and (mark is None or better(value, mark, self.mode))
        self.best, self.waited = (value, 0) if improved else (self.best, self.waited + 1)
        return improved

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.patience


class EarlyStopping(Hook):
    """Asks the trainer to stop when the monitored metric has not improved for ``patience`` evaluations."""

    name = "early_stopping"

    def __init__(self, options: EarlyStoppingOptions) -> None:
        self.monitor = options.monitor
        self.count = Patience(options.patience, options.min_delta, options.mode)

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Stay stopped after a restart, unless patience was raised in between."""
        return self._request()

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> Request | None:
        """Count, and ask to stop when patience has run out or the metric is not a number any more."""
        value = metrics.get(self.monitor, math.nan)
        if not math.isfinite(value):
            return Request(stop=Stop("diverged", f"{self.monitor} became {value} at step {trainer.state.step}"))
        self.count.feed(value)
        return self._request()

    def _request(self) -> Request | None:
        if not self.count.exhausted:
            return None
        evaluations = "evaluation" if self.count.waited == 1 else "evaluations"
        return Request(
            stop=Stop(
                "early_stopping",
                f"{self.monitor} has not improved on {self.count.best:.6g} for {self.count.waited} {evaluations}",
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counter and what it counts; the options belong to the configuration."""
        return {"monitor": self.monitor, "best": self.count.best, "waited": self.count.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the counter back and keep the options of now; another metric is counted anew."""
        same = state.get("monitor") == self.monitor
        self.count.best, self.count.waited = (state["best"], state["waited"]) if same else (None, 0)
