"""Time columns of every common form, and their rows on the grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.config import DataOptions
from accel_trainer.data.clock import place_rows
from accel_trainer.data.sources import read_table
from accel_trainer.data.table import Table
from accel_trainer.errors import ConfigError, DataError

MS = 10**6
SECOND = 10**9


def read(folder: Path, stamps: list[str], header: str = "time", **options: object) -> Table:
    """Read a file of these time stamps and one sensor that counts from 1."""
    path = folder / "record.csv"
    lines = [f"{header};a", *(f"{stamp};{number}" for number, stamp in enumerate(stamps, start=1))]
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_table(DataOptions(path=str(path), **options))  # type: ignore[arg-type]


def first_times(table: Table, rows: int = 2) -> list[str]:
    return [str(label)[:23] for label in table.clock.labels(0, rows)]


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        (["2022-04-11 08:36:25", "2022-04-11 08:36:26"], ["2022-04-11T08:36:25.000", "2022-04-11T08:36:26.000"]),
        (["2022-04-11T08:36", "2022-04-11T08:37"], ["2022-04-11T08:36:00.000", "2022-04-11T08:37:00.000"]),
        (["2022-04-11", "2022-04-12"], ["2022-04-11T00:00:00.000", "2022-04-12T00:00:00.000"]),
        (["2022-04-11 00:00:00", "2022-04-11 00:00:00.010"], ["2022-04-11T00:00:00.000", "2022-04-11T00:00:00.010"]),
        (["2022-04-11 8:00", "2022-04-11 9:00"], ["2022-04-11T08:00:00.000", "2022-04-11T09:00:00.000"]),
        (["2022-04-11T08:00:00,5", "2022-04-11T08:00:01"], ["2022-04-11T08:00:00.500", "2022-04-11T08:00:01.000"]),
        (["2022-04-11T08:00Z", "2022-04-11T09:00Z"], ["2022-04-11T08:00:00.000", "2022-04-11T09:00:00.000"]),
        (["2022-04-11T08:00+02:00", "2022-04-11T09:00+02:00"], ["2022-04-11T06:00:00.000", "2022-04-11T07:00:00.000"]),
        (["2022/04/11 08:00 -0130", "2022/04/11 09:00 -0130"], ["2022-04-11T09:30:00.000", "2022-04-11T10:30:00.000"]),
        (["2022/04/11", "2022/04/12"], ["2022-04-11T00:00:00.000", "2022-04-12T00:00:00.000"]),
        (
            ["11.04.2022 08:36:25.984", "11.04.2022 08:36:26.984"],
            ["2022-04-11T08:36:25.984", "2022-04-11T08:36:26.984"],
        ),
        (["1.4.22 8:00", "1.4.22 9:00"], ["2022-04-01T08:00:00.000", "2022-04-01T09:00:00.000"]),
        (["07/25/2019 10:28:44", "07/25/2019 10:28:45"], ["2019-07-25T10:28:44.000", "2019-07-25T10:28:45.000"]),
        (["25/07/2019 10:28:44", "25/07/2019 10:28:45"], ["2019-07-25T10:28:44.000", "2019-07-25T10:28:45.000"]),
        (["07/25/2019 11:30:00 PM", "07/26/2019 12:30:00 AM"], ["2019-07-25T23:30:00.000", "2019-07-26T00:30:00.000"]),
        (["07/25/2019 12:30 p.m.", "07/25/2019 01:30 p.m."], ["2019-07-25T12:30:00.000", "2019-07-25T13:30:00.000"]),
        (["25-Jul-2019 10:28:44", "25-Jul-2019 10:28:45"], ["2019-07-25T10:28:44.000", "2019-07-25T10:28:45.000"]),
        (["20190725", "20190726"], ["2019-07-25T00:00:00.000", "2019-07-26T00:00:00.000"]),
        (["20190725102844", "20190725102845"], ["2019-07-25T10:28:44.000", "2019-07-25T10:28:45.000"]),
        (["1564050524", "1564050525"], ["2019-07-25T10:28:44.000", "2019-07-25T10:28:45.000"]),
        (["1564050524000", "1564050524010"], ["2019-07-25T10:28:44.000", "2019-07-25T10:28:44.010"]),
        (["1564050524.25", "1564050524.50"], ["2019-07-25T10:28:44.250", "2019-07-25T10:28:44.500"]),
    ],
)
def test_common_forms_of_date_are_read(tmp_path: Path, stamps: list[str], times: list[str]) -> None:
    table = read(tmp_path, stamps)
    assert table.clock.kind == "datetime"
    assert first_times(table) == times


def test_order_of_day_and_month_is_decided_over_the_whole_column(tmp_path: Path) -> None:
    days = [f"{day:02d}/07/2019" for day in range(1, 14)]
    assert first_times(read(tmp_path, days))[0].startswith("2019-07-01")
    swapped = [f"07/{day:02d}/2019" for day in range(1, 14)]
    assert first_times(read(tmp_path, swapped))[0].startswith("2019-07-01")


def test_even_steps_decide_where_no_number_does_and_the_choice_is_noted(tmp_path: Path) -> None:
    hours = [f"{month:02d}/{day:02d}/2019 {hour:02d}:00" for month in (3,) for day in (5, 6) for hour in range(24)]
    table = read(tmp_path, hours)
    assert first_times(table)[0].startswith("2019-03-05")
    assert any("month first" in note for note in table.notes)


def test_slash_dates_that_nothing_decides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2.*'03/05/2019 00:00' may be day or month first.*2022-04-11"):
        read(tmp_path, [f"03/05/2019 {hour:02d}:00" for hour in range(24)])


def test_dots_mean_day_first_and_that_is_noted(tmp_path: Path) -> None:
    table = read(tmp_path, [f"03.05.2019 {hour:02d}:00" for hour in range(24)])
    assert first_times(table)[0].startswith("2019-05-03")
    assert any("day.month.year" in note for note in table.notes)


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (["2022-04-11 08:00", ""], "line 3, time column 'time': no time"),
        (["2022-04-11 08:00", "soon"], "line 3, time column 'time': 'soon' is not a time, unlike '2022-04-11 08:00'"),
        (["1", "soon"], "line 3, time column 'time': 'soon' is not a number, unlike '1'"),
        (["soon", "later"], "line 2, time column 'time': 'soon' is not a time"),
        (["2022-04-11T08:00Z", "2022-04-11T09:00"], "line 3.*no UTC offset but other rows do"),
        (["31.02.2022", "01.03.2022"], "line 2.*'31.02.2022' is not a date of the calendar"),
        (["13/13/2022", "14/13/2022"], "line 2.*not a date of the calendar"),
        (["25/12/2022", "12/26/2022"], "line 3.*not a date of the calendar"),
        (["11.04.2022", "12/04/2022"], "line 3.*in the form of '11.04.2022'"),
        (["22-04-11", "22-04-12"], "no four-digit year"),
        (["11.04.2022 25:00", "12.04.2022 25:00"], "no valid time of day"),
        (["12:00:00", "12:00:01"], "times of day without a date"),
    ],
)
def test_what_is_no_time_is_named_with_its_line(tmp_path: Path, stamps: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, stamps)


@pytest.mark.parametrize(
    ("header", "period"),
    [
        ("time", 10.0),
        ("Time [s]", 10.0),
        ("Time (-)", 10.0),
        ("Time (ms)", 0.01),
        ("Zeit [min]", 600.0),
        ("t [h]", None),
    ],
)
def test_numbers_are_seconds_or_what_the_header_says(tmp_path: Path, header: str, period: float | None) -> None:
    table = read(tmp_path, ["0", "10", "20"], header)
    assert table.clock.period == (period or 1.0)
    assert table.clock.kind == ("seconds" if period else "rows")


def test_an_unknown_unit_of_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the unit 'furlong' is not known"):
        read(tmp_path, ["0", "10"], "time [furlong]")


def test_day_numbers_of_a_spreadsheet_are_not_taken_for_seconds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"43831\.0 looks like a day number of a spreadsheet"):
        read(tmp_path, ["43831.0", "43831.04166", "43831.08333"], "Date")
    assert read(tmp_path, ["43831.0", "43831.1"], "Time").clock.kind == "seconds"


def test_offsets_are_noted(tmp_path: Path) -> None:
    table = read(tmp_path, ["2022-04-11T08:00+02:00", "2022-04-11T09:00+02:00"])
    assert table.notes == ("Times carry a UTC offset and were converted to UTC.",)


def test_the_end_of_summer_time_is_suspected(tmp_path: Path) -> None:
    stamps = ["2020-10-25 01:30", "2020-10-25 02:00", "2020-10-25 02:30", "2020-10-25 02:00", "2020-10-25 02:30"]
    with pytest.raises(DataError, match=r"goes back between line 4 .* and line 5 .*end of summer time"):
        read(tmp_path, stamps)


def test_missing_rows_become_unobserved_rows(tmp_path: Path) -> None:
    table = read(tmp_path, ["0.01", "0.02", "0.05", "0.06"])
    assert table.clock.period == 0.01
    assert table.observed[:, 0].tolist() == [True, True, False, False, True, True]
    assert table.values[:, 0].tolist() == [1, 2, 0, 0, 3, 4]
    assert any("2 of 6 rows" in note for note in table.notes)


def test_without_a_time_column_rows_are_counted_or_spaced_by_the_period(tmp_path: Path) -> None:
    path = tmp_path / "record.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    assert read_table(DataOptions(path=str(path))).clock.kind == "rows"
    clock = read_table(DataOptions(path=str(path), period=0.5)).clock
    assert (clock.kind, clock.period) == ("seconds", 0.5)


def test_none_leaves_the_time_column_out(tmp_path: Path) -> None:
    table = read(tmp_path, ["5", "5", "1"], time_column="none", period=2.0)
    assert table.sensors == ("a",)
    assert table.clock.period == 2.0
    assert any("left out: time" in note for note in table.notes)


def test_a_stated_period_must_fit_the_stamps(tmp_path: Path) -> None:
    assert read(tmp_path, ["0", "0.0333", "0.0667", "0.1"], period=1 / 30).clock.period == 1 / 30
    with pytest.raises(ConfigError, match=r"data.period: 60 s is not the 10 s"):
        read(tmp_path, ["0", "10", "20"], period=60.0)
    assert read(tmp_path, ["7"], period=60.0).clock.period == 60.0
    with pytest.raises(DataError, match="one row"):
        read(tmp_path, ["7"])


def test_jitter_of_a_logger_moves_no_row_and_the_round_period_is_found() -> None:
    steps = np.tile([10, 11, 9], 20_000) * MS
    ns = np.concatenate([[0], np.cumsum(steps)]) + np.int64(1_646_670_915_601 * MS)
    placement = place_rows(ns, "datetime")
    assert placement.rows is None
    assert placement.length == len(ns)
    assert placement.clock.period == 0.01


def test_a_slow_clock_moves_no_row_and_its_period_is_the_mean_spacing() -> None:
    ns = np.rint(np.arange(100_000) * 0.99992 * 1000).astype(np.int64) * MS
    placement = place_rows(ns, "seconds")
    assert placement.rows is None
    assert placement.clock.period == pytest.approx(0.99992, rel=1e-6)


def test_thirty_hertz_in_whole_milliseconds() -> None:
    ns = np.rint(np.arange(3000) * 1000 / 30).astype(np.int64) * MS
    placement = place_rows(ns, "seconds")
    assert placement.rows is None
    assert placement.clock.period == pytest.approx(1 / 30, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_gaps_and_jitter_place_rows_rightly(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows = data.draw(st.integers(200, 600))
    period = data.draw(st.sampled_from([MS, 10 * MS, SECOND, 600 * SECOND, 3600 * SECOND]))
    jitter = data.draw(st.floats(0, 0.1))
    counts = np.where(rng.random(rows - 1) < 0.05, rng.integers(1, 15, rows - 1), 1)
    places = np.concatenate([[0], np.cumsum(counts)])
    ns = np.rint((places + rng.uniform(-jitter, jitter, rows)) * period).astype(np.int64)
    placement = place_rows(ns, "seconds")
    found = np.arange(rows) if placement.rows is None else placement.rows
    np.testing.assert_array_equal(found, places)
    assert placement.length == places[-1] + 1
    assert placement.clock.period * 1e9 == pytest.approx(period, rel=2 * jitter / places[-1] + 1e-12)


def grid(rows: int = 200) -> np.ndarray:
    return np.arange(rows, dtype=np.int64) * 600 * SECOND


def test_repeated_and_falling_stamps_are_refused() -> None:
    ns = grid()
    ns[50] = ns[49]
    with pytest.raises(DataError, match=r"row 50 \(29400 s\) and row 51 \(29400 s\) have the same time"):
        place_rows(ns, "seconds")
    ns[50] = ns[48]
    with pytest.raises(DataError, match=r"time goes back between row 50 .* and row 51 .*sort"):
        place_rows(ns, "seconds")


def test_two_rows_in_one_period_are_refused() -> None:
    ns = grid()
    ns[50] = ns[49] + 60 * SECOND
    with pytest.raises(DataError, match=r"row 50 .* and row 51 .* closer than half the usual 600 s"):
        place_rows(ns, "seconds")


def test_uneven_steps_are_refused_above_one_percent_and_noted_below() -> None:
    ns = grid()
    ns[100:] += 240 * SECOND
    placement = place_rows(ns, "seconds")
    assert placement.rows is None
    assert any("1 of 199 time steps" in note for note in placement.notes)
    ns[50:] += 240 * SECOND
    with pytest.raises(DataError, match=r"row 50 .* are 840 s apart, no whole number of the usual 600 s"):
        place_rows(ns, "seconds")


def test_a_gap_that_would_fill_the_memory_is_refused() -> None:
    ns = grid()
    ns[-1] += 5000 * 600 * SECOND
    with pytest.raises(DataError, match=r"row 199 .* and row 200 .* 5001 periods of 600 s apart"):
        place_rows(ns, "seconds")
