"""Pointwise losses over observed targets, as a sum and a weight.

The trainer divides by the weight of the whole global batch, so that neither the number of processes nor gaps in one
micro-batch change what a step optimises.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

LossKind = Literal["mse", "mae", "huber", "smooth_l1"]


def loss_sum(
    kind: LossKind, forecast: Tensor, target: Tensor, observed: Tensor | None = None, delta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Add up the loss of every observed target.

    Everything is computed in float32, under autocast too, which takes none of this to a lower precision. What stands
    where nothing was observed, NaN included, reaches neither the sum nor its gradient.

    Args:
        kind: with the error e, ``mse``: e²; ``mae``: |e|; ``huber``: e²/2 up to |e| = delta, then
            delta (|e| - delta/2); ``smooth_l1``: huber divided by delta.
        forecast: [B, H, C'], any floating type.
        target: [B, H, C'], in z units as the forecast.
        observed: [B, H, C'] bool; None: every target was observed.
        delta: |e| at which huber and smooth_l1 turn from square to linear, in z units.

    Returns:
        Sum and number of observed targets, two float32 tensors without dimensions on the forecast's device; nothing
        waits for the device.

    Raises:
        ValueError: the shapes differ; broadcasting would hide a wrong forecast.
    """
    if forecast.shape != target.shape or (observed is not None and observed.shape != target.shape):
        shapes = f"forecast {tuple(forecast.shape)}, target {tuple(target.shape)}"
        raise ValueError(shapes + (f" and observed {tuple(observed.shape)}" if observed is not None else ""))
    forecast, target = forecast.float(), target.float()
    if observed is None:
        weight = forecast.new_full((), target.numel())
    else:
        weight = observed.sum().float()
        # Taken out before the loss: its gradient at NaN is NaN, and NaN times a weight of 0 stays NaN.
        forecast, target = forecast.where(observed, 0.0), target.where(observed, 0.0)
    if kind == "mse":
        total = F.mse_loss(forecast, target, reduction="sum")
    elif kind == "mae":
        total = F.l1_loss(forecast, target, reduction="sum")
    elif kind == "huber":
        total = F.huber_loss(forecast, target, reduction="sum", delta=delta)
    else:
        total = F.smooth_l1_loss(forecast, target, reduction="sum", beta=delta)
    return total, weight
