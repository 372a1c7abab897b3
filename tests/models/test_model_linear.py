"""NLinear and DLinear: what they compute, and what must not change it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from accel_trainer.models import ForecastShape, create_model
from accel_trainer.models.linear import moving_average

SHAPE = ForecastShape(context=40, horizon=7, channels=5, targets=3)
TRAINABLE = [("nlinear", {}), ("nlinear", {"individual": True}), ("dlinear", {}), ("dlinear", {"individual": True})]

every_model = pytest.mark.parametrize(
    ("name", "options"), TRAINABLE, ids=["nlinear", "nlinear-i", "dlinear", "dlinear-i"]
)


def seeded(name, options, shape=SHAPE):
    torch.manual_seed(0)
    return create_model(name, shape, options)


def random_mask(seed, share):
    observed = torch.rand(4, 40, 5, generator=torch.Generator().manual_seed(seed)) < share
    observed[0, :, 0] = False  # a sensor of which nothing was seen
    observed[1, -20:, 1] = False  # a gap up to now, wider than DLinear's half kernel
    observed[2, :20, 2] = False  # a gap from the start
    return observed


@every_model
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
@settings(deadline=None, max_examples=15)
def test_cells_that_were_not_observed_do_not_matter(name, options, seed, share):
    model = seeded(name, options)
    observed = random_mask(seed, share)
    past = torch.randn(4, 40, 5, generator=torch.Generator().manual_seed(seed))
    expected = model(past.masked_fill(~observed, 0.0), observed)
    for junk in (1e30, torch.nan, -torch.inf):
        assert torch.equal(model(past.masked_fill(~observed, junk), observed), expected)
    assert expected.isfinite().all()


@every_model
def test_a_full_mask_is_no_mask(name, options):
    model, past = seeded(name, options), torch.randn(4, 40, 5)
    assert torch.equal(model(past), model(past, torch.ones_like(past, dtype=torch.bool)))


@every_model
def test_covariates_after_the_targets_are_not_used(name, options):
    model, past = seeded(name, options), torch.randn(4, 40, 5)
    changed = past.clone()
    changed[..., 3:] = torch.nan
    assert torch.equal(model(past), model(changed))


@every_model
def test_junk_under_the_mask_gives_finite_gradients(name, options):
    model, observed = seeded(name, options), random_mask(3, 0.7)
    model(torch.randn(4, 40, 5).masked_fill(~observed, torch.nan), observed).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_nlinear_is_the_papers_formula():
    model, past = seeded("nlinear", {}), torch.randn(4, 40, 5)
    last = past[:, -1:, :3]
    expected = (
        torch.einsum("hl,blc->bhc", model.linear.weight, past[..., :3] - last) + model.linear.bias[:, None] + last
    )
    torch.testing.assert_close(model(past), expected)


def test_nlinear_forecasts_a_shifted_series_shifted():
    """The level is taken off and put back, whatever it is; with gaps, the last observed one."""
    model, past, observed = seeded("nlinear", {}), torch.randn(4, 40, 5), random_mask(5, 0.5)
    seen = observed[..., :3].any(1, keepdim=True)
    torch.testing.assert_close(model(past + 8.0, observed), model(past, observed) + 8.0 * seen, atol=1e-4, rtol=1e-5)


def test_nlinear_leaves_gaps_at_the_last_observed_value():
    model, past, observed = seeded("nlinear", {}), torch.randn(4, 40, 5), random_mask(5, 0.5)
    observed[:, -1] = True
    torch.testing.assert_close(model(past, observed), model(past.where(observed, past[:, -1:])))


def test_dlinear_is_the_papers_formula():
    model, past = seeded("dlinear", {"kernel_size": 9}), torch.randn(4, 40, 5)
    series = past[..., :3].transpose(1, 2)
    trend = F.avg_pool1d(F.pad(series, (4, 4), mode="replicate"), 9, stride=1)
    expected = F.linear(series - trend, model.seasonal.weight, model.seasonal.bias)
    expected = expected + F.linear(trend, model.trend.weight, model.trend.bias)
    torch.testing.assert_close(model(past), expected.transpose(1, 2))


@given(length=st.integers(1, 60), kernel=st.integers(0, 40).map(lambda half: 2 * half + 1))
@settings(deadline=None, max_examples=60)
def test_the_moving_average_is_a_pooled_padded_series(length, kernel):
    series = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(length))
    expected = F.avg_pool1d(F.pad(series, (kernel // 2, kernel // 2), mode="replicate"), kernel, stride=1)
    torch.testing.assert_close(moving_average(series, kernel), expected)


@pytest.mark.parametrize("name", ["nlinear", "dlinear"])
def test_individual_is_one_shared_model_per_target(name):
    model, past = seeded(name, {"individual": True}), torch.randn(4, 40, 5)
    for c in range(3):
        single = create_model(name, ForecastShape(40, 7, 1, 1), {})
        single.load_state_dict({key: value[c] for key, value in model.state_dict().items()})
        torch.testing.assert_close(model(past)[..., c : c + 1], single(past[..., c : c + 1]))


@every_model
def test_weights_start_as_those_of_a_linear_layer(name, options):
    model = seeded(name, options, ForecastShape(context=100, horizon=50, channels=2, targets=2))
    for parameter in model.parameters():
        assert 0.09 < parameter.abs().max() <= 0.1  # uniform within 1/sqrt(L)
        assert parameter.mean().abs() < 0.03


@every_model
def test_parameters_are_stored_under_plain_names(name, options):
    expected = {"nlinear": {"linear"}, "dlinear": {"seasonal", "trend"}}[name]
    assert set(seeded(name, options).state_dict()) == {
        f"{map_}.{part}" for map_ in expected for part in ("weight", "bias")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nlinear", "dlinear"])
def test_models_compile_into_one_graph(name):
    model, past, observed = seeded(name, {}), torch.randn(4, 40, 5), random_mask(1, 0.8)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(past), model(past))
    torch.testing.assert_close(compiled(past, observed), model(past, observed))
