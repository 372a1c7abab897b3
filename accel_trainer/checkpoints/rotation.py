"""Which checkpoints of a run stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal


@dataclass(frozen=True)
class Keep:
    """What rotation leaves.

    Attributes:
        last: that many of the newest.
        best: that many with the best value of the monitored metric, among those that were evaluated.
        every: those whose step is a multiple of it.
        monitor: the metric.
        mode: whether its smaller (min) or larger (max) values are better.
    """

    last: int = 2
    best: int = 1
    every: int | None = None
    monitor: str = "val/mse"
    mode: Literal["min", "max"] = "min"

    def kept(self, manifests: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """Return the steps that stay.

        Args:
            manifests: step -> what its manifest says, of this run's checkpoints.
        """
        newest = sorted(manifests)[-self.last :]
        values = {step: value for step, of in manifests.items() if (value := self._value(of)) is not None}
        # Of equal values the earlier one is the best, as in training.
        ranked = sorted(values, key=lambda step: (values[step] if self.mode == "min" else -values[step], step))
        regular = [step for step in manifests if self.every and step % self.every == 0]
        return {*newest, *ranked[: self.best], *regular}

    def _value(self, manifest: Mapping[str, Any]) -> float | None:
        metric = manifest.get("metric")
        if not isinstance(metric, dict) or metric.get("name") != self.monitor:
            return None
        value = metric.get("value")
        return float(value) if isinstance(value, int | float) else None
