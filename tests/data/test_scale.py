"""The z-score: fitted on observed training rows only, exact on the way back, saved without loss."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from accel_trainer.data.scale import Scaler
from accel_trainer.data.split import Rows
from accel_trainer.data.table import Clock, Table
from accel_trainer.errors import DataError

WIDTH = 3


def table(values: object, observed: object = None, sensors: tuple[str, ...] = ("a", "b", "c")) -> Table:
    cells = np.asarray(values, np.float32)
    seen = np.ones(cells.shape, np.bool_) if observed is None else np.asarray(observed, np.bool_)
    cells = np.where(seen, cells, np.float32(0))
    return Table(cells, seen, sensors, ("",) * len(sensors), Clock("rows", 1.0), "bridge")


@st.composite
def tables(draw: st.DrawFn) -> Table:
    shape = (draw(st.integers(1, 40)), WIDTH)
    values = draw(arrays(np.float32, shape, elements=st.floats(-1e6, 1e6, width=32)))
    return table(values, draw(arrays(np.bool_, shape)))


@settings(deadline=None)
@given(tables(), st.data())
def test_fit_sees_observed_training_cells_only(record: Table, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(record)))
    end = data.draw(st.integers(begin, len(record)))
    scaler = Scaler.fit(record, Rows(begin, end))
    for column, name in enumerate(record.sensors):
        seen = record.values[begin:end, column][record.observed[begin:end, column]].astype(np.float64)
        if not seen.size:
            assert (scaler.mean[column], scaler.std[column]) == (0, 1)
            assert name in scaler.unobserved
        elif seen.min() == seen.max():
            assert (scaler.mean[column], scaler.std[column]) == (seen[0], 1)
            assert name in scaler.constant
        else:
            np.testing.assert_allclose(scaler.mean[column], seen.mean(), rtol=1e-12, atol=1e-9)
            np.testing.assert_allclose(scaler.std[column], seen.std(ddof=0), rtol=1e-9)
            assert name not in scaler.constant + scaler.unobserved


@settings(deadline=None)
@given(tables())
def test_inverse_undoes_transform_and_gaps_are_the_mean(record: Table) -> None:
    scaler = Scaler.fit(record, Rows(0, len(record)))
    scaled = scaler.transform(record)
    assert scaled.dtype == np.float32
    assert not scaled[~record.observed].any()
    back = scaler.inverse(scaled)
    # float32 keeps z to one part in 1e7, so what comes back is off by that part of z * std.
    room = 2e-7 * np.abs(record.values - scaler.mean) + 1e-9 * (1 + np.abs(scaler.mean))
    assert (np.abs(back - record.values) <= room)[record.observed].all()


@settings(deadline=None)
@given(tables())
def test_a_saved_scaler_is_the_same_to_the_last_bit(record: Table) -> None:
    scaler = Scaler.fit(record, Rows(0, len(record)))
    again = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert (again.sensors, again.constant, again.unobserved) == (scaler.sensors, scaler.constant, scaler.unobserved)
    assert again.mean.tobytes() == scaler.mean.tobytes()
    assert again.std.tobytes() == scaler.std.tobytes()


def test_training_rows_have_mean_zero_and_spread_one() -> None:
    record = table(np.random.default_rng(0).normal((5, -300, 1e5), (1, 20, 1e-1), (200_000, 3)))
    scaled = Scaler.fit(record, Rows(0, 150_000)).transform(record)[:150_000].astype(np.float64)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("level", [0.1, 1e-30, 3e38, -12345.678, 0.0])
def test_a_constant_sensor_becomes_zero_and_comes_back(level: float) -> None:
    record = table(np.full((1001, 1), level), sensors=("a",))
    scaler = Scaler.fit(record, Rows(0, 1000))
    assert scaler.constant == ("a",)
    assert scaler.std[0] == 1
    scaled = scaler.transform(record)
    assert not scaled.any()
    np.testing.assert_array_equal(scaler.inverse(scaled), record.values.astype(np.float64))


def test_inverse_takes_targets_alone_and_any_leading_axes() -> None:
    scaler = Scaler(("a", "b", "c"), np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0]))
    np.testing.assert_array_equal(scaler.inverse(np.ones((2, 5, 3)))[1, 4], [11, 22, 33])
    np.testing.assert_array_equal(scaler.inverse(np.ones((2, 5, 2)), ["c", "a"])[1, 4], [33, 11])
    with pytest.raises(DataError, match="knows no sensor 'cc'"):
        scaler.inverse(np.ones((2, 1)), ["cc"])
    with pytest.raises(ValueError, match=r"\(2, 2\) do not end in 3 sensors"):
        scaler.inverse(np.ones((2, 2)))


def test_other_sensors_or_another_order_are_refused() -> None:
    record = table(np.ones((4, 3)))
    scaler = Scaler.fit(record, Rows(0, 4))
    with pytest.raises(DataError, match=r"fitted on a, b, c; the data has others besides, or another order"):
        scaler.transform(record.select(["b", "a", "c"]))
    with pytest.raises(DataError, match="the data lacks 'b'"):
        scaler.transform(record.select(["a", "c"]))


def test_a_reading_beyond_every_scale_is_named() -> None:
    record = table([[0.0], [1e-30], [1e20]], sensors=("a",))
    scaler = Scaler.fit(record, Rows(0, 2))
    with pytest.raises(DataError, match=r"'a' reads 1e\+20 in row 2; .* z-score is beyond float32"):
        scaler.transform(record)


@pytest.mark.parametrize("damage", [{"mean": None}, {"std": [0.0, 1.0, 1.0]}, {"mean": [1.0]}, {"std": ["x", 1, 1]}])
def test_a_damaged_scaler_is_refused(damage: dict[str, object]) -> None:
    content = Scaler.fit(table(np.ones((4, 3))), Rows(0, 4)).to_dict()
    with pytest.raises(DataError, match="the saved scaler is damaged"):
        Scaler.from_dict({**content, **damage})
    del content["sensors"]
    with pytest.raises(DataError, match="the saved scaler is damaged"):
        Scaler.from_dict(content)
