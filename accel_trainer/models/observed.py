"""Series with gaps: what was last seen, and gaps filled with it. Time is the last dimension here.

Nothing is read back from the device and no size depends on the data, so all of it can be compiled into one graph.
"""

from __future__ import annotations

import torch
from torch import Tensor


def target_series(past_values: Tensor, past_observed_mask: Tensor | None, targets: int) -> tuple[Tensor, Tensor | None]:
    """Return the target channels of a batch with time last.

    Args:
        past_values: [B, L, C].
        past_observed_mask: [B, L, C] bool, or None when every cell was observed.
        targets: how many channels to keep (C'), from the first.

    Returns:
        [B, C', L] values and mask, contiguous: a copy costs less than strided arithmetic after it.
    """
    series = past_values[..., :targets].transpose(1, 2).contiguous()
    if past_observed_mask is None:
        return series, None
    return series, past_observed_mask[..., :targets].transpose(1, 2).contiguous()


def last_observed(series: Tensor, observed: Tensor | None) -> Tensor:
    """Return the last observed value of each series, 0 (the training mean of z-scores) where there is none.

    Args:
        series: [..., T].
        observed: [..., T] bool, or None when every cell was observed.

    Returns:
        [..., 1].
    """
    if observed is None:
        return series[..., -1:]
    # int32 and a product: on a CPU several times faster than argmax, which is not vectorised for this.
    rows = torch.arange(series.shape[-1], dtype=torch.int32, device=series.device)
    last = (observed * rows).amax(-1, keepdim=True).long()
    return series.gather(-1, last).where(observed.gather(-1, last), 0.0)


def carry_forward(series: Tensor, observed: Tensor | None) -> Tensor:
    """Fill every gap with the value observed before it, a gap at the start with the first observed value.

    Args:
        series: [..., T].
        observed: [..., T] bool, or None when every cell was observed.

    Returns:
        [..., T]; all 0 (the training mean of z-scores) where a series was not observed at all.
    """
    if observed is None:
        return series
    length = series.shape[-1]
    rows = torch.arange(length, dtype=torch.int32, device=series.device)
    first = length - (observed * (length - rows)).amax(-1, keepdim=True)  # = length where nothing was observed
    source = torch.where(observed, rows, first).cummax(-1).values
    filled = series.gather(-1, source.clamp(max=length - 1).long())
    return filled.where(first < length, 0.0)
