"""Tools for series on a regular grid: keyed random streams, first-order lags, random fluctuations, period means.

Sums run in numpy's own loops (no BLAS), so the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  #: float64 throughout; the record is rounded to float32 at the end

DAY = 86400.0


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return the random stream for one purpose.

    Each purpose has its own child of the seed, so drawing more or less for one (no faults, fewer sensors) leaves
    every other draw as it was.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(purpose.encode())))


def _recursion(x: Array, keep: float) -> Array:
    """Solve y[t] = keep * y[t-1] + x[t] by doubling: log2(n) vectorised passes, stable for every ``keep`` in [0, 1)."""
    y = x
    shift = 1
    while shift < len(y) and keep > 1e-15:
        previous = y
        y = y.copy()
        y[shift:] += keep * previous[:-shift]
        keep *= keep
        shift *= 2
    return y


def lagged(x: Array, tau: float, step: float) -> Array:
    """Return a first-order lag of ``x``: what a body of time constant ``tau`` does that is heated by ``x``.

    Args:
        x: [time] forcing; the body starts in balance with its first value.
        tau: time constant in seconds.
        step: seconds between two values.
    """
    keep = math.exp(-step / tau)
    forcing = x * (1 - keep)
    forcing[:1] = x[:1]
    return _recursion(forcing, keep)


def fluctuation(rng: np.random.Generator, rows: int, step: float, tau: float, sd: float = 1.0) -> Array:
    """Return period means of a stationary first-order (Ornstein-Uhlenbeck) process.

    The variance of a mean over ``step`` is 2 r (1 - r (1 - exp(-1/r))) of the process's own, r = tau/step, so noise
    shrinks with longer periods exactly as averaging would shrink it.

    Args:
        rng: where the draws come from.
        rows: number of values.
        step: seconds between two values, and the time each is a mean over.
        tau: correlation time in seconds.
        sd: standard deviation of the momentary process.
    """
    ratio = tau / step
    averaged = 1.0 if ratio > 1e4 else math.sqrt(2 * ratio * (1 + ratio * math.expm1(-1 / ratio)))
    keep = math.exp(-1 / ratio)
    shocks = rng.standard_normal(rows)
    shocks[1:] *= math.sqrt(1 - keep * keep)
    return _recursion(shocks * (sd * averaged), keep)


def row_means(cells: Array, cell: float, first: float, rows: int, period: float) -> Array:
    """Return means over the rows of a record of a quantity known on another grid.

    Args:
        cells: [cells] means over consecutive cells; the first cell starts at time 0.
        cell: length of a cell in seconds.
        first: start of row 0 in seconds.
        rows: number of rows.
        period: length of a row in seconds. Rows shorter than a cell are interpolated between the cells' centres.
    """
    if period <= cell:
        centres = first + (np.arange(rows) + 0.5) * period
        return np.asarray(np.interp(centres, (np.arange(len(cells)) + 0.5) * cell, cells))
    edges = first + np.arange(rows + 1) * period
    integral = np.concatenate(([0.0], np.cumsum(cells)))
    return np.asarray(np.diff(np.interp(edges, np.arange(len(integral)) * cell, integral)) * (cell / period))
