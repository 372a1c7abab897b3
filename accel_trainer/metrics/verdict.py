"""What an error is worth beside those of other forecasts on the same windows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVEL = 1e-3
"""Relative difference in MSE below which nobody should speak of better or worse."""


def gain(mse: float, other: float) -> float:
    """Return by which share an error is smaller than another; nothing gains on a forecast without error."""
    if other == 0:
        return 0.0 if mse == 0 else -math.inf
    return 1 - mse / other


def verdict(mse: float, baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """Say in one sentence which baselines a model beats in MSE, with which it is level and to which it loses.

    Args:
        mse: of the model; NaN loses to everything.
        baselines: name -> scores with ``mse``; one that could not be scored has none and is not mentioned.
    """
    gains = {name: gain(mse, scores["mse"]) for name, scores in baselines.items() if "mse" in scores}
    groups = {
        "beats": [name for name, value in gains.items() if value > LEVEL],
        "is level with": [name for name, value in gains.items() if abs(value) <= LEVEL],
        "loses to": [name for name, value in gains.items() if not value >= -LEVEL],
    }
    parts = [
        f"{verb} {', '.join(f'{name} ({gains[name] * 100:+.1f} %)' for name in names)}"
        for verb, names in groups.items()
        if names
    ]
    return f"the model {'; '.join(parts)} in test MSE" if parts else "no baseline was scored"
