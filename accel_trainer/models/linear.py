"""NLinear and DLinear: linear maps from context to horizon that are hard to beat.

Source: Zeng, Chen, Zhang, Xu, "Are Transformers Effective for Time Series Forecasting?", AAAI 2023, arXiv 2205.13504,
section 4 and figure 2. New here: the forecast does not depend on cells that were not observed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from accel_trainer.models.observed import carry_forward, last_observed, target_series
from accel_trainer.models.options import DLinearOptions, NLinearOptions
from accel_trainer.models.registry import ForecastShape


class PerTargetLinear(nn.Module):
    """A linear map of its own for every target: [B, C', L] -> [B, C', H], drawn as ``nn.Linear`` draws its weights.

    ``weight`` is [C', H, L] and ``bias`` [C', H]: one batched product instead of C' small ones.
    """

    def __init__(self, targets: int, context: int, horizon: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(context)
        self.weight = nn.Parameter(torch.empty(targets, horizon, context).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(targets, horizon).uniform_(-bound, bound))

    def forward(self, series: Tensor) -> Tensor:
        """Map [B, C', L] to [B, C', H]."""
        batch_last = torch.baddbmm(self.bias.unsqueeze(1), series.transpose(0, 1), self.weight.transpose(1, 2))
        return batch_last.transpose(0, 1)


def _context_to_horizon(shape: ForecastShape, individual: bool) -> nn.Module:
    if individual:
        return PerTargetLinear(shape.targets, shape.context, shape.horizon)
    return nn.Linear(shape.context, shape.horizon)


class NLinear(nn.Module):
    """Takes the last value off, maps the context to the horizon, and puts the last value back on.

    The last value is the last observed one in the context, or 0 (the training mean of z-scores) when there is none.
    Cells that were not observed stand at that last value: their difference is 0 and adds nothing.
    """

    def __init__(self, shape: ForecastShape, options: NLinearOptions | None = None) -> None:
        super().__init__()
        options = options or NLinearOptions()
        self.targets = shape.targets
        self.linear = _context_to_horizon(shape, options.individual)

    def forward(self, past_values: Tensor, past_observed_mask: Tensor | None = None) -> Tensor:
        """Forecast.

        Args:
            past_values: [B, L, C].
            past_observed_mask: [B, L, C] bool, or None when every cell was observed, which is faster.

        Returns:
            [B, H, C'].
        """
        series, observed = target_series(past_values, past_observed_mask, self.targets)
        last = last_observed(series, observed)
        differences = series - last
        if observed is not None:
            differences = differences.where(observed, 0.0)
        forecast: Tensor = self.linear(differences) + last
        return forecast.transpose(1, 2)


class DLinear(nn.Module):
    """Cuts the context into a moving average (trend) and the rest (seasonal), and maps each to the horizon.

    At both ends the average runs over repeated end values, as in Autoformer's decomposition. Gaps are filled with the
    value observed before them (at the start: with the first observed value): unlike an average over the observed
    cells only, this has a value even where a gap is wider than the kernel.

    Both maps start as ``nn.Linear`` does. The authors' first code (May 2022) started every weight at 1/L; in the code
    of the published paper (since August 2022) that survives only as a comment, for drawing smooth weights.
    """

    def __init__(self, shape: ForecastShape, options: DLinearOptions | None = None) -> None:
        super().__init__()
        options = options or DLinearOptions()
        self.targets, self.kernel_size = shape.targets, options.kernel_size
        self.seasonal = _context_to_horizon(shape, options.individual)
        self.trend = _context_to_horizon(shape, options.individual)

    def forward(self, past_values: Tensor, past_observed_mask: Tensor | None = None) -> Tensor:
        """Forecast.

        Args:
            past_values: [B, L, C].
            past_observed_mask: [B, L, C] bool, or None when every cell was observed, which is faster.

        Returns:
            [B, H, C'].
        """
        series = carry_forward(*target_series(past_values, past_observed_mask, self.targets))
        trend = moving_average(series, self.kernel_size)
        forecast: Tensor = self.seasonal(series - trend) + self.trend(trend)
        return forecast.transpose(1, 2)


def moving_average(series: Tensor, kernel_size: int) -> Tensor:
    """Average [B, C', L] over an odd number of rows around each, with the end values repeated; same shape.

    Sums over 2, 4, 8, … rows are made from one another, and those in the binary digits of ``kernel_size`` are put
    together. On a CPU that takes a tenth of ``avg_pool1d``'s time, and unlike ``cumsum`` it is deterministic on a GPU
    and does not lose digits along the series.
    """
    length, side = series.shape[-1], kernel_size // 2
    ends = (series[..., :1].expand(-1, -1, side), series[..., -1:].expand(-1, -1, side))
    sums, width = torch.cat([ends[0], series, ends[1]], dim=-1), 1  # sums over `width` rows, from each row on
    total, done = sums[..., :length], 1  # an odd kernel has the digit 1
    while 2 * width <= kernel_size:
        sums, width = sums[..., :-width] + sums[..., width:], 2 * width
        if kernel_size & width:
            total, done = total + sums[..., done : done + length], done + width
    return total / kernel_size
