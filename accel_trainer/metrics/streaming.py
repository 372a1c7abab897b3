"""Forecast errors added up per sensor and per step ahead; no forecast is kept.

The sums do not depend on how windows are cut into batches or spread over processes, except for float64 rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Floats = NDArray[np.float64]

# A sum of squares about the mean below this share of the plain sum of squares is nothing but rounding: the sensor moved
# by less than 1e-6 of its own value, which float32 readings hardly resolve.
_RESOLUTION = 1e-12


class ErrorSums:
    """Sums of weight, squared error, absolute error, target and squared target, each [H, C'] in float64.

    Args:
        horizon: steps ahead (H).
        targets: sensors that are forecast (C').
        device: where the sums live; it has to know float64 (for MPS take the CPU: batches are moved there).
    """

    def __init__(self, horizon: int, targets: int, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(5, horizon, targets, dtype=torch.float64, device=device)

    @classmethod
    def from_tensor(cls, sums: Tensor) -> ErrorSums:
        """Return the sums that :meth:`tensor` gave, or that several of them add up to."""
        made = cls(sums.shape[1], sums.shape[2], sums.device)
        made._sums.copy_(sums)
        return made

    def tensor(self) -> Tensor:
        """Return all sums as one [5, H, C'] tensor, not a copy: summed in place over processes, it stands for all."""
        return self._sums

    @torch.no_grad()
    def update(self, forecast: Tensor, target: Tensor, observed: Tensor | None = None) -> None:
        """Add a batch of windows, without waiting for the device.

        Args:
            forecast: [B, H, C'], z units. Where a target was observed, NaN and infinity go into the sums.
            target: [B, H, C'], z units.
            observed: [B, H, C'] bool; None: every target was observed. Other cells count nothing, whatever they hold.

        Raises:
            ValueError: the shapes differ; broadcasting would hide a wrong forecast.
        """
        expected = (len(target), *self._sums.shape[1:])
        shapes = [tuple(x.shape) for x in (forecast, target, observed) if x is not None]
        if any(shape != expected for shape in shapes):
            raise ValueError(f"forecast, target and observed are {shapes}; expected [B, H, C'] = {expected}")
        device = self._sums.device
        forecast, target = forecast.to(device).double(), target.to(device).double()
        error = forecast - target
        if observed is None:
            self._sums[0] += len(target)
        else:
            observed = observed.to(device)
            error, target = error.where(observed, 0.0), target.where(observed, 0.0)
            self._sums[0] += observed.sum(0)
        self._sums[1] += error.square().sum(0)
        self._sums[2] += error.abs().sum(0)
        self._sums[3] += target.sum(0)
        self._sums[4] += target.square().sum(0)

    def overall(self) -> dict[str, float]:
        """Return mse, mae, rmse and r2 over all observed targets, in z units.

        R² is 1 - (sum of squared errors) / (sum of squared distances of the targets from their own sensor's mean): what
        a forecast gains on knowing each sensor's test mean. Without an observed target the result is empty; only
        ``r2`` is left out when no sensor moved. A forecast that is not finite shows as NaN or infinity.
        """
        weight, squared, absolute, spread, _ = self._per_sensor()
        return _scores(weight.sum(), squared.sum(), absolute.sum(), spread.sum())

    def report(self, sensors: Sequence[str], units: Sequence[str], mean: ArrayLike, std: ArrayLike) -> dict[str, Any]:
        """Return all metrics, ready for JSON; one without an observed target is left out.

        Args:
            sensors: names of the C' targets.
            units: their units, ``""`` where unknown.
            mean: [C'] what was subtracted to get z units, in physical units.
            std: [C'] what was divided by.

        Returns:
            ``mse``, ``mae``, ``rmse``, ``r2`` as in :meth:`overall`;
            ``per_sensor``: the same of each sensor with its name and unit, and in ``physical`` its mse, mae and rmse in
            (squared) physical units beside mean and standard deviation of its observed targets;
            ``per_step``: mse, mae and rmse of each step ahead, from 1, in z units;
            ``per_unit``: mse, mae and rmse over all sensors of one known unit in that unit, and how many they are.
        """
        count = self._sums.shape[2]
        mean, std = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
        if not (len(sensors) == len(units) == count and mean.shape == std.shape == (count,)):
            raise ValueError(
                f"{len(sensors)} sensors, {len(units)} units, mean {mean.shape} and std {std.shape} "
                f"do not describe {count} targets"
            )
        weight, squared, absolute, spread, total = self._per_sensor()
        per_sensor = []
        for c in range(count):
            entry: dict[str, Any] = {"sensor": sensors[c], "unit": units[c]}
            entry |= _scores(weight[c], squared[c], absolute[c], spread[c])
            if weight[c] > 0:
                entry["physical"] = _scores(weight[c], squared[c] * std[c] ** 2, absolute[c] * std[c]) | {
                    "target_mean": float(mean[c] + std[c] * total[c] / weight[c]),
                    "target_std": float(std[c] * np.sqrt(spread[c] / weight[c])),
                }
            per_sensor.append(entry)
        by_step = self._sums[:3].sum(2).cpu().numpy()
        per_unit = {}
        for unit in dict.fromkeys(units):
            chosen = np.array([u == unit for u in units]) & (weight > 0)
            if unit and chosen.any():
                scale = std[chosen]
                scores = _scores(
                    weight[chosen].sum(), (squared[chosen] * scale**2).sum(), (absolute[chosen] * scale).sum()
                )
                per_unit[unit] = scores | {"sensors": int(chosen.sum())}
        return {
            **_scores(weight.sum(), squared.sum(), absolute.sum(), spread.sum()),
            "per_sensor": per_sensor,
            "per_step": [{"step": h + 1, **_scores(*by_step[:, h])} for h in range(by_step.shape[1])],
            "per_unit": per_unit,
        }

    def _per_sensor(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return weight, squared and absolute error, squares about the sensor's mean, and target sum, each [C']."""
        weight, squared, absolute, total, squares = self._sums.sum(1).cpu().numpy()
        with np.errstate(invalid="ignore"):
            spread = squares - total**2 / np.maximum(weight, 1)
            spread = np.where(spread <= _RESOLUTION * squares, 0.0, spread)
        return weight, squared, absolute, spread, total


def _scores(weight: float, squared: float, absolute: float, spread: float | None = None) -> dict[str, float]:
    """Turn sums into metrics; without any weight there are none, and no r2 without spread."""
    if weight == 0:
        return {}
    mse = float(squared / weight)
    scores = {"mse": mse, "mae": float(absolute / weight), "rmse": float(np.sqrt(mse))}
    if spread is not None and spread != 0:
        scores["r2"] = float(1 - squared / spread)
    return scores
