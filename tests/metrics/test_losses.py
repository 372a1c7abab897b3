"""Losses count what was observed, in float32, and nothing else reaches sum or gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.metrics.losses import loss_sum

KINDS = ("mse", "mae", "huber", "smooth_l1")


def reference(kind, error, delta):
    size = np.abs(error)
    huber = np.where(size <= delta, error**2 / 2, delta * (size - delta / 2))
    return {"mse": error**2, "mae": size, "huber": huber, "smooth_l1": huber / delta}[kind]


def example(seed, share=0.6):
    generator = torch.Generator().manual_seed(seed)
    forecast, target = (2 * torch.randn(3, 5, 2, generator=generator) for _ in range(2))
    return forecast, target, torch.rand(3, 5, 2, generator=generator) < share


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.5, 1.0]), delta=st.floats(0.1, 5))
@settings(deadline=None, max_examples=25)
def test_sum_and_weight_are_those_of_the_observed_targets(kind, seed, share, delta):
    forecast, target, observed = example(seed, share)
    error = (forecast.double() - target.double()).numpy()
    total, weight = loss_sum(kind, forecast, target, observed, delta)
    assert weight.item() == observed.sum().item()
    assert total.item() == pytest.approx(reference(kind, error, delta)[observed.numpy()].sum(), rel=1e-5)
    total, weight = loss_sum(kind, forecast, target, None, delta)
    assert weight.item() == 30
    assert total.item() == pytest.approx(reference(kind, error, delta).sum(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, 1e38])
def test_what_was_not_observed_reaches_neither_sum_nor_gradient(kind, junk):
    forecast, target, observed = example(0)
    results = []
    for filler in (0.0, junk):
        leaf = forecast.clone().requires_grad_()
        total, _ = loss_sum(kind, leaf, target.masked_fill(~observed, filler), observed)
        total.backward()
        assert (leaf.grad[~observed] == 0).all()
        results.append((total.item(), leaf.grad))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_that_is_not_finite_shows(kind):
    forecast, target, observed = example(0)
    observed[0, 0, 0] = True
    forecast[0, 0, 0] = torch.nan
    assert loss_sum(kind, forecast, target, observed)[0].isnan()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_float32_whatever_comes_in(kind):
    forecast, target, observed = example(0)
    for half in (torch.float16, torch.bfloat16):
        total, weight = loss_sum(kind, forecast.to(half), target, observed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under_autocast, _ = loss_sum(kind, forecast.to(half), target, observed)
        assert total.dtype == weight.dtype == under_autocast.dtype == torch.float32
        assert total.item() == under_autocast.item()
        assert total.item() == loss_sum(kind, forecast.to(half).float(), target, observed)[0].item()
    large = torch.full((64, 64, 1), 100.0, dtype=torch.float16)  # its sum of squares is beyond float16
    assert loss_sum("mse", large, torch.zeros(64, 64, 1))[0].item() == 100.0**2 * 64 * 64


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_from_the_device(kind):
    """The meta device holds no values: a host read, which is a hidden wait on a GPU, fails there."""
    forecast, target, observed = (x.to("meta") for x in example(0))
    for mask in (observed, None):
        total, weight = loss_sum(kind, forecast, target, mask)
        assert total.shape == weight.shape == ()
        assert total.device.type == weight.device.type == "meta"


def test_shapes_that_would_broadcast_are_refused():
    forecast, target, observed = example(0)
    with pytest.raises(ValueError, match=r"\(3, 5, 1\).*\(3, 5, 2\)"):
        loss_sum("mse", forecast[..., :1], target, None)
    with pytest.raises(ValueError, match="observed"):
        loss_sum("mse", forecast, target, observed[:1])
