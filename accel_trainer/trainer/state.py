"""What a training run is, between two steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

StopKind = Literal["completed", "early_stopping", "diverged", "preempted"]


def better(value: float, other: float, mode: Literal["min", "max"]) -> bool:
    """Return whether ``value`` beats ``other``; NaN beats nothing."""
    return value < other if mode == "min" else value > other


@dataclass(frozen=True)
class Stop:
    """Why training ends.

    Attributes:
        kind: completed (all steps done), early_stopping, diverged or preempted.
        reason: one sentence for people.
    """

    kind: StopKind
    reason: str


@dataclass(frozen=True)
class Best:
    """The best evaluation so far.

    Attributes:
        metric: name of the monitored metric.
        value: its value.
        step: step after which it was measured.
    """

    metric: str
    value: float
    step: int


@dataclass
class TrainState:
    """Counters of a run; everything else follows from them and the configuration.

    Attributes:
        epoch: whole passes over the data.
        step: optimizer steps attempted; their windows are consumed.
        updates: steps that changed the weights.
        windows: windows consumed.
        nonfinite: steps in a row whose gradient was NaN or infinite, beyond what a loss scale can mend.
        best: the best evaluation so far.
        stop: why training ended; None while it goes on.
        tracker_run_id: id under which the tracker knows this run.
        pending: row of the latest step when its evaluation is still to be made: it was broken off by a signal.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    windows: int = 0
    nonfinite: int = 0
    best: Best | None = None
    stop: Stop | None = None
    tracker_run_id: str | None = None
    pending: dict[str, float | int | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainState:
        """Return the state that :meth:`to_dict` described."""
        best, stop = values["best"], values["stop"]
        return cls(**{**values, "best": best and Best(**best), "stop": stop and Stop(**stop)})
