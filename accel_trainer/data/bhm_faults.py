"""Sensor faults of the seven classes monitoring engineers use, and gaps, put onto healthy readings.

normal, missing, minor, outlier, square, trend, drift: the classes of the first international SHM competition
(Bao et al., Structural Health Monitoring 20 (2021)). Shares of the readings are set in ``SHARES``; real bridges miss
0.4 to 3.4 % of the grid with gaps of several days, and show spikes of more than 6 robust standard deviations in
0.3 to 1 % of their samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accel_trainer.data.bhm_options import FAULT_CLASSES
from accel_trainer.data.bhm_series import DAY, Array, fluctuation, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LABEL = {name: number for number, name in enumerate(FAULT_CLASSES)}
# Share of the readings and typical length of an episode in days, per class. Outliers are single readings.
SHARES = {"minor": 0.006, "square": 0.004, "trend": 0.010, "drift": 0.010, "outlier": 0.005}
EPISODE_DAYS = {"minor": 3.0, "square": 1.5, "trend": 5.0, "drift": 6.0}
# Missing readings, 1.9 % in all: single lost rows, gaps of one sensor, and outages of the logger that take all sensors.
LOST_SHARE, GAP_SHARE, GAP_DAYS = 0.003, 0.008, 1.2
OUTAGE_SHARE, OUTAGE_DAYS = 0.008, 1.5


def minor(readings: Array, rng: np.random.Generator, scale: float) -> Array:
    """A failing amplifier: the sensor still moves, by a few per cent of what it should."""
    level = readings.mean()
    return np.asarray(level + rng.uniform(0.01, 0.06) * (readings - level))


def square(readings: Array, rng: np.random.Generator, scale: float) -> Array:
    """A loose contact: readings jump between two levels."""
    dwell = max(len(readings) / rng.uniform(6, 20), 1.0)
    side = np.sign(fluctuation(rng, len(readings), 1.0, dwell))
    jumps = rng.uniform(1.5, 4.0) * side + 0.02 * rng.standard_normal(len(readings))
    return np.asarray(readings.mean() + scale * jumps)


def trend(readings: Array, rng: np.random.Generator, scale: float) -> Array:
    """A leak or a draining battery: readings leave the truth along a line until the sensor is reset."""
    reach = rng.choice([-1.0, 1.0]) * rng.uniform(4.0, 12.0) * scale
    return np.asarray(readings + np.linspace(0.0, reach, len(readings)))


def drift(readings: Array, rng: np.random.Generator, scale: float) -> Array:
    """A zero that wanders at random, as with moisture in a gauge, until the sensor is reset."""
    steps = rng.standard_normal(len(readings)) * (rng.uniform(3.0, 8.0) * scale / np.sqrt(len(readings)))
    return np.asarray(readings + np.cumsum(steps))


def outlier(readings: Array, rng: np.random.Generator, scale: float) -> Array:
    """Electrical spikes: single readings 6 to 15 robust standard deviations off, in either direction."""
    height = 6.0 + rng.exponential(2.0, len(readings)).clip(max=9.0)
    return np.asarray(readings + rng.choice([-1.0, 1.0], len(readings)) * height * scale)


_EPISODES: dict[str, Callable[[Array, np.random.Generator, float], Array]] = {
    "minor": minor,
    "square": square,
    "trend": trend,
    "drift": drift,
}


def daily_scale(readings: Array, period: float) -> float:
    """Robust standard deviation (1.4826 MAD) of the readings about their daily mean, seasons left out."""
    rows = min(max(int(DAY / period), 1), len(readings))
    integral = np.concatenate(([0.0], np.cumsum(readings)))
    low = np.clip(np.arange(len(readings)) - rows // 2, 0, len(readings) - rows)
    deviation = readings - (integral[low + rows] - integral[low]) / rows
    return float(1.4826 * np.median(np.abs(deviation - np.median(deviation))))


def episodes(rng: np.random.Generator, rows: int, share: float, typical: float) -> Iterator[slice]:
    """Yield stretches of rows that on average cover ``share`` of them.

    Args:
        rng: where number, starts and lengths come from.
        rows: length of the record.
        share: expected share of the rows, overlaps and cuts at the end aside.
        typical: mean length in rows (lengths are log-normal); at most a tenth of the record.
    """
    typical = min(typical, rows / 10)
    for _ in range(rng.poisson(share * rows / typical)):
        length = max(round(typical * rng.lognormal(-0.18, 0.6)), 1)  # mean of the law is 1
        begin = int(rng.integers(rows))
        yield slice(begin, min(begin + length, rows))


def add_faults(
    clean: Array, name: str, seed: int, period: float, outages: NDArray[np.bool_], lowest: float = -np.inf
) -> tuple[Array, NDArray[np.int8]]:
    """Return one sensor's faulty readings and the label of each.

    Args:
        clean: [time] healthy readings.
        name: sensor; each has its own random stream.
        seed: seed of the bridge.
        period: seconds per row.
        outages: [time] rows in which the logger was down.
        lowest: least reading the quantity can have; what a fault would bring below it is mirrored there.

    Returns:
        readings [time], and [time] numbers into ``FAULT_CLASSES``; what is labelled missing was not observed.
    """
    rows = len(clean)
    readings = clean.copy()
    labels = np.zeros(rows, dtype=np.int8)
    scale = daily_scale(clean, period)
    per_day = DAY / period
    for fault, apply in _EPISODES.items():
        rng = stream(seed, f"faults/{name}/{fault}")
        for stretch in episodes(rng, rows, SHARES[fault], EPISODE_DAYS[fault] * per_day):
            readings[stretch] = apply(clean[stretch], rng, scale)
            labels[stretch] = LABEL[fault]

    rng = stream(seed, f"faults/{name}/outlier")
    spikes = (rng.random(rows) < SHARES["outlier"]) & (labels == LABEL["normal"])
    readings[spikes] = outlier(clean[spikes], rng, scale)
    labels[spikes] = LABEL["outlier"]
    readings = np.where(readings < lowest, 2 * lowest - readings, readings) if np.isfinite(lowest) else readings

    rng = stream(seed, f"faults/{name}/missing")
    missing = outages | (rng.random(rows) < LOST_SHARE)
    for stretch in episodes(rng, rows, GAP_SHARE, GAP_DAYS * per_day):
        missing[stretch] = True
    labels[missing] = LABEL["missing"]
    return readings, labels


def logger_outages(rows: int, seed: int, period: float) -> NDArray[np.bool_]:
    """Return [time] rows in which the whole logger was down: power cuts, full disks, several days at times."""
    down = np.zeros(rows, dtype=np.bool_)
    for stretch in episodes(stream(seed, "faults/logger"), rows, OUTAGE_SHARE, OUTAGE_DAYS * DAY / period):
        down[stretch] = True
    return down
