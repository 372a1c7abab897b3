"""A time column in any common form into nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accel_trainer.data.cells import as_numpy, first_not_number, first_true, is_number, is_text, plain
from accel_trainer.data.columns import Columns, quoted
from accel_trainer.data.datetexts import DATE_LIKE, read_date_texts, read_digit_dates
from accel_trainer.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from accel_trainer.data.table import ClockKind

_UNITS = {
    1.0: ("", "-", "s", "sec", "second", "seconds", "sekunden"),
    1e-3: ("ms", "msec", "millisecond", "milliseconds"),
    1e-6: ("us", "µs", "μs", "microsecond", "microseconds"),
    1e-9: ("ns", "nanosecond", "nanoseconds"),
    60.0: ("min", "minute", "minutes", "minuten"),
    3600.0: ("h", "hr", "hour", "hours", "std", "stunden"),
    86400.0: ("d", "day", "days", "tage"),
}
_EPOCH = (1e9, 4e9)
"""Seconds since 1970 from 2001 to 2096. A recording does not count for 30 years, so such numbers are Unix time."""
_DAY_NUMBERS = (2e4, 1e6)
"""Days since 1900 (1954 on) or since year 0 in a column that is called a date, which seconds are not."""
_LATEST = 2**63 - 2**40


@dataclass(frozen=True)
class Stamps:
    """Time of each row of a file.

    Attributes:
        ns: int64 [rows], nanoseconds since 1970-01-01 UTC for ``datetime``, else since the count began.
        kind: ``datetime`` or ``seconds``.
        notes: how the column was understood, where it could have been otherwise.
    """

    ns: NDArray[np.int64]
    kind: ClockKind
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimeColumn:
    """A time column and how to speak of it.

    Attributes:
        array: Arrow array of timestamps, dates, numbers or texts.
        name: its header without the unit.
        unit: its unit, which matters for numbers.
        columns: the source it comes from.
    """

    array: Any
    name: str
    unit: str
    columns: Columns

    def error(self, problem: str, row: int | None = None) -> DataError:
        """Return an error that names file, column and line."""
        place = "" if row is None else f", {self.columns.place(row)}"
        return DataError(f"{self.columns.source}{place}, time column {self.name!r}: {problem}")


def is_date(array: Any) -> bool:
    """Tell whether a column holds dates, judged by its type or, for texts, by its first rows."""
    import pyarrow.compute as pc
    from pyarrow import types

    array = plain(array.slice(0, 1000))
    if types.is_timestamp(array.type) or types.is_date(array.type):
        return True
    if not is_text(array.type):
        return False
    texts = array.drop_null().slice(0, 20)
    return len(texts) > 0 and bool(pc.all(pc.match_substring_regex(texts, DATE_LIKE)).as_py())


def read_stamps(column: TimeColumn) -> Stamps:
    """Read a time column.

    Timestamps and ISO texts are taken as they are; an offset or ``Z`` converts to UTC (noted). Texts such as
    ``11.04.2022 08:36:25.984`` or ``07/25/2019 10:28`` are understood as :mod:`accel_trainer.data.datetexts` says.
    Numbers are seconds, or what the unit in the header says; numbers that would count more than thirty years are
    Unix time in s, ms, µs or ns, and 8, 10, 12 or 14 digits that are valid dates throughout are YYYYMMDD[hh[mm[ss]]].

    Raises:
        DataError: an empty cell, or one that is no time, naming the line.
    """
    from pyarrow import types

    column = TimeColumn(plain(column.array), column.name, column.unit, column.columns)
    if column.array.null_count:
        empty = first_true(column.array.is_null())
        raise column.error("no time; every row needs one", empty)
    kind = column.array.type
    if types.is_timestamp(kind) or types.is_date(kind):
        return _from_timestamps(column)
    if is_text(kind):
        return _from_texts(column)
    if is_number(kind) and not types.is_boolean(kind):
        return _from_numbers(column)
    if types.is_time(kind):
        raise column.error("holds times of day without a date; join date and time into one column")
    raise column.error(f"holds {kind}, not dates or seconds; name the right one in data.time_column")


def _from_timestamps(column: TimeColumn) -> Stamps:
    import pyarrow as pa

    kind = column.array.type
    zone = getattr(kind, "tz", None)
    try:
        ns = as_numpy(column.array.cast(pa.timestamp("ns", zone)).cast(pa.int64()))
    except pa.ArrowInvalid:
        raise column.error("dates before 1678 or after 2261 cannot be held") from None
    notes = () if zone is None else ("Times carry a UTC offset and were converted to UTC.",)
    return Stamps(ns, "datetime", notes)


def _from_texts(column: TimeColumn) -> Stamps:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(column.array)
    column = TimeColumn(texts, column.name, column.unit, column.columns)
    strange = first_not_number(texts)
    if strange is None:
        dates = read_digit_dates(texts)
        if dates is not None:
            return Stamps(dates[0], "datetime", dates[1])
        whole = not bool(pc.any(pc.match_substring_regex(texts, "[.eE]")).as_py())
        try:
            numbers = texts.cast(pa.int64() if whole else pa.float64())
        except pa.ArrowInvalid:
            numbers = texts.cast(pa.float64())
        return _from_numbers(TimeColumn(numbers, column.name, column.unit, column.columns))
    if strange:
        shown, first = quoted(texts[strange].as_py()), quoted(texts[0].as_py())
        raise column.error(f"{shown} is not a number, unlike {first} in the first row", strange)
    for zone in (None, "UTC"):
        try:
            typed = texts.cast(pa.timestamp("ns", zone))
        except pa.ArrowInvalid:
            continue
        return _from_timestamps(TimeColumn(typed, column.name, column.unit, column.columns))
    ns, notes = read_date_texts(texts, column.error)
    return Stamps(ns, "datetime", notes)


def _from_numbers(column: TimeColumn) -> Stamps:
    import pyarrow as pa

    unit = column.unit.casefold()
    scale = next((seconds for seconds, words in _UNITS.items() if unit in words), None)
    if scale is None:
        raise column.error(f"the unit {column.unit!r} is not known; write s, ms, µs, ns, min, h or d")
    if pa.types.is_integer(column.array.type):
        dates = read_digit_dates(column.array.cast(pa.string())) if unit == "" else None
        if dates is not None:
            return Stamps(dates[0], "datetime", dates[1])
        numbers = as_numpy(column.array.cast(pa.int64()))
    else:
        numbers = as_numpy(column.array.cast(pa.float64()))
        strange = np.flatnonzero(~np.isfinite(numbers))
        if strange.size:
            raise column.error(f"{numbers[strange[0]]} is not a time", int(strange[0]))
    notes: tuple[str, ...] = ()
    if unit == "":
        # Without a unit the size tells Unix time in ms, µs or ns from seconds.
        for factor, word in ((1e-3, "milliseconds"), (1e-6, "microseconds"), (1e-9, "nanoseconds")):
            if _within(numbers, _EPOCH[0] / factor, _EPOCH[1] / factor):
                scale, notes = factor, (f"Time column {column.name!r} was read as Unix time in {word}.",)
    elif scale != 1.0:
        notes = (f"Time column {column.name!r} was read in {column.unit}.",)
    limit = _LATEST / (scale * 1e9)
    beyond = np.flatnonzero(np.abs(numbers.astype(np.float64)) >= limit)
    if beyond.size:
        raise column.error(f"{numbers[beyond[0]]} is too large for a time in seconds", int(beyond[0]))
    whole = numbers.dtype == np.int64
    ns = numbers * np.int64(round(scale * 1e9)) if whole else _to_ns(numbers * scale)
    if _within(ns, _EPOCH[0] * 1e9, _EPOCH[1] * 1e9):
        if not notes:
            notes = (f"Time column {column.name!r} was read as Unix time in seconds.",)
        return Stamps(ns, "datetime", notes)
    dated = unit == "" and column.name.casefold().startswith(("date", "datum"))
    if dated and _within(numbers, *_DAY_NUMBERS):
        raise column.error(
            f"{numbers[0]} looks like a day number of a spreadsheet or MATLAB; export dates as 2022-04-11"
        )
    return Stamps(ns, "seconds", notes)


def _to_ns(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return seconds in nanoseconds, rounded to the decimals that float64 resolves at their size.

    Unix time resolves to 0.2 µs: 1564050524.25 s times 1e9 would end in …249999872.
    """
    digits = min(9, int(-np.log10(np.spacing(max(1.0, float(np.abs(seconds).max()))))))
    whole = np.floor(seconds)
    decimals = np.rint((seconds - whole) * 10**digits).astype(np.int64)
    ns: NDArray[np.int64] = whole.astype(np.int64) * 10**9 + decimals * 10 ** (9 - digits)
    return ns


def _within(values: NDArray[Any], low: float, high: float) -> bool:
    return bool(values.min() >= low and values.max() < high)
