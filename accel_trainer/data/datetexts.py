"""Dates in regional forms into nanoseconds, the order of day and month decided over the whole column."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from accel_trainer.data.cells import as_numpy, first_true
from accel_trainer.data.columns import quoted
from accel_trainer.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Complaint = Callable[[str, int | None], DataError]
    Fields = dict[str, NDArray[np.int64]]

_CLOCK = (
    r"(?:(?:[Tt]|\s+|,\s*)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?\s*(?P<zone>[Zz]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_DATE = r"(?P<a>[0-9]{1,4})(?P<mark>[./-])(?P<b>[0-9]{1,2})(?P<second_mark>[./-])(?P<c>[0-9]{1,4})"
_MONTH_NAME = (
    r"(?i)^\s*(?:[0-9]{1,4}[\s./-]+)?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[\s.,/-]+[0-9]{1,4}"
)
DATE_LIKE = r"^\s*[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}(?:$|[Tt\s,])|" + _MONTH_NAME
"""Texts that begin as a date does, or name a month."""
_KNOWN = "ISO dates, 11.04.2022 08:36:25.984, 07/25/2019 10:28:44 and plain seconds are read"
_SECOND = 10**9


def read_date_texts(texts: Any, complain: Complaint) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Read dates of one form throughout, with or without time of day, fraction, AM/PM and UTC offset.

    A four-digit year comes first or last; a two-digit year only last, after dots or slashes, and means 20yy. With
    the year last, a first number above 12 anywhere in the column makes it the day, a second number above 12 the
    month-first order. Where neither happens, dots mean day first; for other marks the order is taken that gives the
    more even steps, and an error asks for ISO dates if both are as even. What was decided is noted.

    Args:
        texts: Arrow array of texts without surrounding blanks.
        complain: makes the error from a problem and a row.

    Returns:
        int64 [rows] nanoseconds since 1970-01-01, and notes.

    Raises:
        DataError: naming the first line that cannot be read.
    """
    import pyarrow.compute as pc

    parts = pc.extract_regex(texts, pattern=f"^{_DATE}{_CLOCK}$")
    row = first_true(parts.is_null())
    if row is not None:
        if row == 0 and first_true(pc.match_substring_regex(texts.slice(0, 1), _MONTH_NAME)) == 0:
            return _with_month_names(texts, complain)
        like = f", unlike {quoted(texts[0].as_py())} in the first row" if row else f"; {_KNOWN}"
        raise complain(f"{quoted(texts[row].as_py())} is not a time{like}", row)
    part = {name: pc.struct_field(parts, name) for name in parts.type.names}
    year_first = _one_form(part, texts, complain)
    a, b, c = (_integers(part[name]) for name in "abc")
    clock, notes = _time_of_day(part, texts, complain)
    if year_first:
        return _stamps(a, b, c, clock, texts, complain), notes
    mark = part["mark"][0].as_py()
    years = np.where(c < 100, c + 2000, c)
    if (a > 12).any():
        return _stamps(years, b, a, clock, texts, complain), notes
    if (b > 12).any():
        return _stamps(years, a, b, clock, texts, complain), notes
    day_first = _stamps(years, b, a, clock, texts, complain)
    example = quoted(texts[0].as_py())
    if mark == ".":
        return day_first, (*notes, f"Dates such as {example} were read as day.month.year.")
    month_first = _stamps(years, a, b, clock, texts, complain)
    uneven = _unevenness(day_first), _unevenness(month_first)
    if uneven[0] == uneven[1]:
        raise complain(f"{example} may be day or month first and no row tells; write dates as 2022-04-11", 0)
    order = "day first" if uneven[0] < uneven[1] else "month first"
    note = f"Dates such as {example} were read {order}, because only then are the rows evenly spaced."
    return (day_first if uneven[0] < uneven[1] else month_first), (*notes, note)


def _one_form(part: dict[str, Any], texts: Any, complain: Complaint) -> bool:
    """Check that all dates are written in one form; return whether the year comes first."""
    import pyarrow.compute as pc

    lengths = {name: pc.utf8_length(part[name]) for name in "ac"}
    year_first = lengths["a"][0].as_py() == 4
    mark = part["mark"][0].as_py()
    year = lengths["a" if year_first else "c"]
    digits = year[0].as_py()
    other = lengths["c" if year_first else "a"]
    for strange in (
        pc.not_equal(part["mark"], mark),
        pc.not_equal(part["second_mark"], mark),
        pc.not_equal(year, digits),
        pc.greater(other, 2),
    ):
        row = first_true(strange)
        if row is not None:
            like = f" in the form of {quoted(texts[0].as_py())} in the first row" if row else f"; {_KNOWN}"
            raise complain(f"{quoted(texts[row].as_py())} is not a date{like}", row)
    if digits != 4 and not (digits == 2 and mark in "./"):
        raise complain(f"{quoted(texts[0].as_py())} has no four-digit year; write dates as 2022-04-11", 0)
    return bool(year_first)


def _time_of_day(part: dict[str, Any], texts: Any, complain: Complaint) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return nanoseconds since midnight UTC (the offset taken off) of each row, and notes."""
    import pyarrow.compute as pc

    hour, minute, second = (_integers(part[name]) for name in ("hour", "minute", "second"))
    fraction = _integers(pc.utf8_rpad(part["fraction"], 9, "0"))
    half = np.asarray(pc.utf8_lower(part["half"]).to_pylist()) if _any(part["half"]) else None
    valid = (hour < 24) & (minute < 60) & (second < 60)
    if half is not None:
        valid &= (half == "") | ((hour >= 1) & (hour <= 12))
        hour = np.where(half == "", hour, hour % 12 + 12 * (half == "p"))
    _refuse(~valid, "has no valid time of day", texts, complain)
    ns = ((hour * 60 + minute) * 60 + second) * _SECOND + fraction
    if not _any(part["zone"]):
        return ns, ()
    row = first_true(pc.equal(part["zone"], ""))
    if row is not None:
        raise complain(f"{quoted(texts[row].as_py())} has no UTC offset but other rows do; write all or none", row)
    zone = pc.replace_substring_regex(part["zone"], "^(?:[Zz]|UTC|GMT)$", "+0000")
    zone = pc.replace_substring(zone, ":", "")
    sign = np.where(np.asarray(pc.starts_with(zone, "-").to_pylist()), -1, 1)
    offset = _integers(pc.utf8_slice_codeunits(zone, 1, 3)) * 3600 + _integers(pc.utf8_slice_codeunits(zone, 3, 5)) * 60
    return ns - sign * offset * _SECOND, ("Times carry a UTC offset and were converted to UTC.",)


def read_digit_dates(texts: Any) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """Read YYYYMMDD, with hh, hhmm or hhmmss behind it, or return None where the texts are plain numbers.

    They are dates if all have the same number of digits and every one is a valid date of 1900 to 2099: a counter
    would leave the calendar within a few days.
    """
    import pyarrow.compute as pc

    length = pc.min_max(pc.utf8_length(texts)).as_py()
    digits = int(length["min"])
    if length["max"] != digits or digits not in (8, 10, 12, 14):
        return None
    if not pc.all(pc.match_substring_regex(texts, "^(?:19|20)[0-9]+$")).as_py():
        return None
    year, month, day, hour, minute, second = (
        _integers(pc.utf8_slice_codeunits(texts, begin, end))
        for begin, end in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))
    )
    days, valid = _days(year, month, day)
    if not (valid & (hour < 24) & (minute < 60) & (second < 60)).all():
        return None
    note = f"Times such as {quoted(texts[0].as_py())} were read as {'YYYYMMDDhhmmss'[:digits]}."
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * _SECOND, (note,)


def _days(
    year: NDArray[np.int64], month: NDArray[np.int64], day: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return days since 1970-01-01, and which of the dates exist."""
    valid = (month >= 1) & (month <= 12) & (year >= 1678) & (year <= 2261)
    months = np.where(valid, (year - 1970) * 12 + month - 1, 0)
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days = first + day - 1
    return days, valid & (day >= 1) & (days < after)


def _stamps(
    year: NDArray[np.int64],
    month: NDArray[np.int64],
    day: NDArray[np.int64],
    clock: NDArray[np.int64],
    texts: Any,
    complain: Complaint,
) -> NDArray[np.int64]:
    """Return ns since 1970 of dates whose parts are numbers, refusing the 31st of February and its like."""
    days, valid = _days(year, month, day)
    _refuse(~valid, "is not a date of the calendar", texts, complain)
    return days * (86400 * _SECOND) + clock


def _refuse(wrong: NDArray[np.bool_], problem: str, texts: Any, complain: Complaint) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise complain(f"{quoted(texts[row].as_py())} {problem}", row)


def _unevenness(ns: NDArray[np.int64]) -> int:
    """Count the steps that go back or differ from the usual one by half of it or more."""
    steps = np.diff(ns)
    if not steps.size:
        return 0
    usual = np.median(np.abs(steps))
    return int(np.count_nonzero(np.abs(steps - usual) >= usual / 2))


def _with_month_names(texts: Any, complain: Complaint) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Read forms such as ``25-Jul-2019 10:28:44`` with pandas, all rows in the form of the first."""
    import pandas as pd
    from pandas.tseries.api import guess_datetime_format

    first = texts[0].as_py()
    form = guess_datetime_format(first)
    if form is None:
        raise complain(f"{quoted(first)} is not a time; {_KNOWN}", 0)
    offsets = "%z" in form
    times = pd.to_datetime(pd.Series(texts.to_pylist()), format=form, errors="coerce", utc=offsets)
    wrong = times.isna().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise complain(f"{quoted(texts[row].as_py())} is not in the form of {quoted(first)} in the first row", row)
    if offsets:
        times = times.dt.tz_localize(None)
    ns: NDArray[np.int64] = times.to_numpy().astype("datetime64[ns]").astype(np.int64)
    return ns, ("Times carry a UTC offset and were converted to UTC.",) if offsets else ()


def _any(part: Any) -> bool:
    import pyarrow.compute as pc

    return bool(pc.any(pc.not_equal(part, "")).as_py())


def _integers(part: Any) -> NDArray[np.int64]:
    """Return texts of digits as numbers; an absent part is 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return as_numpy(pc.if_else(pc.equal(part, ""), "0", part).cast(pa.int64()))
