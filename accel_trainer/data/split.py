"""Training, validation and test rows, in order of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from accel_trainer.config import SplitOptions
from accel_trainer.data.table import Clock, Table
from accel_trainer.errors import ConfigError, DataError

_DAY = 86400.0
_ETT_DAYS = {"training": 12 * 30, "validation": 4 * 30, "test": 4 * 30}


@dataclass(frozen=True)
class Rows:
    """A run of rows, half open.

    Attributes:
        begin: first row; for validation and test the first row of context before the split's own rows.
        end: row after the last.
    """

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def windows(self, context: int, horizon: int, stride: int = 1) -> int:
        """Return how many windows of ``context + horizon`` rows begin every ``stride`` rows and end in time."""
        return max(0, (len(self) - context - horizon) // stride + 1)


@dataclass(frozen=True)
class Splits:
    """The three splits; the rows forecast in one are never forecast in another."""

    train: Rows
    validation: Rows
    test: Rows


def split_rows(table: Table, options: SplitOptions, context: int, horizon: int) -> Splits:
    """Cut the rows of a table into training, validation and test.

    ``ratio`` takes ``int(train * n)`` and ``int(test * n)`` rows, validation what lies between; ``date`` cuts at
    moments; ``ett`` takes 12, 4 and 4 months of 30 days from row 0 and leaves the rest unused (the protocol of the
    ETT benchmark, Zhou et al., AAAI 2021). Validation and test begin ``context`` rows early, so their number of
    windows, own rows - horizon + 1, does not depend on the context.

    Args:
        table: its clock says where dates and months lie.
        options: kind and borders.
        context: rows a window's model sees.
        horizon: rows it forecasts.

    Raises:
        ConfigError: a border that is no date or number.
        DataError: borders outside the data or out of order, or a split without one whole window.
    """
    if options.kind == "ratio":
        borders = _by_ratio(len(table), options)
    elif options.kind == "date":
        borders = _by_date(table, options)
    else:
        borders = _by_months(table)
    validation, test, end = borders
    splits = Splits(Rows(0, validation), Rows(validation - context, test), Rows(test - context, end))
    own = {"training": (0, validation), "validation": (validation, test), "test": (test, end)}
    for (name, (first, last)), rows in zip(own.items(), (splits.train, splits.validation, splits.test), strict=True):
        if rows.begin < 0 or rows.windows(context, horizon) == 0:
            raise _too_short(table, name, first, last, context, horizon)
    return splits


def _too_short(table: Table, name: str, first: int, last: int, context: int, horizon: int) -> DataError:
    before = min(context, first) if name != "training" else 0
    with_context = f" and {before} rows of context before them" if name != "training" else ""
    return DataError(
        f"{table.item_id}: the {name} split has {last - first} rows of its own (rows {first} to {last}){with_context}; "
        f"one window needs {context} rows of context and {horizon} of horizon, {context + horizon} in all; shorten "
        "data.context or data.horizon, give the split more rows in data.split, or use a longer record"
    )


def _by_ratio(rows: int, options: SplitOptions) -> tuple[int, int, int]:
    test = rows - int(options.test * rows)
    return int(options.train * rows), test, rows


def _by_months(table: Table) -> tuple[int, int, int]:
    if table.clock.kind == "rows":
        raise DataError(
            f"{table.item_id}: data.split.kind ett counts months, but there is no time column; set data.period, or use "
            "kind: ratio"
        )
    days = 0
    borders = []
    for month_days in _ETT_DAYS.values():
        days += month_days
        borders.append(round(days * _DAY / table.clock.period))
    if borders[-1] > len(table):
        raise DataError(
            f"{table.item_id}: data.split.kind ett needs {days} days, {borders[-1]} rows at {table.clock.period:g} s, "
            f"but there are {len(table)} rows; use kind: ratio"
        )
    return borders[0], borders[1], borders[2]


def _by_date(table: Table, options: SplitOptions) -> tuple[int, int, int]:
    names = ("validation_start", "test_start", "end")
    texts = (options.validation_start, options.test_start, options.end)
    borders = [
        len(table) if text is None else _row_at(table, name, text) for name, text in zip(names, texts, strict=True)
    ]
    shown = ["the end" if text is None else text for text in texts]
    if not borders[0] < borders[1] < borders[2]:
        raise DataError(
            f"{table.item_id}: data.split borders are out of order or share a row: validation_start {shown[0]}, "
            f"test_start {shown[1]}, end {shown[2]}"
        )
    return borders[0], borders[1], borders[2]


def _row_at(table: Table, name: str, text: str) -> int:
    """Return the first row at or after a moment."""
    clock = table.clock
    periods = (_moment(clock, name, text) - clock.start) / (clock.period * 1e9)
    # A thousandth of a period absorbs the rounding of periods that are no whole number of nanoseconds.
    row = math.ceil(periods - 1e-3)
    last = len(table) if name == "end" else len(table) - 1
    if not 0 < row <= last:
        first_label, last_label = (str(label) for label in clock.labels(0, len(table))[[0, -1]])
        raise DataError(
            f"{table.item_id}: data.split.{name} {text} lies outside the data, which reach from {first_label} to "
            f"{last_label}"
        )
    return row


def _moment(clock: Clock, name: str, text: str) -> int:
    """Return a border in nanoseconds, as the clock counts them."""
    key = f"data.split.{name}"
    if clock.kind != "datetime":
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds):
            unit = "seconds, as in the time column" if clock.kind == "seconds" else "a row number (there is no time)"
            raise ConfigError(key, f"{text!r} is not a number; write {unit}")
        return round(seconds * 1e9)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(key, f"{text!r} is not an ISO date such as 2025-03-01 or 2025-03-01T06:00") from None
    # Times without an offset are meant as they stand in the file; the table's clock has no zone either.
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
