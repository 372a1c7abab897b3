"""Vehicles on the bridge: weekly flow, random trucks, and what they do through an influence line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel_trainer.data.bhm_series import DAY, Array, fluctuation, row_means, stream
from accel_trainer.data.bhm_weather import CELL, HOUR

LANES = 2
SINGLE_VEHICLES_BELOW = 60.0  #: periods (s) not much longer than a crossing, where a truck's position matters
TRUCK_SPEED = (23.0, 1.8)  #: mean and standard deviation, m/s
SPEED_LIMITS = (15.0, 31.0)  #: slowest and fastest truck, m/s
CAR_SPEED, CAR_WEIGHT = 27.0, 14.0  #: m/s, kN
_TRUCK_SHARE = np.array([0.31, 0.19, 0.5])
_TRUCK_MEAN = np.array([259.6, 405.3, 135.0])  # kN
_TRUCK_SD = np.array([92.0, 24.8, 45.0])  # kN
# Heavy vehicles per hour in lane 1, each value at its hour: midweek 270 to 920 per 3 h, Sunday 30 to 140 (P-BIM).
_MIDWEEK = [92, 88, 90, 100, 135, 190, 240, 275, 295, 305, 307, 305, 300, 300, 298, 290, 275, 250, 215, 180, 150, 128]
_MIDWEEK += [112, 100]
_SATURDAY = [80, 66, 58, 54, 56, 64, 78, 90, 98, 100, 98, 92, 84, 76, 68, 60, 53, 47, 42, 37, 33, 29, 25, 22]
_SUNDAY = [18, 14, 12, 10, 10, 11, 13, 16, 20, 25, 29, 32, 34, 35, 36, 37, 39, 41, 43, 45, 46, 47, 55, 72]
# Cars per hour, both lanes: commuters on working days, one broad hump at weekends.
_CARS = [90, 60, 50, 60, 130, 480, 1250, 1750, 1500, 1100, 1000, 1020, 1060, 1100, 1200, 1450, 1800, 1850, 1400, 950]
_CARS += [700, 520, 340, 180]
_CARS_WEEKEND = [150, 100, 70, 55, 60, 100, 200, 360, 620, 920, 1150, 1250, 1250, 1220, 1200, 1220, 1250, 1200, 1050]
_CARS_WEEKEND += [850, 620, 450, 310, 200]
_LANE_SHARE = (1.0, 0.13)  #: heavy vehicles per lane, relative to lane 1


def _weekly(time: Array, workday: list[int], saturday: list[int], sunday: list[int]) -> Array:
    """Interpolate an hourly table over the week; ``time`` in seconds since 1970-01-01, a Thursday."""
    table = np.array(workday * 5 + saturday + sunday, dtype=np.float64)
    table[: len(workday)] *= 0.94  # Mondays and Fridays are a little quieter than midweek
    table[4 * len(workday) : 5 * len(workday)] *= 0.92
    hours = (time / HOUR + 72) % 168  # hours since Monday 00:00
    return np.asarray(np.interp(hours, np.arange(len(table) + 1), np.append(table, table[0])))


def truck_weights(rng: np.random.Generator, count: int) -> Array:
    """Draw gross weights in kN: half are 5-axle trucks, .62 N(259.6, 92) + .38 N(405.3, 24.8) (P-BIM), half lighter."""
    kind = np.searchsorted(np.cumsum(_TRUCK_SHARE)[:-1], rng.random(count))
    return np.asarray(np.maximum(_TRUCK_MEAN[kind] + _TRUCK_SD[kind] * rng.standard_normal(count), 36.0))


def _truck_moment(power: int) -> float:
    """Return the mean of weight^power for power 1, 2 or 4 (moments of a normal law, mixed)."""
    mean, sd = _TRUCK_MEAN, _TRUCK_SD
    normal = {1: mean, 2: mean**2 + sd**2, 4: mean**4 + 6 * mean**2 * sd**2 + 3 * sd**4}
    return float(np.sum(_TRUCK_SHARE * normal[power]))


@dataclass(frozen=True, eq=False)
class _Crossings:
    """Single trucks of one lane: which rows each of them is on the bridge, and where it is at their borders.

    Attributes:
        weight: [trucks] kN.
        speed: [trucks] m/s.
        row: [trucks, k] row numbers; the last row stands for all that are outside the record.
        edges: [trucks, k + 1] position on the bridge in metres when those rows begin and end.
    """

    weight: Array
    speed: Array
    row: NDArray[np.int64]
    edges: Array


@dataclass(frozen=True, eq=False)
class Traffic:
    """Traffic of a record as period means.

    Attributes:
        rows: number of rows.
        period: seconds.
        length: length of the bridge, m.
        cars: [time] mean load of the cars per lane, kN/m.
        trucks: per lane, either [time] sum of weight/speed over the row divided by the period, in kN/m (long periods),
            or the single crossings.
        energy: [time] mean over the row of the sum of squared truck weights on the bridge, kN².
    """

    rows: int
    period: float
    length: float
    cars: Array
    trucks: tuple[Array | _Crossings, ...]
    energy: Array

    def response(self, line: Array, shares: tuple[float, ...]) -> Array:
        """Return the mean response per row to all vehicles.

        A vehicle of weight w and speed v adds w/(v T) times the integral of the influence line over the stretch it
        covers in the row, which is the exact time mean for a point load. For periods of many crossings the stretch is
        the whole bridge.

        Args:
            line: response to 1 kN at each of equally spaced positions from end to end.
            shares: part of each lane's load that the sensor feels.
        """
        spacing = self.length / (len(line) - 1)
        integral = np.concatenate(([0.0], np.cumsum((line[1:] + line[:-1]) / 2) * spacing))
        total = self.cars * (integral[-1] * sum(shares))
        for trucks, share in zip(self.trucks, shares, strict=True):
            if isinstance(trucks, _Crossings):
                total += share * _spread(trucks, trucks.weight, integral, self.length, self.rows, self.period)
            else:
                total += trucks * (integral[-1] * share)
        return np.asarray(total)


def _spread(crossings: _Crossings, weight: Array, integral: Array, length: float, rows: int, period: float) -> Array:
    """Add up each crossing's share of the integral in each row it touches."""
    positions = np.linspace(0.0, length, len(integral))
    passed = np.diff(np.interp(crossings.edges, positions, integral), axis=1)
    passed *= (weight / (crossings.speed * period))[:, None]
    sums: Array = np.bincount(crossings.row.ravel(), passed.ravel(), minlength=rows + 1).astype(np.float64)
    return sums[:rows]


def _cross(rng: np.random.Generator, expected: Array, period: float, length: float) -> _Crossings:
    """Draw single trucks that arrive at random within each row, with the row's expected number."""
    rows = len(expected)
    arrival_row = np.repeat(np.arange(rows), rng.poisson(expected))
    count = len(arrival_row)
    weight = truck_weights(rng, count)
    speed = np.clip(TRUCK_SPEED[0] + TRUCK_SPEED[1] * rng.standard_normal(count), *SPEED_LIMITS)
    late = rng.random(count) * period  # seconds between the row's start and the arrival
    touched = int(np.ceil(length / SPEED_LIMITS[0] / period)) + 1
    steps = np.arange(touched + 1)
    edges = np.clip((steps * period - late[:, None]) * speed[:, None], 0.0, length)
    row = np.minimum(arrival_row[:, None] + steps[:-1], rows)
    return _Crossings(weight, speed, row, edges)


def make_traffic(seed: int, start: float, rows: int, period: float, length: float) -> Traffic:
    """Return random traffic with a daily and weekly pattern.

    Trucks are a Poisson stream whose rate follows the weekly table, times slow fluctuations of about a tenth (a
    stream alone would be too regular). For periods from ``SINGLE_VEHICLES_BELOW`` on, sums over the trucks of a row
    are drawn from their mean and variance; below, every truck is drawn and moved over the bridge. Cars are many and
    light: their mean plus Gaussian fluctuation with the variance of a Poisson stream (Campbell's theorem).

    Args:
        seed: seed of the bridge.
        start: first moment, seconds since 1970-01-01 local time.
        rows: number of rows.
        period: seconds per row.
        length: length of the bridge, m.
    """
    cells = int(np.ceil(rows * period / CELL)) + 1
    time = start + (np.arange(cells) + 0.5) * CELL
    busy = fluctuation(stream(seed, "traffic/busy/day"), cells, CELL, DAY, 0.07)
    busy += fluctuation(stream(seed, "traffic/busy/hours"), cells, CELL, 1.5 * HOUR, 0.09)
    heavy = row_means(_weekly(time, _MIDWEEK, _SATURDAY, _SUNDAY) * np.exp(busy), CELL, 0.0, rows, period) / HOUR
    light = row_means(_weekly(time, _CARS, _CARS_WEEKEND, _CARS_WEEKEND) * np.exp(busy / 2), CELL, 0.0, rows, period)
    light /= LANES * HOUR

    crossing = length / CAR_SPEED
    ripple = fluctuation(stream(seed, "traffic/cars"), rows, period, crossing / 2)
    cars = CAR_WEIGHT / length * np.maximum(light * crossing + np.sqrt(light * crossing) * ripple, 0)

    mean, square = _truck_moment(1), _truck_moment(2)
    spread, square_spread = math.sqrt(square - mean**2), math.sqrt(_truck_moment(4) - square**2)
    energy = np.zeros(rows)
    trucks: list[Array | _Crossings] = []
    line = np.linspace(0.0, length, 2)  # integral of a line of ones: time on the bridge
    for lane, share in enumerate(_LANE_SHARE):
        rng = stream(seed, f"traffic/lane{lane + 1}")
        if period < SINGLE_VEHICLES_BELOW:
            crossings = _cross(rng, heavy * (share * period), period, length)
            energy += _spread(crossings, crossings.weight**2, line, length, rows, period)
            trucks.append(crossings)
            continue
        number = rng.poisson(heavy * (share * period)).astype(np.float64)
        surprise = np.sqrt(number) * rng.standard_normal(rows)
        trucks.append(np.maximum(number * mean + surprise * spread, 0) / (TRUCK_SPEED[0] * period))
        energy += np.maximum(number * square + surprise * square_spread, 0) * length / (TRUCK_SPEED[0] * period)
    return Traffic(rows, period, length, cars, tuple(trucks), energy)
