"""Persistence and seasonal-naive against a cell-by-cell reference in plain Python."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.models import ForecastShape, Persistence, SeasonalNaive
from accel_trainer.models.observed import carry_forward, last_observed


def windows(seed, batch, context, channels, share):
    """Values and a mask; the mask of the first window's first channel is empty, unobserved cells hold NaN."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, context, channels, generator=generator)
    observed = torch.rand(batch, context, channels, generator=generator) < share
    observed[0, :, 0] = False
    return values.masked_fill(~observed, torch.nan), observed


def last_known(values, observed):
    known = [v for v, o in zip(values.tolist(), observed.tolist(), strict=True) if o]
    return known[-1] if known else 0.0


@given(
    seed=st.integers(0, 10**6),
    context=st.integers(1, 30),
    horizon=st.integers(1, 40),
    season=st.integers(1, 30),
    share=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
)
@settings(deadline=None, max_examples=60)
def test_forecasts_look_up_what_the_definition_says(seed, context, horizon, season, share):
    season = min(season, context)
    shape = ForecastShape(context, horizon, channels=3, targets=2, season=season)
    values, observed = windows(seed, 2, context, 3, share)
    persistence, seasonal = Persistence(shape)(values, observed), SeasonalNaive(shape)(values, observed)
    for b in range(2):
        for c in range(2):
            last = last_known(values[b, :, c], observed[b, :, c])
            assert persistence[b, :, c].tolist() == [last] * horizon
            for h in range(horizon):
                row = context - season + h % season
                while row >= 0 and not observed[b, row, c]:
                    row -= season
                assert seasonal[b, h, c].item() == (values[b, row, c].item() if row >= 0 else last)


@given(seed=st.integers(0, 10**6), context=st.integers(1, 30), horizon=st.integers(1, 40), season=st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_no_mask_means_everything_was_observed(seed, context, horizon, season):
    shape = ForecastShape(context, horizon, channels=2, targets=2, season=min(season, context))
    past = torch.randn(3, context, 2, generator=torch.Generator().manual_seed(seed))
    for model in (Persistence(shape), SeasonalNaive(shape)):
        assert torch.equal(model(past), model(past, torch.ones_like(past, dtype=torch.bool)))


@given(seed=st.integers(0, 10**6), length=st.integers(1, 40), share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
@settings(deadline=None, max_examples=60)
def test_gaps_carry_the_value_before_them(seed, length, share):
    values, observed = windows(seed, 2, length, 2, share)
    series, known = values.transpose(1, 2), observed.transpose(1, 2)
    filled = carry_forward(series, known)
    for index in np.ndindex(2, 2):
        row, mask = series[index], known[index]
        first = next((v for v, o in zip(row.tolist(), mask.tolist(), strict=True) if o), 0.0)
        expected = [last_known(row[: t + 1], mask[: t + 1]) if mask[: t + 1].any() else first for t in range(length)]
        assert filled[index].tolist() == expected
        assert last_observed(series, known)[index].item() == last_known(row, mask)
