"""Streamed errors against float64 numpy over everything at once, for any cut into batches and any mask."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.metrics.streaming import ErrorSums

WINDOWS, HORIZON, TARGETS = 12, 4, 3
SENSORS, UNITS = ["d1", "t1", "d2"], ["mm", "°C", "mm"]
MEAN, STD = np.array([5.0, -2.0, 100.0]), np.array([0.5, 3.0, 20.0])


def example(seed, share=0.7, offset=0.0):
    generator = np.random.default_rng(seed)
    target = (generator.normal(size=(WINDOWS, HORIZON, TARGETS)) + offset).astype(np.float32)
    forecast = (target + generator.normal(size=target.shape)).astype(np.float32)
    return forecast, target, generator.random(target.shape) < share


def streamed(forecast, target, observed, cuts=()):
    sums = ErrorSums(HORIZON, TARGETS)
    for a, b in pairwise([0, *sorted(cuts), WINDOWS]):
        sums.update(*(None if x is None else torch.from_numpy(x[a:b]) for x in (forecast, target, observed)))
    return sums


def scores(forecast, target, observed, spread=None):
    """Mse, mae and rmse over the cells that ``observed`` picks, and r2 if there is a spread to compare with."""
    if not observed.any():
        return {}
    error = (forecast.astype(np.float64) - target.astype(np.float64))[observed]
    result = {"mse": np.mean(error**2), "mae": np.mean(np.abs(error)), "rmse": np.sqrt(np.mean(error**2))}
    if spread:
        result["r2"] = 1 - np.sum(error**2) / spread
    return result


def spread(target, observed):
    """Sum over sensors of squared distances from the sensor's own mean; 0 where a sensor has one value or none."""
    cells = (target[..., c].astype(np.float64)[observed[..., c]] for c in range(target.shape[-1]))
    return sum(np.sum((x - x.mean()) ** 2) for x in cells if len(x) > 1)


@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    dead_sensors=st.sets(st.integers(0, TARGETS - 1)),
    dead_steps=st.sets(st.integers(0, HORIZON - 1)),
    cuts=st.lists(st.integers(0, WINDOWS), max_size=5),
)
@settings(deadline=None, max_examples=80)
def test_report_is_what_numpy_gives_over_all_windows(seed, share, dead_sensors, dead_steps, cuts):
    forecast, target, observed = example(seed, share)
    observed[..., list(dead_sensors)] = False
    observed[:, list(dead_steps)] = False
    junk = np.where(observed, target, np.nan)
    sums = streamed(forecast, junk, observed, cuts)
    near = lambda expected: pytest.approx(expected, rel=1e-6, abs=1e-9)  # noqa: E731

    whole = scores(forecast, target, observed, spread(target, observed))
    assert sums.overall() == near(whole)
    report = sums.report(SENSORS, UNITS, MEAN, STD)
    assert {key: report[key] for key in ("mse", "mae", "rmse", "r2") if key in report} == near(whole)

    assert [step.pop("step") for step in report["per_step"]] == [1, 2, 3, 4]
    for h, step in enumerate(report["per_step"]):
        assert step == near(scores(forecast[:, h], target[:, h], observed[:, h]))

    physical_forecast, physical_target = forecast * STD + MEAN, target.astype(np.float64) * STD + MEAN
    for c, entry in enumerate(report["per_sensor"]):
        one = (..., slice(c, c + 1))
        assert (entry.pop("sensor"), entry.pop("unit")) == (SENSORS[c], UNITS[c])
        physical = entry.pop("physical", {})
        assert entry == near(scores(forecast[one], target[one], observed[one], spread(target[one], observed[one])))
        expected = scores(forecast[one] * STD[c], target[one] * STD[c], observed[one])
        if expected:
            cells = physical_target[..., c][observed[..., c]]
            expected |= {"target_mean": cells.mean(), "target_std": cells.std()}
        assert physical == pytest.approx(expected, rel=1e-5, abs=1e-6)

    for unit in ("mm", "°C"):
        chosen = np.array([u == unit for u in UNITS])
        expected = scores(physical_forecast[..., chosen], physical_target[..., chosen], observed[..., chosen])
        if expected:
            expected["sensors"] = int(observed[..., chosen].any((0, 1)).sum())
        assert report["per_unit"].get(unit, {}) == pytest.approx(expected, rel=1e-5)
    json.dumps(report, allow_nan=False)


def test_no_mask_means_everything_was_observed():
    forecast, target, observed = example(0)
    assert torch.equal(streamed(forecast, target, None).tensor(), streamed(forecast, target, observed | True).tensor())


@given(seed=st.integers(0, 10**6), cut=st.integers(0, WINDOWS))
@settings(deadline=None, max_examples=20)
def test_sums_of_processes_add_up(seed, cut):
    forecast, target, observed = example(seed)
    first = streamed(forecast, target, np.where(np.arange(WINDOWS)[:, None, None] < cut, observed, False))
    second = streamed(forecast, target, np.where(np.arange(WINDOWS)[:, None, None] >= cut, observed, False))
    whole = streamed(forecast, target, observed)
    assert ErrorSums.from_tensor(first.tensor() + second.tensor()).overall() == pytest.approx(whole.overall())
    first.tensor().add_(second.tensor())  # as an all-reduce does
    assert first.overall() == pytest.approx(whole.overall())


def test_many_small_batches_keep_their_digits():
    """A float32 sum would stall: 1e-4 squared is below the resolution of a sum near 1000."""
    sums = ErrorSums(1, 1)
    target = torch.zeros(1000, 1, 1)
    sums.update(torch.full((1000, 1, 1), 1.0), target, None)
    for _ in range(200):
        sums.update(torch.full((1000, 1, 1), 1e-4), target, None)
    expected = (1000 + 200_000 * float(np.float32(1e-4)) ** 2) / 201_000
    assert sums.overall()["mse"] == pytest.approx(expected, rel=1e-12)


def test_r2_survives_a_sensor_far_from_zero():
    forecast, target, _ = example(0, offset=1e4)
    everything = np.ones(target.shape, dtype=bool)
    expected = scores(forecast, target, everything, spread(target, everything))["r2"]
    assert streamed(forecast, target, None).overall()["r2"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, 1234.567])
def test_a_sensor_that_does_not_move_has_no_r2(level):
    target = np.full((WINDOWS, HORIZON, TARGETS), level, dtype=np.float32)
    report = streamed(target + 1, target, None).report(SENSORS, UNITS, MEAN, STD)
    assert report["mse"] == pytest.approx(1, rel=1e-3)
    assert "r2" not in report
    assert all("r2" not in entry for entry in report["per_sensor"])


def test_one_still_sensor_does_not_spoil_the_r2_of_all():
    forecast, target, observed = example(3)
    target[..., 1] = 0.1
    expected = scores(forecast, target, observed, spread(target, observed))
    report = streamed(forecast, target, observed).report(SENSORS, UNITS, MEAN, STD)
    assert report["r2"] == pytest.approx(expected["r2"], rel=1e-6)
    assert ["r2" in entry for entry in report["per_sensor"]] == [True, False, True]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_forecast_that_is_not_finite_shows(bad):
    forecast, target, observed = example(0)
    observed[2, 1, 1] = True
    forecast[2, 1, 1] = bad
    sums = streamed(forecast, target, observed)
    report = sums.report(SENSORS, UNITS, MEAN, STD)
    assert not np.isfinite(sums.overall()["mse"])
    assert [np.isfinite(entry["mse"]) for entry in report["per_sensor"]] == [True, False, True]
    assert [np.isfinite(entry["mse"]) for entry in report["per_step"]] == [True, False, True, True]
    assert np.isfinite(report["per_unit"]["mm"]["mse"])


def test_nothing_observed_gives_no_numbers():
    forecast, target, observed = example(0)
    sums = streamed(forecast, target, observed & False)
    assert sums.overall() == {}
    report = sums.report(SENSORS, UNITS, MEAN, STD)
    assert report["per_sensor"] == [{"sensor": s, "unit": u} for s, u in zip(SENSORS, UNITS, strict=True)]
    assert report["per_step"] == [{"step": h} for h in (1, 2, 3, 4)]
    assert report["per_unit"] == {}
    assert "mse" not in report
    assert ErrorSums(HORIZON, TARGETS).overall() == {}


def test_sensors_without_a_unit_are_in_no_unit():
    forecast, target, observed = example(0)
    report = streamed(forecast, target, observed).report(SENSORS, ["", "mm", ""], MEAN, STD)
    assert list(report["per_unit"]) == ["mm"]
    assert report["per_unit"]["mm"]["sensors"] == 1


def test_half_precision_forecasts_are_taken_as_they_are():
    forecast, target, observed = example(0)
    half = torch.from_numpy(forecast).bfloat16()
    sums = ErrorSums(HORIZON, TARGETS)
    sums.update(half, torch.from_numpy(target), torch.from_numpy(observed))
    assert sums.overall() == pytest.approx(streamed(half.float().numpy(), target, observed).overall())


def test_update_reads_nothing_from_the_device():
    """The meta device holds no values: a host read, which is a hidden wait on a GPU, fails there."""
    sums = ErrorSums(HORIZON, TARGETS, device="meta")
    forecast, target, observed = (torch.from_numpy(x).to("meta") for x in example(0))
    sums.update(forecast, target, observed)
    sums.update(forecast, target, None)


def test_update_keeps_no_graph():
    forecast, target, _ = (torch.from_numpy(x) for x in example(0))
    sums = ErrorSums(HORIZON, TARGETS)
    sums.update(forecast.requires_grad_(), target, None)
    assert not sums.tensor().requires_grad


def test_shapes_that_would_broadcast_are_refused():
    forecast, target, observed = (torch.from_numpy(x) for x in example(0))
    sums = ErrorSums(HORIZON, TARGETS)
    for wrong in (
        (forecast[..., :1], target, observed),
        (forecast, target, observed[:1]),
        (forecast[:, :1], target[:, :1], None),
    ):
        with pytest.raises(ValueError, match="expected"):
            sums.update(*wrong)
    with pytest.raises(ValueError, match="2 units"):
        sums.report(SENSORS, UNITS[:2], MEAN, STD)
