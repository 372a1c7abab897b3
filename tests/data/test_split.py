"""Training, validation and test rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from accel_trainer.config import SplitOptions
from accel_trainer.data.split import Rows, split_rows
from accel_trainer.data.table import Clock, Table
from accel_trainer.errors import ConfigError, DataError

HOURLY = Clock("datetime", 3600.0, 1_467_331_200 * 10**9)  # 2016-07-01, as in ETTh1


def table(rows: int, clock: Clock = HOURLY) -> Table:
    return Table(np.zeros((rows, 1), np.float32), np.ones((rows, 1), np.bool_), ("a",), ("",), clock, "bridge")


def dates(*borders: str | None) -> SplitOptions:
    return SplitOptions("date", validation_start=borders[0], test_start=borders[1], end=borders[2])


@pytest.mark.parametrize(("horizon", "windows"), [(96, 2785), (192, 2689), (336, 2545), (720, 2161)])
@pytest.mark.parametrize("context", [96, 336])
def test_ett_borders_and_test_windows_are_those_of_the_benchmark(context: int, horizon: int, windows: int) -> None:
    splits = split_rows(table(17420), SplitOptions("ett"), context, horizon)
    assert splits.train == Rows(0, 8640)
    assert splits.validation == Rows(8640 - context, 11520)
    assert splits.test == Rows(11520 - context, 14400)
    assert splits.test.windows(context, horizon) == splits.validation.windows(context, horizon) == windows


@pytest.mark.parametrize(("horizon", "windows"), [(96, 11425), (192, 11329), (336, 11185), (720, 10801)])
def test_ett_months_follow_the_period(horizon: int, windows: int) -> None:
    splits = split_rows(table(69680, Clock("datetime", 900.0)), SplitOptions("ett"), 336, horizon)
    assert splits.train.end == 34560
    assert splits.test.windows(336, horizon) == windows


def test_ratio_truncates_as_the_benchmarks_do() -> None:
    splits = split_rows(table(26304), SplitOptions(), 96, 96)
    assert splits.train == Rows(0, 18412)
    assert splits.validation == Rows(18412 - 96, 26304 - 5260)
    assert splits.test == Rows(26304 - 5260 - 96, 26304)


@given(
    rows=st.integers(1, 3000),
    train=st.floats(0.05, 0.9),
    test=st.floats(0.05, 0.9),
    context=st.integers(1, 60),
    horizon=st.integers(1, 60),
)
def test_every_split_forecasts_its_own_rows_and_all_of_them(
    rows: int, train: float, test: float, context: int, horizon: int
) -> None:
    assume(train + test < 1)
    try:
        splits = split_rows(table(rows), SplitOptions(train=train, test=test), context, horizon)
    except DataError as error:
        assert "rows of its own" in str(error)  # noqa: PT017 - either outcome is right, and each is checked
        return
    assert splits.train.begin == 0
    assert splits.validation.begin + context == splits.train.end
    assert splits.test.begin + context == splits.validation.end
    assert splits.test.end == rows
    for own, split in (
        (len(splits.validation) - context, splits.validation),
        (len(splits.test) - context, splits.test),
    ):
        assert split.windows(context, horizon) == own - horizon + 1 >= 1


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 20), st.integers(1, 20), st.integers(1, 9))
def test_windows_are_those_that_fit(begin: int, length: int, context: int, horizon: int, stride: int) -> None:
    rows = Rows(begin, begin + length)
    starts = [start for start in range(rows.begin, rows.end, stride) if start + context + horizon <= rows.end]
    assert rows.windows(context, horizon, stride) == len(starts)


@pytest.mark.parametrize(
    ("borders", "validation", "test", "end"),
    [
        (("2016-08-01", "2016-09-01", None), 31 * 24, 62 * 24, 2400),
        (("2016-08-01T00:30", "2016-09-01", "2016-10-01"), 31 * 24 + 1, 62 * 24, 92 * 24),
        (("2016-08-01T02:00+02:00", "2016-09-01T00:00Z", None), 31 * 24, 62 * 24, 2400),
        (("2016-08-01", "2016-09-01", "2016-10-09"), 31 * 24, 62 * 24, 2400),
    ],
)
def test_dates_cut_at_the_first_row_not_before_them(
    borders: tuple[str, str, str | None], validation: int, test: int, end: int
) -> None:
    splits = split_rows(table(2400), dates(*borders), 24, 24)
    assert (splits.train.end, splits.validation.end, splits.test.end) == (validation, test, end)


def test_plain_seconds_and_row_numbers_are_borders_too() -> None:
    clock = Clock("seconds", 0.01, 10**7)
    splits = split_rows(table(2000, clock), dates("10.01", "15.005", None), 50, 50)
    assert (splits.train.end, splits.validation.end) == (1000, 1500)
    splits = split_rows(table(2000, Clock("rows", 1.0)), dates("1000", "1500", "1900"), 50, 50)
    assert (splits.train.end, splits.validation.end, splits.test.end) == (1000, 1500, 1900)


def test_borders_on_a_grid_that_is_no_whole_number_of_nanoseconds() -> None:
    clock = Clock("seconds", 1 / 30, 0)
    for row in (900, 901, 902):
        label = str(clock.labels(row, row + 1)[0])
        assert split_rows(table(3000, clock), dates(label, "80", None), 10, 10).train.end == row


@pytest.mark.parametrize(
    ("options", "clock", "error", "message"),
    [
        (dates("2016-08-01", "2015-09-01", None), HOURLY, DataError, "test_start 2015-09-01 lies outside the data"),
        (dates("2016-08-01", "2026-09-01", None), HOURLY, DataError, "from 2016-07-01.* to 2016-10-08T23"),
        (dates("2016-07-01", "2016-09-01", None), HOURLY, DataError, "validation_start 2016-07-01 lies outside"),
        (dates("2016-08-01", "2016-09-01", "2016-10-10"), HOURLY, DataError, "end 2016-10-10 lies outside"),
        (dates("2016-09-01", "2016-08-01", None), HOURLY, DataError, "out of order or share a row.*end the end"),
        (dates("2016-08-01", "2016-08-01T00:00", None), HOURLY, DataError, "out of order or share a row"),
        (dates("August", "2016-08-01", None), HOURLY, ConfigError, "validation_start: 'August' is not an ISO date"),
        (dates("2016-08-01", "9", None), Clock("seconds", 1.0), ConfigError, "'2016-08-01' is not a number; write sec"),
        (dates("x", "9", None), Clock("rows", 1.0), ConfigError, "'x' is not a number; write a row number"),
        (SplitOptions("ett"), HOURLY, DataError, "needs 600 days, 14400 rows at 3600 s, but there are 2400 rows"),
        (SplitOptions("ett"), Clock("rows", 1.0), DataError, "counts months, but there is no time column"),
    ],
)
def test_borders_that_cannot_be_are_explained(
    options: SplitOptions, clock: Clock, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        split_rows(table(2400, clock), options, 24, 24)


@pytest.mark.parametrize(
    ("rows", "context", "horizon", "message"),
    [
        (1000, 700, 1, "the training split has 700 rows of its own .*one window needs 700 .* and 1 of horizon, 701"),
        (1000, 50, 101, "the validation split has 100 rows of its own .rows 700 to 800. and 50 rows of context before"),
        (1000, 50, 150, "shorten data.context or data.horizon, give the split more rows"),
        (1, 1, 1, "the training split has 0 rows"),
    ],
)
def test_a_split_without_a_window_says_what_is_needed(rows: int, context: int, horizon: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_rows(table(rows), SplitOptions(), context, horizon)


def test_validation_and_test_need_no_context_of_their_own() -> None:
    splits = split_rows(table(1000), SplitOptions(), 400, 100)
    assert splits.validation.windows(400, 100) == 1
    assert splits.test.windows(400, 100) == 101
