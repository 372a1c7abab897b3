"""The closed-form linear model: a least-squares reference, gaps, processes, and the published protocol on ETTh1."""

import csv
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.errors import DataError
from accel_trainer.models import ClosedFormLinear, ForecastShape, NormalEquations, Persistence
from accel_trainer.models.closed_form import RIDGE

SHAPE = ForecastShape(context=9, horizon=4, channels=4, targets=3)


def windows(count, seed=0, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    past = torch.randn(count, shape.context, shape.channels, generator=generator).cumsum(1)
    future = past[:, -1:, : shape.targets] + torch.randn(count, shape.horizon, shape.targets, generator=generator)
    return past, future


def ridge_reference(past, future):
    """Weights and bias by stacked least squares, from [pairs, L] and [pairs, H] float64 arrays."""
    pairs, context = past.shape
    last = past[:, -1:]
    rows = np.concatenate([past - last, np.ones((pairs, 1))], axis=1)
    penalty = np.sqrt(RIDGE * pairs) * np.eye(context, context + 1)
    solution = np.linalg.lstsq(
        np.concatenate([rows, penalty]), np.concatenate([future - last, np.zeros((context, future.shape[1]))])
    )[0]
    return solution[:-1].T, solution[-1]


def pairs_of(values, targets):
    return values[..., :targets].transpose(1, 2).flatten(0, 1).double().numpy()


@given(cuts=st.lists(st.integers(0, 50), max_size=4))
@settings(deadline=None, max_examples=20)
def test_it_is_the_ridge_solution_however_the_windows_are_cut(cuts):
    past, future = windows(50)
    equations = NormalEquations(SHAPE)
    borders = [0, *sorted(cuts), 50]
    for a, b in pairwise(borders):
        equations.update(past[a:b], None, future[a:b], None)
    model = equations.solve()
    weight, bias = ridge_reference(pairs_of(past, 3), pairs_of(future, 3))
    np.testing.assert_allclose(model.weight, weight, atol=1e-6)
    np.testing.assert_allclose(model.bias, bias, atol=1e-6)


def test_large_batches_are_summed_in_parts(monkeypatch):
    past, future = windows(50)
    whole, parts = NormalEquations(SHAPE), NormalEquations(SHAPE)
    whole.update(past, None, future, None)
    monkeypatch.setattr("accel_trainer.models.closed_form._CELLS_AT_ONCE", 7 * 13 * 3)
    parts.update(past, None, future, None)
    for a, b in zip(whole.tensors(), parts.tensors(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_sums_of_processes_add_up():
    past, future = windows(60)
    together, first, second = (NormalEquations(SHAPE) for _ in range(3))
    together.update(past, None, future, None)
    first.update(past[:20], None, future[:20], None)
    second.update(past[20:], None, future[20:], None)
    for mine, other in zip(first.tensors(), second.tensors(), strict=True):
        mine += other
    torch.testing.assert_close(first.solve().weight, together.solve().weight)


def test_pairs_with_a_missing_step_or_an_empty_context_are_left_out():
    past, future = windows(80)
    generator = torch.Generator().manual_seed(1)
    known = torch.rand(future.shape, generator=generator) < 0.9
    observed = torch.rand(past.shape, generator=generator) < 0.8
    observed[:5, :, 0] = False
    equations = NormalEquations(SHAPE)
    equations.update(past.masked_fill(~observed, torch.nan), observed, future.masked_fill(~known, torch.nan), known)
    kept_past, kept_future = [], []
    for b in range(80):
        for c in range(3):
            if known[b, :, c].all() and observed[b, :, c].any():
                seen = torch.nonzero(observed[b, :, c]).flatten()
                source = [int(seen[seen <= t][-1]) if (seen <= t).any() else int(seen[0]) for t in range(9)]
                kept_past.append(past[b, source, c].double().numpy())
                kept_future.append(future[b, :, c].double().numpy())
    assert 60 < len(kept_past) < 240
    weight, bias = ridge_reference(np.array(kept_past), np.array(kept_future))
    model = equations.solve()
    np.testing.assert_allclose(model.weight, weight, atol=1e-6)
    np.testing.assert_allclose(model.bias, bias, atol=1e-6)


def test_a_full_mask_is_no_mask():
    past, future = windows(30)
    plain, masked = NormalEquations(SHAPE), NormalEquations(SHAPE)
    plain.update(past, None, future, None)
    masked.update(past, torch.ones_like(past, dtype=torch.bool), future, torch.ones_like(future, dtype=torch.bool))
    torch.testing.assert_close(plain.solve().weight, masked.solve().weight)


def test_forecasts_do_not_look_under_the_mask():
    past, future = windows(200)
    equations = NormalEquations(SHAPE)
    equations.update(past, None, future, None)
    model = equations.solve()
    observed = torch.rand(past.shape) < 0.5
    forecasts = [model(past.masked_fill(~observed, junk), observed) for junk in (0.0, 1e20, torch.nan)]
    assert torch.equal(forecasts[0], forecasts[1])
    assert torch.equal(forecasts[0], forecasts[2])
    assert forecasts[0].isfinite().all()


def test_update_reads_nothing_from_the_device():
    equations = NormalEquations(SHAPE, device="meta")
    past, future = (x.to("meta") for x in windows(8))
    equations.update(past, past.bool(), future, future.bool())
    equations.update(past, None, future, None)


def test_an_unsolved_model_forecasts_nan():
    assert ClosedFormLinear(SHAPE)(windows(2)[0]).isnan().all()


def test_a_solved_model_survives_its_state_dict_and_autocast():
    past, future = windows(50)
    equations = NormalEquations(SHAPE)
    equations.update(past, None, future, None)
    solved, loaded = equations.solve(), ClosedFormLinear(SHAPE)
    loaded.load_state_dict(solved.state_dict())
    assert torch.equal(loaded(past), solved(past))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loaded(past), solved(past))
        assert loaded(past).dtype == torch.float32
    assert not list(solved.parameters())


def test_without_a_usable_window_it_says_so():
    past, future = windows(10)
    equations = NormalEquations(SHAPE)
    known = torch.ones_like(future, dtype=torch.bool)
    known[:, 2] = False
    equations.update(past, None, future, known)
    with pytest.raises(DataError, match="all 4 steps"):
        equations.solve()


def test_readings_that_are_not_finite_are_named():
    past, future = windows(10)
    past[3, 3, 0] = torch.nan
    equations = NormalEquations(SHAPE)
    equations.update(past, None, future, None)
    with pytest.raises(DataError, match="not finite"):
        equations.solve()


@pytest.fixture(scope="module")
def etth1():
    """ETTh1's 20 months in z units of the training rows, [14400, 7] float32."""
    root = os.environ.get("ACCEL_TRAINER_DATA")
    path = Path(root or "") / "ETT" / "ETTh1.csv"
    if not root or not path.is_file():
        pytest.skip("needs ACCEL_TRAINER_DATA with ETT/ETTh1.csv")
    with path.open() as file:
        rows = np.array([[float(x) for x in row[1:]] for row in list(csv.reader(file))[1:14401]])
    train = rows[:8640]
    return torch.tensor((rows - train.mean(0)) / train.std(0), dtype=torch.float32)


def cut(series, first, last, context, horizon):
    """Return every window of the rows as [n, L, C] and [n, H, C] views."""
    both = series[first:last].unfold(0, context + horizon, 1).transpose(1, 2)
    return both[:, :context], both[:, context:]


def score(model, past, future):
    squared = absolute = 0.0
    for a in range(0, len(past), 256):
        error = (model(past[a : a + 256]) - future[a : a + 256]).double()
        squared, absolute = squared + error.square().sum().item(), absolute + error.abs().sum().item()
    return squared / future.numel(), absolute / future.numel()


# MSE and MAE of closed form and persistence, from a separate computation with numpy in float64.
ETTH1 = {
    (96, 96): (2785, (0.38327, 0.39170), (1.2944, 0.7132)),
    (96, 192): (2689, (0.43414, 0.42119), (1.3249, 0.7331)),
    (96, 336): (2545, (0.47558, 0.44258), (1.3299, 0.7460)),
    (96, 720): (2161, (0.46975, 0.46151), (1.3351, 0.7550)),
    (336, 96): (2785, (0.37020, 0.39151), (1.2944, 0.7132)),
    (336, 192): (2689, (0.40345, 0.41117), (1.3249, 0.7331)),
    (336, 336): (2545, (0.42769, 0.42616), (1.3299, 0.7460)),
    (336, 720): (2161, (0.43436, 0.45046), (1.3351, 0.7550)),
}


@pytest.mark.realdata
@pytest.mark.parametrize(("context", "horizon"), ETTH1)
def test_etth1_gives_the_known_numbers(etth1, context, horizon):
    count, closed_form, persistence = ETTH1[context, horizon]
    shape = ForecastShape(context, horizon, channels=7, targets=7)
    past, future = cut(etth1, 0, 8640, context, horizon)
    equations = NormalEquations(shape)
    for a in range(0, len(past), 1024):
        equations.update(past[a : a + 1024], None, future[a : a + 1024], None)
    past, future = cut(etth1, 11520 - context, 14400, context, horizon)
    assert len(past) == count
    assert score(equations.solve(), past, future) == pytest.approx(closed_form, abs=1e-5)
    assert score(Persistence(shape), past, future) == pytest.approx(persistence, abs=1e-4)
