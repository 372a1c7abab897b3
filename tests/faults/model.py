"""A small forecaster whose every step draws random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from tests.faults import moments

if TYPE_CHECKING:
    from torch import Tensor

    from accel_trainer.models.registry import ForecastShape


class Noisy(nn.Module):
    """Two layers with dropout, the same for every sensor."""

    def __init__(self, shape: ForecastShape, p: float = 0.3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Dropout(p), nn.Linear(shape.context, 32), nn.ReLU(), nn.Linear(32, shape.horizon))
        self.targets = shape.targets

    def forward(self, past_values: Tensor) -> Tensor:
        """Map [B, L, C] to [B, H, targets]."""
        moments.reached("training" if self.training else "evaluation")
        forecast: Tensor = self.net(past_values.transpose(1, 2)).transpose(1, 2)[..., : self.targets]
        return forecast
