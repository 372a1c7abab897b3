"""Measured against forecast on a stretch of the test rows, in physical units: what the pictures show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from accel_trainer.data.table import ClockKind
    from accel_trainer.data.windows import Windows
    from accel_trainer.run.forecast_data import ForecastData
    from accel_trainer.tasks.forecasting import ForecastingTask

_FORECASTS = 10
_FEWEST_ROWS, _MOST_ROWS, _FEWEST_FORECASTS = 240, 480, 4
"""A picture of fewer rows says little, one of more is a thicket: short horizons get more forecasts, long ones fewer."""
_WORTH_SHOWING = 0.5
"""Share of the cells that should be observed; a stretch or a sensor below it shows little but a gap."""
_BATCH = 16


@dataclass(frozen=True, eq=False)
class Examples:
    """Forecasts that follow each other without overlap, each from data before it alone.

    Attributes:
        sensors: names [S].
        units: of the sensors, ``""`` where unknown.
        time: [T] ``datetime64[ns]``, seconds or row numbers, as ``kind`` says.
        kind: how the data counts time.
        measured: float64 [T, S] in the sensor's unit, NaN where nothing was observed.
        forecast: float64 [T, S] in the sensor's unit.
        starts: int64 [K], where in ``time`` a forecast begins; each goes on to the next one's start.
    """

    sensors: tuple[str, ...]
    units: tuple[str, ...]
    time: NDArray[np.generic]
    kind: ClockKind
    measured: NDArray[np.float64]
    forecast: NDArray[np.float64]
    starts: NDArray[np.int64]


def example_forecasts(
    model: nn.Module, task: ForecastingTask, data: ForecastData, samples: Windows, sensors: int = 6
) -> Examples:
    """Forecast the last stretch of some windows that was mostly observed, one forecast every horizon.

    Args:
        model: the bare forecaster, on the device of the data; left in the mode it was in.
        task: calls it.
        data: names, units, scaler and the measured values.
        samples: windows of ``data``, such as its test windows.
        sensors: how many to show; the first of each unit comes before a second of any.

    Raises:
        UserError: the model returned another shape than the task asks for.
    """
    indices = _last_stretch(samples, data.targets)
    rows = (samples.starts(indices)[:, None] + samples.context + np.arange(samples.horizon)).reshape(-1)
    targets = slice(0, data.targets)
    observed = data.table.observed[rows, targets]
    measured = np.where(observed, data.table.values[rows, targets].astype(np.float64), np.nan)
    chosen = choose_sensors(data.units, observed.mean(axis=0), sensors)

    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for some in np.array_split(indices, math.ceil(len(indices) / _BATCH)):
            # A model may look at all targets at once, so the sensors are chosen after it has forecast.
            scaled = task.forecast(model, samples.batch(some))
            parts.append(scaled.cpu().numpy().reshape(-1, data.targets))
    model.train(was_training)
    forecast = data.scaler.inverse(np.concatenate(parts), data.sensors)
    first = int(rows[0])
    return Examples(
        sensors=tuple(data.sensors[c] for c in chosen),
        units=tuple(data.units[c] for c in chosen),
        time=data.table.clock.labels(first, int(rows[-1]) + 1)[rows - first],
        kind=data.table.clock.kind,
        measured=measured[:, chosen],
        forecast=forecast[:, chosen],
        starts=np.arange(len(indices), dtype=np.int64) * samples.horizon,
    )


def choose_sensors(units: Sequence[str], observed: NDArray[np.float64], count: int) -> list[int]:
    """Return which sensors to show: the first of each unit, then by order; those mostly unobserved come last.

    Args:
        units: of all sensors.
        observed: share of the stretch that each sensor was observed in.
        count: how many are wanted.
    """
    hidden = [bool(share < _WORTH_SHOWING) for share in observed]
    first_of: dict[str, int] = {}
    for sensor in sorted(range(len(units)), key=hidden.__getitem__):
        first_of.setdefault(units[sensor], sensor)
    firsts = list(first_of.values())
    others = [sensor for sensor in range(len(units)) if sensor not in firsts]
    return sorted([*firsts, *others], key=hidden.__getitem__)[:count]


def _last_stretch(samples: Windows, targets: int) -> NDArray[np.int64]:
    """Return the windows whose futures follow each other, up to the last stretch that is worth showing."""
    horizon = samples.horizon
    rows = min(max(_FORECASTS * horizon, _FEWEST_ROWS), max(_FEWEST_FORECASTS * horizon, _MOST_ROWS))
    apart = math.ceil(horizon / samples.stride)
    fitting = (len(samples) - 1) // apart + 1
    count = min(math.ceil(rows / horizon), fitting)
    last = len(samples) - 1
    newest = last - np.arange(count - 1, -1, -1, dtype=np.int64) * apart
    for back in range(fitting // count):
        indices = newest - back * count * apart
        if samples.weight(indices) >= _WORTH_SHOWING * count * horizon * targets:
            return indices
    return newest
