"""Calendar features, for rows of the data and after its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel_trainer.data.calendar import calendar_features, calendar_names
from accel_trainer.data.table import Clock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ALL = ("second_of_minute", "minute_of_hour", "hour_of_day", "day_of_week", "day_of_month", "day_of_year")


@pytest.mark.parametrize(
    ("period", "first"),
    [(0.01, 0), (30, 0), (60, 1), (600, 1), (3600, 2), (21600, 2), (86400, 3), (7 * 86400, 4), (30 * 86400, 5)],
)
def test_features_finer_than_the_period_are_left_out(period: float, first: int) -> None:
    assert calendar_names(Clock("datetime", float(period))) == ALL[first:]


@pytest.mark.parametrize("clock", [Clock("seconds", 0.01), Clock("rows", 1.0)])
def test_without_a_calendar_there_are_no_features(clock: Clock) -> None:
    assert calendar_names(clock) == ()
    assert calendar_features(clock, 3, 10).shape == (7, 0)


@given(
    start=st.datetimes(datetime(1950, 1, 1), datetime(2150, 1, 1), timezones=st.just(UTC)),
    period=st.sampled_from([0.01, 1.0, 90.0, 600.0, 3600.0, 86400.0, 604800.0]),
    begin=st.integers(0, 3000),
    rows=st.integers(0, 50),
)
def test_features_are_those_of_the_calendar(start: datetime, period: float, begin: int, rows: int) -> None:
    clock = Clock("datetime", period, (start - EPOCH) // timedelta(microseconds=1) * 1000)
    features = calendar_features(clock, begin, begin + rows)
    names = calendar_names(clock)
    assert features.shape == (rows, len(names))
    assert features.dtype == np.float32
    for row, values in enumerate(features):
        moment = start + timedelta(microseconds=round((begin + row) * period * 1e6))
        expected = {
            "second_of_minute": moment.second / 59,
            "minute_of_hour": moment.minute / 59,
            "hour_of_day": moment.hour / 23,
            "day_of_week": moment.weekday() / 6,
            "day_of_month": (moment.day - 1) / 30,
            "day_of_year": (moment.timetuple().tm_yday - 1) / 365,
        }
        np.testing.assert_allclose(values, [expected[name] - 0.5 for name in names], atol=1e-6)


def test_features_stay_within_half_and_reach_both_ends() -> None:
    clock = Clock("datetime", 1.0, (datetime(2024, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(seconds=1) * 10**9)
    leap_year = 366 * 86400
    first, last = calendar_features(clock, 0, 1)[0], calendar_features(clock, leap_year - 1, leap_year)[0]
    np.testing.assert_array_equal(first, [-0.5] * 6)
    np.testing.assert_array_equal(last[[0, 1, 2, 4, 5]], [0.5] * 5)


def test_a_row_has_the_same_features_wherever_the_data_end() -> None:
    clock = Clock("datetime", 600.0, 1_467_331_200 * 10**9)
    whole = calendar_features(clock, 0, 2000)
    np.testing.assert_array_equal(whole[1500:], calendar_features(clock, 1500, 2000))
