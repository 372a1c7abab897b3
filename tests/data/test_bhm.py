"""The built-in bridge: what it promises about physics, faults, randomness and files."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.data import bhm
from accel_trainer.data.bhm import FAULT_CLASSES, BridgeOptions, generate, write_parquet
from accel_trainer.data.bhm_faults import LABEL, daily_scale, drift, minor, outlier, square, trend
from accel_trainer.data.bhm_physics import BRIDGES, POSITIONS, SPAN
from accel_trainer.data.bhm_sensors import catalogue
from accel_trainer.data.bhm_series import fluctuation, lagged, row_means, stream
from accel_trainer.errors import ConfigError, DataError

DAY = 144  # rows of ten minutes


@pytest.fixture(scope="module")
def year():
    return generate(BridgeOptions())


def column(record, name):
    return record.clean[:, record.table.sensors.index(name)].astype(float)


def load(sensors=2, **options):
    """Load-induced part of each sensor: halving the stiffness doubles it and leaves the rest."""
    whole = BridgeOptions(sensors=sensors, faults=False, **options)
    halved = BridgeOptions(sensors=sensors, faults=False, damage=0.5, damage_day=0.0, **options)
    return generate(halved).clean.astype(float) - generate(whole).clean.astype(float)


# --- the record -------------------------------------------------------------------------------------------------------


def test_default_record_is_a_year_of_24_sensors(year):
    table = year.table
    assert table.values.shape == year.clean.shape == year.labels.shape == (365 * DAY, 24)
    assert (table.values.dtype, year.clean.dtype, year.labels.dtype) == (np.float32, np.float32, np.int8)
    assert table.clock.kind == "datetime"
    assert table.clock.labels(0, 2).astype(str).tolist()[1] == "2025-01-01T00:10:00.000000000"
    assert set(table.units) == {"mm", "µε", "°", "m/s²", "°C", "%", "m/s", "kN", "Hz"}
    assert not year.damaged.any()


def test_labels_tell_the_truth_about_every_reading(year):
    table = year.table
    assert np.array_equal(year.labels == LABEL["missing"], ~table.observed)
    normal = year.labels == LABEL["normal"]
    assert np.array_equal(table.values[normal], year.clean[normal])
    assert not table.values[~table.observed].any()
    faulty = table.observed & ~normal
    assert (table.values != year.clean)[faulty].mean() > 0.99


def test_generating_a_year_takes_less_than_two_seconds():
    began = time.perf_counter()
    generate(BridgeOptions(seed=3))
    assert time.perf_counter() - began < 2


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3000),
    period=st.sampled_from([1.0, 7.5, 59.9, 60.0, 1000 / 3, 600.0, 900.0, 3600.0, 86400.0]),
    sensors=st.integers(1, 70),
    seed=st.integers(0, 2**63 - 1),
    damage=st.sampled_from([0.0, 0.3, 0.99]),
    kind=st.sampled_from(["concrete", "steel"]),
    start=st.sampled_from(["2024-02-28T23:30", "1999-12-31", "1931-06-01"]),
)
def test_any_size_is_finite_and_labelled(rows, period, sensors, seed, damage, kind, start):
    days = rows * period / 86400
    record = generate(BridgeOptions(days, period, sensors, start, seed, damage=damage, kind=kind))
    assert record.table.values.shape == (rows, sensors)
    assert np.isfinite(record.clean).all()
    assert np.isfinite(record.table.values).all()
    assert record.labels.min() >= 0
    assert record.labels.max() < len(FAULT_CLASSES)
    assert damage > 0 or not record.damaged.any()


@pytest.mark.parametrize("options", [{"days": 3000, "period": 86400}, {"days": 1 / 86400, "period": 1}])
def test_extreme_records_are_finite(options):
    assert np.isfinite(generate(BridgeOptions(sensors=24, **options)).table.values).all()


def test_a_record_larger_than_memory_is_refused():
    with pytest.raises(ConfigError, match=r"data\.bhm\.days.*GB of memory"):
        generate(BridgeOptions(days=36525, period=1, sensors=1000))


# --- randomness -------------------------------------------------------------------------------------------------------


def test_same_options_give_the_same_bridge_on_any_number_of_threads():
    code = (
        "from accel_trainer.data.bhm import *; r = generate(BridgeOptions(days=40)); "
        "print(r.table.digest, hash(r.labels.tobytes()))"
    )
    found = set()
    for threads in ("1", "4"):
        keys = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(keys, threads) | {"PYTHONHASHSEED": "0"}
        found.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert len(found) == 1


def test_another_seed_is_another_bridge():
    first, second = (generate(BridgeOptions(days=3, seed=seed)) for seed in (1, 2))
    assert not np.any(first.clean == second.clean)


def test_faults_do_not_touch_the_clean_signal():
    options = {"days": 30, "sensors": 30}
    faulty, healthy = generate(BridgeOptions(**options)), generate(BridgeOptions(**options, faults=False))
    assert np.array_equal(faulty.clean, healthy.clean)
    assert np.array_equal(healthy.table.values, healthy.clean)
    assert healthy.table.observed.all()
    assert not healthy.labels.any()


def test_more_sensors_leave_the_first_ones_as_they_are():
    few, many = (generate(BridgeOptions(days=20, sensors=sensors)) for sensors in (5, 40))
    assert many.table.sensors[:5] == few.table.sensors
    assert np.array_equal(many.table.values[:, :5], few.table.values)
    assert np.array_equal(many.labels[:, :5], few.labels)


def test_sensors_are_distinct_and_start_with_a_deflection():
    names = [sensor.name for sensor in catalogue(1000)]
    assert names[0] == "deflection_mid"
    assert len(set(names)) == 1000
    assert all(0 <= sensor.x <= SPAN for sensor in catalogue(1000))


# --- physics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bridge", BRIDGES.values(), ids=BRIDGES.keys())
def test_influence_lines_are_those_of_a_simple_beam(bridge):
    middle = len(POSITIONS) // 2
    assert bridge.deflection_line(SPAN / 2)[middle] == pytest.approx(-1e6 * SPAN**3 / (48 * bridge.stiffness))
    assert bridge.strain_line(SPAN / 2)[middle] == pytest.approx(1e9 * SPAN / 4 * bridge.lever / bridge.stiffness)
    assert bridge.deflection_line(0.0) == pytest.approx(0.0)
    step = 1e-4
    for x in (0.0, 13.2, 30.0, 47.7, SPAN - step):
        slope = (bridge.deflection_line(x + step) - bridge.deflection_line(x)) / step  # mm per m
        assert np.rad2deg(slope / 1e3) == pytest.approx(bridge.slope_line(x), abs=1e-6 * 57)
    # Maxwell: the deflection at a under a load at b is that at b under a load at a.
    assert bridge.deflection_line(POSITIONS[30])[75] == pytest.approx(bridge.deflection_line(POSITIONS[75])[30])


def test_a_truck_strains_the_bridges_as_measured():
    """Nebraska load tests: 22-24 µε on short concrete spans, 108-153 on steel; this concrete span is longer."""
    peaks = {kind: 400 * bridge.strain_line(SPAN / 2).max() for kind, bridge in BRIDGES.items()}
    assert 20 < peaks["concrete"] < 60
    assert 100 < peaks["steel"] < 160


def test_temperatures_have_the_published_range_and_hours(year):
    air, top, bottom = (column(year, name) for name in ("temp_air", "temp_top", "temp_bottom"))
    months = [air[k * 30 * DAY : (k + 1) * 30 * DAY].mean() for k in range(12)]
    assert -11 < min(months) < -4
    assert 14 < max(months) < 22
    uniform = 0.35 * top + 0.65 * bottom
    day = uniform.reshape(-1, DAY).mean(axis=0)
    assert 14 <= day.argmax() / 6 <= 15.5
    assert 4 <= day.argmin() / 6 <= 6
    assert 5 < np.ptp(day) < 8
    difference = top - bottom
    assert 11 < difference.max() < 17
    assert 12.5 <= difference.reshape(-1, DAY).mean(axis=0).argmax() / 6 <= 14


def test_deflection_follows_the_mean_temperature_after_half_an_hour_to_an_hour(year):
    kernel = np.ones(DAY) / DAY
    deflection, temperature = (
        (x - np.convolve(x, kernel, "same"))[DAY:-DAY]
        for x in (column(year, "deflection_mid"), (column(year, "temp_top") + column(year, "temp_bottom")) / 2)
    )
    lags = range(13)
    correlation = [np.corrcoef(deflection[lag:], temperature[: len(temperature) - lag])[0, 1] for lag in lags]
    assert 30 <= 10 * int(np.argmax(correlation)) <= 70
    daily_range = np.ptp(column(year, "deflection_mid").reshape(-1, DAY), axis=1).mean()
    assert 4 < daily_range < 92


def test_bearing_expands_as_steel_and_concrete_do(year):
    uniform = 0.35 * column(year, "temp_top") + 0.65 * column(year, "temp_bottom")
    per_degree = np.polyfit(uniform, column(year, "bearing_left"), 1)[0]
    assert per_degree == pytest.approx(12e-6 * 120e3, rel=0.1)


def test_vibration_follows_wind_and_stays_below_the_alarm(year):
    rms, wind = column(year, "accel_rms_mid"), column(year, "wind_speed")
    assert 0.6 < np.corrcoef(rms, wind)[0, 1] < 0.95
    assert 0 < rms.min() < rms.max() < 0.315
    assert 10 < wind.max() < 25
    hours = [np.corrcoef(wind[lag:], wind[:-lag])[0, 1] for lag in (1, 6, 36, 144)]
    assert hours[0] > 0.85
    assert all(near > far for near, far in pairwise(hours))


def test_lorries_rest_on_sundays():
    strain = load(days=28, start="2025-03-03")[:, 1].reshape(4, 7, DAY).mean(axis=(0, 2))
    assert strain[6] < 0.4 * strain[1:4].mean()
    assert strain[6] < strain[5] < strain[1:4].min()


def test_traffic_means_agree_between_single_lorries_and_sums():
    single = load(days=2, period=10, start="2025-03-04")[:, 1].reshape(-1, 60).mean(axis=1)
    summed = load(days=2, period=600, start="2025-03-04")[:, 1]
    assert single.mean() == pytest.approx(summed.mean(), rel=0.05)
    noise = [np.diff(x).std() for x in (single, summed)]
    assert noise[0] == pytest.approx(noise[1], rel=0.25)


def test_seconds_show_single_lorries():
    strain = load(days=0.1, period=1, start="2025-03-04T11:00")[:, 1]
    assert 20 < strain.max() < 120
    assert np.median(strain) < 1.5
    one_lorry = strain > strain.max() / 2
    assert 1 <= one_lorry[max(strain.argmax() - 3, 0) : strain.argmax() + 4].sum() <= 4  # 2.6 s on the bridge


def test_day_ahead_yesterday_beats_now_and_neither_is_perfect(year):
    """Real bridge, 10 min, 7.5 days: deflection .726 against .395 a day ahead, .418 against .379 four hours ahead."""
    deflection = column(year, "deflection_mid")
    scores = {}
    for horizon in (24, DAY):
        errors = []
        for week in deflection[: 48 * 1080].reshape(48, 1080):
            z = (week - week.mean()) / week.std()
            ends = np.arange(DAY, 1080 - horizon, 5)
            future = z[ends[:, None] + np.arange(horizon)]
            yesterday = z[ends[:, None] + np.arange(horizon) - DAY]
            errors.append((np.abs(future - z[ends - 1, None]).mean(), np.abs(future - yesterday).mean()))
        scores[horizon] = np.mean(errors, axis=0)
    assert 0.33 < scores[24][0] < 0.55
    assert 0.28 < scores[24][1] < 0.48
    assert scores[DAY][1] < 0.6 * scores[DAY][0]


def test_creep_sags_concrete_more_than_steel():
    falls = {}
    for kind in ("concrete", "steel"):
        record = generate(BridgeOptions(days=3 * 365, period=3600, sensors=1, kind=kind, faults=False))
        deflection = column(record, "deflection_mid").reshape(3, 365 * 24).mean(axis=1)
        falls[kind] = deflection[0] - deflection[2]
    assert 1.5 < falls["concrete"] < 7
    assert falls["steel"] < falls["concrete"] / 2


# --- damage -----------------------------------------------------------------------------------------------------------


def test_damage_scales_load_and_frequency_and_nothing_else():
    options = {"days": 12, "faults": False, "damage_day": 8.0}
    healthy, cracked, worse = (generate(BridgeOptions(damage=d, **options)) for d in (0.0, 0.2, 0.5))
    assert cracked.damaged.sum() == 4 * DAY
    after = cracked.damaged
    assert after[8 * DAY :].all()
    assert np.array_equal(healthy.clean[~after], cracked.clean[~after])
    for name in ("temp_top", "wind_speed", "humidity"):
        assert np.array_equal(column(healthy, name), column(worse, name))
    for name in ("deflection_mid", "strain_g2_q1", "tilt_left"):
        extra = [column(record, name)[after] - column(healthy, name)[after] for record in (cracked, worse)]
        assert extra[1].mean() / extra[0].mean() == pytest.approx((1 / 0.5 - 1) / (1 / 0.8 - 1), rel=0.01)
    ratio = column(cracked, "frequency_1")[after].mean() / column(healthy, "frequency_1")[after].mean()
    assert ratio == pytest.approx(np.sqrt(0.8), rel=1e-3)


def test_damage_comes_two_thirds_through_unless_told():
    assert generate(BridgeOptions(days=3, sensors=1, damage=0.1)).damaged.argmax() == 2 * DAY


# --- faults -----------------------------------------------------------------------------------------------------------


def test_fault_shares_are_those_of_real_bridges():
    labels = np.stack([generate(BridgeOptions(seed=seed, sensors=8)).labels for seed in range(5)])
    share = {name: float((labels == number).mean()) for name, number in LABEL.items()}
    assert 0.003 < share["outlier"] < 0.01
    assert 0.004 < share["missing"] < 0.034
    assert all(0.001 < share[name] < 0.03 for name in ("minor", "square", "trend", "drift"))
    assert share["normal"] > 0.9


def test_an_outage_takes_every_sensor_and_some_last_long():
    labels = generate(BridgeOptions(seed=1, days=1500, period=3600)).labels == LABEL["missing"]
    out = np.flatnonzero(labels.all(axis=1))
    assert len(out) > 24
    longest = max(len(run) for run in np.split(out, np.flatnonzero(np.diff(out) > 1) + 1))
    assert longest > 24  # hours


def test_each_class_does_what_its_name_says():
    wave = np.sin(np.linspace(0, 20, 600)) * 5
    rng = stream(0, "test")
    assert minor(wave, rng, 4.0).std() < 0.1 * wave.std()
    levels = square(wave, rng, 4.0)
    high = levels > levels.mean()
    assert levels[high].std() + levels[~high].std() < 0.1 * np.ptp(levels)
    straight = trend(wave, rng, 4.0) - wave
    assert np.diff(straight) == pytest.approx(straight[-1] / 599)
    assert abs(straight[-1]) >= 4 * 4.0
    assert 0 < np.abs(drift(wave, rng, 4.0) - wave).max() < 200
    assert (np.abs(outlier(wave, rng, 4.0) - wave) >= 6 * 4.0 - 1e-9).all()


def test_outliers_stand_out_by_six_robust_deviations(year):
    spikes = year.labels == LABEL["outlier"]
    for name in ("deflection_mid", "strain_g2_mid", "bearing_left"):
        i = year.table.sensors.index(name)
        scale = daily_scale(column(year, name), 600)
        off = np.abs(year.table.values[:, i] - year.clean[:, i])[spikes[:, i]]
        assert off.min() > 5.9 * scale


def test_what_cannot_be_negative_never_is(year):
    for name in ("wind_speed", "accel_rms_mid"):
        assert year.table.values[:, year.table.sensors.index(name)].min() >= 0


# --- the tools for series ---------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.floats(0.1, 1e5), st.floats(0.1, 1e4))
def test_lag_is_the_plain_recursion(values, tau, step):
    x = np.array(values)
    keep, expected = np.exp(-step / tau), [x[0]]
    for value in x[1:]:
        expected.append(keep * expected[-1] + (1 - keep) * value)
    assert lagged(x, tau, step) == pytest.approx(np.array(expected), abs=1e-9)


def test_fluctuation_averages_as_its_formula_says():
    fine = fluctuation(stream(0, "fine"), 2_000_000, 1.0, 20.0, 3.0)
    coarse = fluctuation(stream(0, "coarse"), 50_000, 40.0, 20.0, 3.0)
    assert fine.std() == pytest.approx(3.0, rel=0.03)
    assert coarse.std() == pytest.approx(fine.reshape(-1, 40).mean(axis=1).std(), rel=0.03)
    assert np.corrcoef(fine[20:], fine[:-20])[0, 1] == pytest.approx(np.exp(-1), abs=0.03)


def test_row_means_keep_the_mean_of_longer_rows_and_the_value_of_equal_ones():
    cells = np.random.default_rng(0).random(300)
    assert row_means(cells, 600.0, 6000.0, 200, 600.0) == pytest.approx(cells[10:210])
    assert row_means(cells, 600.0, 6000.0, 50, 2400.0) == pytest.approx(cells[10:210].reshape(50, 4).mean(axis=1))


# --- options and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("days", 0),
        ("days", float("nan")),
        ("period", 0.5),
        ("period", float("inf")),
        ("sensors", 0),
        ("sensors", 1001),
        ("seed", -1),
        ("damage", 1.0),
        ("damage_day", 400.0),
        ("start", "yesterday"),
        ("start", "2025-01-01T00:00+01:00"),
        ("start", "0900-01-01"),
        ("kind", "wood"),
    ],
)
def test_impossible_options_are_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=rf"^data\.bhm\.{key}: "):
        BridgeOptions(**{key: value})


def test_a_record_shorter_than_a_row_is_refused():
    with pytest.raises(ConfigError, match="shorter than one period"):
        BridgeOptions(days=0.001, period=600)


def test_parquet_holds_readings_units_and_nulls(tmp_path):
    import datasets
    import pyarrow.parquet as pq

    record = generate(BridgeOptions(days=60, sensors=9, damage=0.1))
    path = tmp_path / "bridge.parquet"
    write_parquet(record, path, truth=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bridge.parquet",
        "bridge_clean.parquet",
        "bridge_labels.parquet",
    ]
    table = pq.read_table(path)
    assert table.column_names[:3] == ["time", "deflection_mid [mm]", "strain_g2_mid [µε]"]
    assert table["time"].to_numpy().astype("int64").tolist() == record.table.clock.at(0, len(record.table)).tolist()
    values = np.stack([table[i + 1].to_numpy() for i in range(9)], axis=1)
    assert np.array_equal(np.isnan(values), ~record.table.observed)
    assert np.array_equal(np.nan_to_num(values), record.table.values)
    clean = pq.read_table(tmp_path / "bridge_clean.parquet")
    assert clean.column_names == table.column_names
    assert np.array_equal(clean[1].to_numpy(), record.clean[:, 0])
    labels = datasets.Dataset.from_parquet(str(tmp_path / "bridge_labels.parquet"), cache_dir=str(tmp_path / "cache"))
    assert labels.features["temp_air"].names == list(FAULT_CLASSES)
    assert np.array_equal(labels.with_format("numpy")["strain_g2_mid"], record.labels[:, 1])
    assert np.array_equal(labels.with_format("numpy")["damaged"], record.damaged)


def test_a_refused_path_leaves_nothing_behind(tmp_path):
    record = generate(BridgeOptions(days=1, sensors=1))
    (tmp_path / "folder.parquet").mkdir()
    for name, problem in (
        ("bridge.csv", "must end in .parquet"),
        ("nowhere/bridge.parquet", "there is no folder"),
        ("folder.parquet", "is a folder"),
    ):
        with pytest.raises(DataError, match=problem):
            write_parquet(record, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.parquet"]


def test_truth_of_another_record_is_not_left_beside_a_new_one(tmp_path):
    path = tmp_path / "bridge.parquet"
    write_parquet(generate(BridgeOptions(days=1, sensors=1)), path, truth=True)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"bridge_clean\.parquet"):
        write_parquet(generate(BridgeOptions(days=1, sensors=1, seed=1)), path)
    assert path.read_bytes() == before


def test_command_writes_what_it_says(tmp_path, capsys):
    import pyarrow.parquet as pq

    path = tmp_path / "bridge.parquet"
    arguments = ["--days", "2", "--sensors", "3", "--no-faults", "--damage", ".2", "--damage-day", "1", "--truth"]
    assert bhm.main(["--out", str(path), *arguments]) == 0
    printed = capsys.readouterr()
    assert "288 rows of 3 sensors" in printed.out
    assert "0.0% missing" in printed.out
    assert len(printed.out.splitlines()) == 2
    assert printed.err == ""
    assert pq.read_metadata(path).num_rows == 288
    assert pq.read_table(tmp_path / "bridge_labels.parquet")["damaged"].to_numpy().sum() == 144


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--days", "-1"], "--days: -1.0 is out of range"),
        (["--damage-day", "500"], "--damage-day: 500.0 is outside"),
        (["--sensors", "many"], "--sensors: invalid int value: 'many'"),
        (["--kind", "wood"], "--kind: invalid choice"),
        (["--start", "soon"], "--start: 'soon' is not an ISO date"),
        (["--out", "x.csv"], "x.csv: the name must end in .parquet"),
        (["--speed", "1"], "unrecognized arguments: --speed 1"),
    ],
)
def test_command_refuses_in_one_line(tmp_path, capsys, arguments, says):
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "bridge.parquet")]
    try:
        code = bhm.main([*out, *arguments])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert says in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_needs_no_heavy_library_and_generating_needs_no_torch():
    code = (
        "import sys; from accel_trainer.data import bhm\n"
        "try: bhm.main(['--help'])\nexcept SystemExit as stop: assert stop.code == 0\n"
        "assert not {'numpy', 'pyarrow', 'datasets', 'torch'} & set(sys.modules)\n"
        "import tempfile, pathlib\n"
        "with tempfile.TemporaryDirectory() as d: assert bhm.main(['--out', d + '/a.parquet', '--days', '1']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--damage-day" in done.stdout


def test_module_runs_as_a_command(tmp_path):
    path = Path(tmp_path, "a.parquet")
    command = [sys.executable, "-m", "accel_trainer.data.bhm", "--out", str(path), "--days", "1", "--sensors", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.exists()
