"""Baselines that only look something up: what any trained forecaster has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accel_trainer.errors import ConfigError
from accel_trainer.models.observed import last_observed, target_series
from accel_trainer.models.options import NoOptions
from accel_trainer.models.registry import ForecastShape, season_problem


class Persistence(nn.Module):
    """Repeats the last observed value; 0, the training mean of z-scores, where the context holds none."""

    def __init__(self, shape: ForecastShape, options: NoOptions | None = None) -> None:
        super().__init__()
        self.horizon, self.targets = shape.horizon, shape.targets

    def forward(self, past_values: Tensor, past_observed_mask: Tensor | None = None) -> Tensor:
        """Forecast.

        Args:
            past_values: [B, L, C].
            past_observed_mask: [B, L, C] bool, or None when every cell was observed.

        Returns:
            [B, H, C'].
        """
        series, observed = target_series(past_values, past_observed_mask, self.targets)
        return last_observed(series, observed).expand(-1, -1, self.horizon).transpose(1, 2)


class SeasonalNaive(nn.Module):
    """Repeats the last season of the context.

    Step h of the forecast is the value one season before it; beyond one season the same season comes again. Where that
    cell was not observed, the one a further whole season back is taken, as far as the context goes, and where none of
    them was, the last observed value.

    Raises:
        ConfigError: no season is known, or it is longer than the context.
    """

    def __init__(self, shape: ForecastShape, options: NoOptions | None = None) -> None:
        super().__init__()
        reason = season_problem(shape)
        if reason is not None or shape.season is None:
            raise ConfigError("data.season", f"seasonal_naive cannot be used here: {reason}")
        self.season, self.horizon, self.targets = shape.season, shape.horizon, shape.targets

    def forward(self, past_values: Tensor, past_observed_mask: Tensor | None = None) -> Tensor:
        """Forecast.

        Args:
            past_values: [B, L, C].
            past_observed_mask: [B, L, C] bool, or None when every cell was observed.

        Returns:
            [B, H, C'].
        """
        series, observed = target_series(past_values, past_observed_mask, self.targets)
        if observed is None:
            season = series[..., -self.season :]
        else:
            # [B, C', L] -> [B, C', place in the season, seasons]: "further back" is then the last dimension. Cells in
            # front of the context make the first season whole and count as not observed.
            missing = -series.shape[-1] % self.season
            folded = (*series.shape[:2], -1, self.season)
            seasons = F.pad(series, (missing, 0)).reshape(folded).transpose(2, 3)
            known = F.pad(observed, (missing, 0)).reshape(folded).transpose(2, 3)
            season = torch.where(
                known.any(-1), last_observed(seasons, known).squeeze(-1), last_observed(series, observed)
            )
        repeats = -(-self.horizon // self.season)
        return season.repeat(1, 1, repeats)[..., : self.horizon].transpose(1, 2)
