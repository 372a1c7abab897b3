"""Calendar features of rows, those of the data and those after its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accel_trainer.data.table import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DAY = 86400
_SPANS = {
    "second_of_minute": 60,
    "minute_of_hour": 3600,
    "hour_of_day": _DAY,
    "day_of_week": 7 * _DAY,
    "day_of_month": 28 * _DAY,
    "day_of_year": 365 * _DAY,
}
"""Seconds after which each feature begins anew, at the least. One that does so within a period says nothing."""


def calendar_names(clock: Clock) -> tuple[str, ...]:
    """Return the names of the features of this clock: those that begin anew after more than one period.

    Clocks without a calendar (``seconds``, ``rows``) have none.
    """
    if clock.kind != "datetime":
        return ()
    return tuple(name for name, span in _SPANS.items() if clock.period < span)


def calendar_features(clock: Clock, begin: int, end: int) -> NDArray[np.float32]:
    """Return the features of rows ``begin`` to ``end - 1``, which may lie after the end of the data.

    Every feature runs from -0.5 (second 0, minute 0, hour 0, Monday, 1st, 1 January) to 0.5 (59, 59, 23, Sunday,
    31st, day 366), as in Zhou et al., "Informer", AAAI 2021.

    Args:
        clock: time of the rows.
        begin: first row.
        end: row after the last.

    Returns:
        [rows, features] in the order of :func:`calendar_names`; no features for clocks without a calendar.
    """
    names = calendar_names(clock)
    features = np.empty((end - begin, len(names)), np.float32)
    if not names:
        return features
    seconds = clock.at(begin, end) // 10**9
    days = (seconds // _DAY).astype("datetime64[D]")
    for column, name in enumerate(names):
        features[:, column] = _feature(name, seconds % _DAY, days) - 0.5
    return features


def _feature(name: str, second: NDArray[np.int64], day: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Return a feature between 0 and 1 from the second of the day and the day."""
    if name == "second_of_minute":
        return second % 60 / 59
    if name == "minute_of_hour":
        return second // 60 % 60 / 59
    if name == "hour_of_day":
        return second // 3600 / 23
    number = day.astype(np.int64)
    if name == "day_of_week":
        return (number + 3) % 7 / 6  # 1970-01-01 was a Thursday
    if name == "day_of_month":
        return (number - day.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)) / 30
    return (number - day.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)) / 365
