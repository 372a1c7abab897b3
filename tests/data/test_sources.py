"""Files of every kind that is read, as tables; and clear refusals of the rest."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from accel_trainer.config import DataOptions
from accel_trainer.data.headers import means_time
from accel_trainer.data.sources import choose_sensors, read_table
from accel_trainer.data.table import Clock, Table
from accel_trainer.errors import ConfigError, DataError, UserError

MARKERS = ("", "NaN", "nan", "NA", "null", "None", "-", "#NV", "#N/A", "inf", "-Inf", " NaN ", "ERR")


def write(folder: Path, content: str | bytes, name: str = "record.csv") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read(folder: Path, content: str | bytes, **options: object) -> Table:
    return read_table(DataOptions(path=write(folder, content), **options))  # type: ignore[arg-type]


def daily(*columns: str, rows: tuple[str, ...]) -> str:
    """Return a CSV text with these sensors and one row of readings a day."""
    lines = [f"2020-01-{day:02d},{row}" for day, row in enumerate(rows, start=1)]
    return "\n".join([",".join(("date", *columns)), *lines]) + "\n"


# ---- a round trip over everything a writer may vary


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Random sensors with units, random float32 values, about a quarter of the cells missing."""
    names = draw(
        st.lists(
            st.text(string.ascii_letters + "_ä", min_size=1, max_size=8).filter(lambda name: not means_time(name)),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    rows = draw(st.integers(2, 12))
    cells = st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False))
    readings = [[draw(cells) for _ in names] for _ in range(rows)]
    observed = np.array([[cell is not None for cell in row] for row in readings])
    values = np.array([[cell or 0.0 for cell in row] for row in readings], np.float32)
    units = tuple(draw(st.sampled_from(["", "kN", "µm/m", "°C", "m/s²"])) for _ in names)
    period = draw(st.sampled_from([0.01, 1.0, 600.0, 3600.0]))
    kind = draw(st.sampled_from(["datetime", "seconds"]))
    start = 1_650_000_000 * 10**9 if kind == "datetime" else 10**7
    return Table(values, observed, tuple(names), units, Clock(kind, period, start))  # type: ignore[arg-type]


def assert_same(found: Table, expected: Table) -> None:
    assert (found.sensors, found.units) == (expected.sensors, expected.units)
    assert found.clock == expected.clock
    np.testing.assert_array_equal(found.observed, expected.observed)
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.values.dtype == np.float32


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_table_survives_csv(tmp_path: Path, data: st.DataObject) -> None:
    table = data.draw(tables())
    separator = data.draw(st.sampled_from([",", ";", "\t"]))
    ending = data.draw(st.sampled_from(["\n", "\r\n"]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1"]))
    brackets = data.draw(st.sampled_from([" [{}]", " ({})", "[{}]"]))
    trailing = data.draw(st.sampled_from(["", separator]))
    labels = table.clock.labels(0, len(table))
    if table.clock.kind == "datetime":
        form = data.draw(st.sampled_from(["%Y-%m-%d %H:%M:%S.%f", "%d.%m.%Y %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%fZ"]))
        stamps = [label.astype("datetime64[us]").item().strftime(form) for label in labels]
    else:
        stamps = [repr(round(float(label), 9)) for label in labels]
    headers = [
        name + (brackets.format(unit) if unit else "") for name, unit in zip(table.sensors, table.units, strict=True)
    ]
    lines = [separator.join(["Time (-)", *headers]) + trailing]
    for stamp, values, observed in zip(stamps, table.values, table.observed, strict=True):
        cells = [
            str(value) if seen else data.draw(st.sampled_from(MARKERS))
            for value, seen in zip(values, observed, strict=True)
        ]
        lines.append(separator.join([stamp, *cells]) + trailing)
    content = ending.join(lines + data.draw(st.sampled_from([[], [""]])))
    found = read(tmp_path, content.encode(encoding), missing=["err"])
    assert_same(found, table)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_table_survives_parquet(tmp_path: Path, data: st.DataObject) -> None:
    table = data.draw(tables())
    unit = data.draw(st.sampled_from(["ms", "us", "ns"]))
    labels = table.clock.labels(0, len(table))
    time_column = pa.array(labels.astype(f"datetime64[{unit}]") if table.clock.kind == "datetime" else labels)
    columns = {"timestamp": time_column}
    for name, sensor_unit, values, seen in zip(
        table.sensors, table.units, table.values.T, table.observed.T, strict=True
    ):
        kind = data.draw(st.sampled_from([pa.float32(), pa.float64()]))
        gone = data.draw(st.sampled_from(["null", "nan", "inf"]))
        nothing = {"nan": np.nan, "inf": -np.inf}.get(gone)
        cells = [float(value) if here else nothing for value, here in zip(values, seen, strict=True)]
        columns[f"{name} [{sensor_unit}]" if sensor_unit else name] = pa.array(cells, kind)
    path = tmp_path / "record.parquet"
    parquet.write_table(pa.table(columns), path)
    assert_same(read_table(DataOptions(path=str(path))), table)


# ---- headers


def test_units_are_split_from_names_and_micro_is_written_as_such(tmp_path: Path) -> None:
    table = read(tmp_path, "Time (-),DMS_AS [um/m],FRC-01 (kN),plain\n0,1,2,3\n1,1,2,3\n")
    assert table.sensors == ("DMS_AS", "FRC-01", "plain")
    assert table.units == ("µm/m", "kN", "")


def test_brackets_that_alone_tell_names_apart_stay(tmp_path: Path) -> None:
    table = read(tmp_path, "time;T (north);T (south);H [%]\n0;1;2;3\n1;1;2;3\n")
    assert table.sensors == ("T (north)", "T (south)", "H")
    assert table.units == ("", "", "%")


def test_a_trailing_separator_is_no_column(tmp_path: Path) -> None:
    for header, row in (("date,a,", "1,"), ("date,a,", "1"), ("date,a", "1,")):
        content = "\n".join([header, *(f"2020-01-0{day},{row}" for day in (1, 2))])
        assert read(tmp_path, content).sensors == ("a",)


def test_the_nameless_index_of_pandas_is_the_time_if_it_holds_dates(tmp_path: Path) -> None:
    assert read(tmp_path, ",a\n2020-01-01,1\n2020-01-02,2\n").clock.period == 86400
    with pytest.raises(DataError, match="column 1 has no name but holds '0' in line 2"):
        read(tmp_path, ",a\n0,1\n1,2\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("date,a,a\n2020-01-01,1,2\n", "columns 2 and 3 are both named 'a'"),
        ("date,a,\n2020-01-01,1,\n2020-01-02,1,7\n", "column 3 has no name but holds '7' in line 3"),
        ("0.01,5,6\n0.02,5,6\n", r"the first line \(0.01, 5, 6\) holds readings; a header line"),
        ("2020-01-01 00:00,5\n2020-01-01 01:00,5\n", "holds readings; a header line"),
        ("date,time,a\n2020-01-01,1,1\n", "'date', 'time' could each be the time; name one in data.time_column"),
        ("time\n1\n2\n", "has no column of readings, only time"),
        ("name,place,n\nx,y,1\nz,w,2\n", r"not a table of readings: 2 of its 3 .*'x' under 'name'"),
    ],
)
def test_headers_that_would_be_misread_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_numbered_meters_are_names(tmp_path: Path) -> None:
    assert read(tmp_path, "0,1,2\n5,6,7\n8,9,9\n").sensors == ("0", "1", "2")


def test_a_named_time_column_leaves_other_times_out(tmp_path: Path) -> None:
    table = read(tmp_path, "date,time,a\n2020-01-01,5,1\n2020-01-02,6,2\n", time_column="date")
    assert table.sensors == ("a",)
    assert any("left out: time" in note for note in table.notes)
    with pytest.raises(DataError, match=r"no column 'dat' \(data.time_column\); did you mean 'date'"):
        read(tmp_path, daily("a", rows=("1",)), time_column="dat")


def test_the_only_column_of_dates_is_the_time(tmp_path: Path) -> None:
    assert read(tmp_path, "a,measured\n1,01.02.2020\n2,02.02.2020\n").clock.period == 86400


# ---- cells


def test_markers_that_are_numbers_match_by_value(tmp_path: Path) -> None:
    table = read(tmp_path, daily("a", rows=("1", "-999", "-999.00", "2")), missing=["-999"])
    assert table.observed[:, 0].tolist() == [True, False, False, True]
    path = tmp_path / "record.parquet"
    parquet.write_table(pa.table({"a": pa.array([1.0, -999.9], pa.float32())}), path)
    table = read_table(DataOptions(path=str(path), missing=["-999.9"]))
    assert table.observed[:, 0].tolist() == [True, False]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("bad", "line 3, column 'b': 'bad' is not a number; if it means no reading, add it to data.missing"),
        ("1e39", "line 3, column 'b': '1e\\+39' is beyond the range of float32"),
        ("1e999", "line 3, column 'b': '1e999' is beyond the range of float32"),
        ("12:30", "line 3, column 'b': '12:30' is not a number"),
        ("true", "line 3, column 'b': 'true' is not a number"),
        ('"1,5"', "line 3, column 'b': '1,5' needs a decimal point, not a comma"),
    ],
)
def test_cells_that_are_no_numbers_are_named(tmp_path: Path, cell: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, daily("a", "b", rows=("1,2", f"1,{cell}", "1,2")))


def test_infinity_in_unusual_spelling_is_missing_wherever_its_column_stands(tmp_path: Path) -> None:
    content = "time,,a,b\n1,,5, Inf \n2,,6,2\n,,,\n"
    table = read(tmp_path, content)
    assert table.observed.tolist() == [[True, False], [True, True]]
    assert table.values.tolist() == [[5, 0], [6, 2]]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    content = '\ndate,"a\n[g]"\n2020-01-01,1\n\n2020-01-02,1\n2020-01-03,bad\n'
    with pytest.raises(DataError, match="line 7, column"):
        read(tmp_path, content)


def test_a_bad_cell_far_down_a_long_file_is_found(tmp_path: Path) -> None:
    rows = [f"{number},1234567890,1234567890,1234567890,1234567890" for number in range(150_000)]
    rows[140_000] = "140000,1,bad,1,1"
    with pytest.raises(DataError, match="line 140002, column 'b': 'bad'"):
        read(tmp_path, "time,a,b,c,d\n" + "\n".join(rows))


def test_text_columns_are_passed_over_when_no_one_asks_for_them(tmp_path: Path) -> None:
    content = daily("a", "status", rows=("1,ok", "2,ok"))
    table = read(tmp_path, content, targets=["a"])
    assert table.sensors == ("a",)
    assert any("left out: status" in note for note in table.notes)
    with pytest.raises(DataError, match="column 'status': 'ok' is not a number"):
        read(tmp_path, content, targets=["a"], covariates=["*"])


def test_truth_values_decimals_and_categories_of_parquet_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "record.parquet"
    columns = {
        "open": pa.array([True, None, False]),
        "load": pa.array([Decimal("1.00"), Decimal("2.00"), Decimal("3.00")]),
        "grade": pa.array(["1", "#NV", "2.5"]).dictionary_encode(),
        "empty": pa.nulls(3),
        "count": pa.array([1, 2, None], pa.int16()),
    }
    parquet.write_table(pa.table(columns), path)
    table = read_table(DataOptions(path=str(path)))
    np.testing.assert_array_equal(table.values, [[1, 1, 1, 0, 1], [0, 2, 0, 0, 2], [0, 3, 2.5, 0, 0]])
    assert table.observed.sum(axis=0).tolist() == [2, 3, 2, 0, 2]


def test_blank_lines_are_missing_readings_of_a_single_column_only(tmp_path: Path) -> None:
    assert read(tmp_path, "a\n1\n\n3\n\n\n").observed[:, 0].tolist() == [True, False, True]
    assert len(read(tmp_path, "a,b\n1,2\n\n3,4\n\n")) == 2


def test_empty_rows_at_the_end_are_left_out(tmp_path: Path) -> None:
    table = read(tmp_path, daily("a", rows=("1", "2")) + ",\n,\n")
    assert len(table) == 2
    assert any("2 empty rows" in note for note in table.notes)


# ---- Parquet and datasets


def test_indexes_of_pandas_are_the_time_or_left_out(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "record.parquet"
    days = pd.date_range("2020-01-01", periods=3, tz="Europe/Berlin")
    pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=days).to_parquet(path)
    table = read_table(DataOptions(path=str(path)))
    assert str(table.clock.labels(0, 1)[0])[:13] == "2019-12-31T23"
    pd.DataFrame({"a": [1.0, 2.0]}, index=[7, 9]).to_parquet(path)
    table = read_table(DataOptions(path=str(path)))
    assert table.sensors == ("a",)
    assert any("index" in note for note in table.notes)


def test_lists_in_cells_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.parquet"
    parquet.write_table(pa.table({"target": [[1.0, 2.0], [3.0]]}), path)
    with pytest.raises(DataError, match=r"column 'target' holds list<.*wide table"):
        read_table(DataOptions(path=str(path)))


def test_a_datasets_folder_is_read_in_its_own_order(tmp_path: Path) -> None:
    import datasets

    rows = {"date": ["2020-01-02", "2020-01-01", "2020-01-03"], "a [g]": [2.0, 1.0, None]}
    datasets.Dataset.from_dict(rows).select([1, 0, 2]).save_to_disk(str(tmp_path / "set"))
    table = read_table(DataOptions(path=str(tmp_path / "set")))
    assert (table.sensors, table.units, table.item_id) == (("a",), ("g",), "set")
    assert table.values[:, 0].tolist() == [1, 2, 0]
    assert table.observed[:, 0].tolist() == [True, True, False]


def test_several_splits_of_a_datasets_folder_must_be_told_apart(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"a": [1.0, 2.0]})
    datasets.DatasetDict(train=data).save_to_disk(str(tmp_path / "one"))
    assert len(read_table(DataOptions(path=str(tmp_path / "one")))) == 2
    datasets.DatasetDict(train=data, test=data).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DataError, match=r"holds 2 splits.*two/train, .*two/test"):
        read_table(DataOptions(path=str(tmp_path / "two")))
    assert len(read_table(DataOptions(path=str(tmp_path / "two" / "test")))) == 2


# ---- what is not read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("date,a\n", "has a header line and no rows"),
        ("date,a\n\n", "has a header line and no rows"),
        ("a\n", "has a header line and no rows"),
        ("date,a\n2020-01-01,1\n2020-01-02,1,2\n", "line 3: 3 fields, but the header has 2"),
        ("date,a\n2020-01-01,1\n2020-01-02\n", "line 3: 1 field, but the header has 2"),
        (b"\x89PNG\x00\x01", "is not a text file"),
        (b"PAR1....", "is a Parquet file; let its name end in .parquet"),
        (b"PK\x03\x04....", "is an Excel or zip file; save the sheet as CSV"),
        ("date,a\n2020-01-01,1\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_paths_that_lead_nowhere_are_explained(tmp_path: Path) -> None:
    write(tmp_path, "a,b\n1,2\n")
    for path, message in (
        ("recrod.csv", "recrod.csv does not exist; did you mean 'record.csv'"),
        ("none/record.csv", "does not exist, nor does its folder"),
        (".", r"is a folder, but not one written by datasets.save_to_disk; give one of its files: record.csv"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(DataOptions(path=str(tmp_path / path)))
    for name, message in (
        ("record.xlsx", r"is of a kind that is not read; read are \.csv"),
        ("record.parquet", "cannot be read as Parquet"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(DataOptions(path=write(tmp_path, "junk", name)))
    with pytest.raises(ConfigError, match=r"data\.path: is not set"):
        read_table(DataOptions())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from([*',;\t\n\n"1', "date", "a", "2.5", "2020-01-01", "1.2.20", "x", "°", "NaN", "1e999", "12:00"]),
        max_size=40,
    ),
    st.sampled_from(["utf-8", "latin-1"]),
)
def test_whatever_a_file_holds_the_answer_is_a_table_or_a_user_error(
    tmp_path: Path, parts: list[str], encoding: str
) -> None:
    try:
        table = read(tmp_path, "".join(parts).encode(encoding))
    except UserError:
        return
    assert np.isfinite(table.values).all()
    assert not table.values[~table.observed].any()


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path, daily("a", rows=("1", "2")))
    code = (
        "import sys; from accel_trainer.config import DataOptions; from accel_trainer.data.sources import read_table\n"
        "assert not {'pyarrow', 'pandas', 'datasets'} & set(sys.modules)\n"
        f"read_table(DataOptions(path={path!r})); assert not {{'torch', 'pandas', 'datasets'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- choosing sensors


def bridge() -> Table:
    sensors = ("T", "strain_2", "strain_1", "wind", "dead")
    observed = np.ones((3, 5), np.bool_)
    observed[:, 4] = False
    values = np.where(observed, np.arange(15, dtype=np.float32).reshape(3, 5), 0).astype(np.float32)
    return Table(values, observed, sensors, ("°C", "µm/m", "µm/m", "m/s", ""), Clock("rows", 1.0), "bridge")


@pytest.mark.parametrize(
    ("targets", "covariates", "sensors", "count"),
    [
        ([], [], ("T", "strain_2", "strain_1", "wind"), 4),
        (["wind", "T"], [], ("wind", "T"), 2),
        (["strain_*"], ["*"], ("strain_2", "strain_1", "T", "wind"), 2),
        (["strain_1", "strain_*"], [], ("strain_1", "strain_2"), 2),
        ([], ["T", "wind"], ("strain_2", "strain_1", "T", "wind"), 2),
        (["strain_*"], ["strain_1"], ("strain_2", "strain_1"), 1),
        (["strain_1 [um/m]"], ["wind (m/s)"], ("strain_1", "wind"), 1),
        (["[Tw]*"], [], ("T", "wind"), 2),
    ],
)
def test_targets_come_first_then_covariates(
    targets: list[str], covariates: list[str], sensors: tuple[str, ...], count: int
) -> None:
    table, targets_found = choose_sensors(bridge(), targets, covariates)
    assert table.sensors == sensors
    assert targets_found == count
    for name in sensors:
        column = table.values[:, table.sensors.index(name)]
        np.testing.assert_array_equal(column, bridge().values[:, bridge().sensors.index(name)])


@pytest.mark.parametrize(
    ("targets", "covariates", "message"),
    [
        (["strain_3"], [], r"no sensor 'strain_3'; did you mean 'strain_[12]'"),
        (["t"], [], "did you mean 'T'"),
        (["tilt_*"], [], r"no sensor 'tilt_\*'"),
        (["dead"], [], "'dead' has no reading in any row"),
        (["T"], ["dead"], "'dead' has no reading in any row"),
        (["d*"], [], "no target has a reading"),
        (["T [°C]"], ["T"], "'T' is among data.targets and data.covariates"),
        ([], ["*"], "data.covariates takes every sensor"),
    ],
)
def test_choices_that_cannot_be_met_are_explained(targets: list[str], covariates: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_sensors(bridge(), targets, covariates)


def test_sensors_without_readings_are_left_out_and_named() -> None:
    table, _ = choose_sensors(bridge(), [], [])
    assert table.notes == ("Sensors without a single reading were left out: dead.",)


# ---- real files


def real(name: str) -> DataOptions:
    folder = os.environ.get("ACCEL_TRAINER_DATA")
    if not folder:
        pytest.skip("ACCEL_TRAINER_DATA is not set")
    return DataOptions(path=str(Path(folder) / name))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "rows", "sensors", "period", "start"),
    [
        ("ETT/ETTh1.csv", 17420, 7, 3600, "2016-07-01T00:00:00"),
        ("munich/ReferenceStateForceAt100Hz.csv", 60000, 2, 0.01, "2022-03-07T16:35:15.601"),
        ("munich/UniBw_2022-04-11_ref_support_load_01AllM100.0Hz.csv", 72000, 4, 0.01, "2022-11-04T08:36:24.897"),
        ("munich/airtemp_UniBw_2022-04-11_ref_load_01.csv", 719, 1, 1, "2022-04-11T08:36:25.984"),
        ("nebraska/CONC_15MPH_02_SHEET1.csv", 2050, 44, 0.01, "0.01"),
        ("nebraska/STEEL_50MPH_06_SHEET1.csv", 1325, 36, 0.01, "0.01"),
        ("nebraska/PonkaConcreteBridge_R11_07_25_2019_10_28_44_SHEET2.csv", 3409, 32, 0.01, "0.01"),
    ],
)
def test_real_measurements_are_read_as_they_are(name: str, rows: int, sensors: int, period: float, start: str) -> None:
    table = read_table(real(name))
    assert table.values.shape == (rows, sensors)
    assert table.clock.period == pytest.approx(period, rel=1e-4)
    assert str(table.clock.labels(0, 1)[0]).startswith(start)


@pytest.mark.realdata
def test_real_cells_units_and_empty_channels() -> None:
    table = read_table(real("munich/airtemp_UniBw_2022-04-11_ref_load_01.csv"))
    assert (table.sensors, table.units) == (("Air Temperature",), ("°C",))
    assert table.values[0, 0] == np.float32(1.60000002384186)
    concrete = read_table(real("nebraska/CONC_15MPH_02_SHEET1.csv"))
    assert concrete.values[0, 2] == np.float32(1.474429531)
    chosen, _ = choose_sensors(concrete, [], [])
    assert len(chosen.sensors) == 40
    assert "IW4-0631-0-CHAN-1" in chosen.notes[-1]


@pytest.mark.realdata
def test_metadata_beside_the_data_is_no_table() -> None:
    with pytest.raises(DataError, match=r"is not a table of readings.*'PonkaConcreteBridge_R11.*under 'Root Name'"):
        read_table(real("nebraska/PonkaConcreteBridge_R11_07_25_2019_10_28_44_SHEET1.csv"))


@pytest.mark.realdata
def test_etth1_is_read_fast() -> None:
    options = real("ETT/ETTh1.csv")
    read_table(options)
    begin = time.perf_counter()
    read_table(options)
    assert time.perf_counter() - begin < 0.3
