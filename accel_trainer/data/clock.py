"""Time stamps into a regular grid: its clock, and the grid row of every row of the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accel_trainer.data.table import Clock, ClockKind
from accel_trainer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OFF_GRID = 0.25
"""Part of a period by which a step may differ from a whole number of periods before it counts as irregular."""
_IRREGULAR_SHARE = 0.01
_SPARSEST = 20
"""Most grid rows per row of the file."""
_PERIOD_TOLERANCE = 0.01
"""Part by which a stated period may differ from that of the stamps."""
_ROUND = (86400 * 10**9, 3600 * 10**9, 60 * 10**9, 10**9, 10**6)
"""Nanoseconds of which a period is likely a multiple, the likeliest first."""
_WORTH_A_NOTE = 0.01
"""Part of a period; less jitter than this is rounding."""


@dataclass(frozen=True)
class Placement:
    """Where the rows of a file lie on the grid.

    Attributes:
        clock: time of the grid rows.
        rows: int64 [rows of the file], their grid rows, rising; None where they are 0, 1, 2, …
        length: rows of the grid.
        notes: gaps, jitter and irregular steps, one sentence each.
    """

    clock: Clock
    rows: NDArray[np.int64] | None
    length: int
    notes: tuple[str, ...] = ()


def place_rows(
    ns: NDArray[np.int64],
    kind: ClockKind,
    period: float | None = None,
    source: str = "the data",
    place: Callable[[int], str] = lambda row: f"row {row + 1}",
) -> Placement:
    """Put time stamps on a regular grid.

    A row lies as many grid rows after the one before it as there are periods between their stamps, rounded, so
    neither jitter (10, 11, 9 ms) nor a clock that runs slow moves a row. The grid's period is the usual step where
    every step is a whole multiple of it. Otherwise it is the mean spacing, rounded to whole days, hours, minutes,
    seconds or milliseconds where the jitter of the first and last stamp leaves that open. Row 0 has the first stamp.

    Args:
        ns: int64 [rows], time in nanoseconds.
        kind: ``datetime`` or ``seconds``.
        period: seconds between two rows as the user states it; None: read from the stamps.
        source: the file, for messages.
        place: names a row of the file, such as ``line 17``.

    Raises:
        DataError: stamps that repeat or go back, two rows within one period, more than 1 % of the steps off the
            grid, one row only, or gaps that would make the grid 20 times as long as the file.
        ConfigError: ``period`` is not the spacing of the stamps.
    """
    describe = _Describe(ns, kind, source, place)
    if len(ns) == 1:
        if period is None:
            raise DataError(f"{source} has one row, so the time between rows is unknown; set data.period")
        return Placement(Clock(kind, float(period), int(ns[0])), None, 1)
    steps = np.diff(ns)
    _refuse_disorder(steps, describe)
    counts, spacing, remarks = _count_periods(ns, steps, describe)
    if period is None:
        period = spacing / 1e9
    elif abs(spacing / (period * 1e9) - 1) > _PERIOD_TOLERANCE:
        raise ConfigError("data.period", f"{period:g} s is not the {spacing / 1e9:g} s between the rows of {source}")
    length = int(counts.sum()) + 1
    largest = int(np.argmax(counts))
    notes = list(remarks)
    if length > _SPARSEST * len(ns):
        raise DataError(
            f"{source}: {describe.pair(largest)} lie {int(counts[largest])} periods of {period:g} s apart; filling "
            f"such gaps would make {length} rows of {len(ns)}; split the file there, or leave the time out with "
            "data.time_column: none and data.period"
        )
    clock = Clock(kind, float(period), int(ns[0]))
    if length == len(ns):
        return Placement(clock, None, length, tuple(notes))
    notes.append(
        f"{length - len(ns)} of {length} rows of the grid are not in the file and count as not observed; the largest "
        f"gap lies between {describe.stamp(largest)} and {describe.stamp(largest + 1)}."
    )
    rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Placement(clock, rows, length, tuple(notes))


@dataclass(frozen=True)
class _Describe:
    """Rows and their stamps in words."""

    ns: NDArray[np.int64]
    kind: ClockKind
    source: str
    place: Callable[[int], str]

    def stamp(self, row: int) -> str:
        if self.kind == "datetime":
            text = str(self.ns[row].astype("datetime64[ns]")).replace("T", " ")
            return text.rstrip("0").rstrip(".") if "." in text else text
        return f"{self.ns[row] / 1e9:.10g} s"

    def pair(self, row: int) -> str:
        return f"{self.place(row)} ({self.stamp(row)}) and {self.place(row + 1)} ({self.stamp(row + 1)})"


def _refuse_disorder(steps: NDArray[np.int64], describe: _Describe) -> None:
    wrong = np.flatnonzero(steps <= 0)
    if not wrong.size:
        return
    row = int(wrong[0])
    # Local time goes back by an hour less one step when summer time ends.
    usual = float(np.median(steps))
    fallen_back = describe.kind == "datetime" and abs(steps[row] - (usual - 3600e9)) < _OFF_GRID * usual
    hint = "; is it the end of summer time? then write times in UTC or with an offset" if fallen_back else ""
    if steps[row] == 0:
        raise DataError(
            f"{describe.source}: {describe.pair(row)} have the same time; keep one of them, or give each series a "
            f"column of its own if the file holds several below each other{hint}"
        )
    raise DataError(f"{describe.source}: time goes back between {describe.pair(row)}; sort the rows by time{hint}")


def _count_periods(
    ns: NDArray[np.int64], steps: NDArray[np.int64], describe: _Describe
) -> tuple[NDArray[np.int64], float, tuple[str, ...]]:
    """Return the periods in each step, the period in nanoseconds, and a note on jitter."""
    middle = (len(steps) - 1) // 2
    usual = int(np.partition(steps, middle)[middle])
    if not (steps % usual).any():
        return steps // usual, float(usual), ()
    # The mean of the single steps is far closer to the true spacing than one jittered step: it counts long gaps right.
    single = steps[np.abs(steps - usual) < usual / 2]
    spacing = float(single.mean())
    periods = steps / spacing
    counts = np.rint(periods).astype(np.int64)
    together = np.flatnonzero(counts == 0)
    if together.size:
        raise DataError(
            f"{describe.source}: {describe.pair(int(together[0]))} are closer than half the usual {usual / 1e9:g} s "
            f"({together.size} such step{'s' if together.size > 1 else ''}); resample to even steps, or take the rows "
            "as they come with data.time_column: none and data.period"
        )
    irregular = np.flatnonzero(np.abs(periods - counts) > _OFF_GRID)
    if irregular.size > _IRREGULAR_SHARE * len(steps):
        raise DataError(
            f"{describe.source}: {describe.pair(int(irregular[0]))} are {steps[irregular[0]] / 1e9:g} s apart, no "
            f"whole number of the usual {usual / 1e9:g} s, and so are {irregular.size} of {len(steps)} steps; resample "
            "to even steps, or take the rows as they come with data.time_column: none and data.period"
        )
    total = int(counts.sum())
    spacing = (int(ns[-1]) - int(ns[0])) / total
    places = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    jitter = float(np.abs(ns - ns[0] - places * spacing).max())
    for whole in _ROUND:
        rounded = round(spacing / whole) * whole
        if rounded and abs(rounded - spacing) * total <= 2 * jitter:
            spacing = float(rounded)
            break
    notes = []
    if jitter > _WORTH_A_NOTE * spacing:
        share = jitter / spacing
        notes.append(f"Time stamps lie up to {share:.0%} of a period beside an even grid of {spacing / 1e9:.9g} s.")
    if irregular.size:
        notes.append(f"{irregular.size} of {len(steps)} time steps are no whole number of periods.")
    return counts, spacing, tuple(notes)
