"""Forecasting: given the context rows of all channels, the horizon rows of the targets."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from accel_trainer.errors import ConfigError, UserError
from accel_trainer.metrics import FORECAST_METRICS
from accel_trainer.metrics.losses import LossKind, loss_sum
from accel_trainer.metrics.streaming import ErrorSums

if TYPE_CHECKING:
    from torch import nn

    from accel_trainer.data.samples import Batch
    from accel_trainer.models.registry import ForecastShape

INPUTS = (
    "past_values",
    "past_observed_mask",
    "past_time_features",
    "future_time_features",
    "future_values",
    "future_observed_mask",
)
"""What a forecaster's ``forward`` may name. ``future_values`` are the answer: a model that asks for them is refused."""


class ForecastMeter:
    """Errors of one evaluation, with the loss beside the metrics.

    Attributes:
        errors: sums per sensor and step ahead.
        loss: [2] float64, sum and weight of the training loss.
    """

    def __init__(self, horizon: int, targets: int, device: torch.device) -> None:
        self.errors = ErrorSums(horizon, targets, device)
        self.loss = torch.zeros(2, dtype=torch.float64, device=device)

    def tensor(self) -> torch.Tensor:
        """Return all sums as one flat float64 tensor."""
        return torch.cat([self.loss, self.errors.tensor().flatten()])

    def load(self, sums: torch.Tensor) -> None:
        """Replace the sums by those of all processes."""
        self.loss = sums[:2].clone()
        self.errors = ErrorSums.from_tensor(sums[2:].view_as(self.errors.tensor()))

    def overall(self) -> dict[str, float]:
        """Return loss, mse, mae, rmse and r2 in z units; empty when nothing was observed."""
        total, weight = self.loss.tolist()
        return {"loss": total / weight, **self.errors.overall()} if weight else {}


class ForecastingTask:
    """Loss and metrics of a forecaster.

    Args:
        model: the forecaster before it is wrapped for several processes; only its ``forward`` signature is read.
        shape: what goes in and out.
        loss: mse, mae, huber or smooth_l1.
        delta: where huber and smooth_l1 change from square to linear.

    Raises:
        ConfigError: ``forward`` requires an argument that no batch has.
    """

    metrics = FORECAST_METRICS

    def __init__(self, model: nn.Module, shape: ForecastShape, loss: LossKind = "mse", delta: float = 1.0) -> None:
        self.shape, self._kind, self._delta = shape, loss, delta
        self._optional, self._required = model_inputs(model)
        self._checked = False

    @property
    def wants_time_features(self) -> bool:
        """Whether the model names calendar features among its inputs."""
        return any(name.endswith("time_features") for name in (*self._optional, *self._required))

    def forecast(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the model's forecast [B, H, C'] in float32.

        Raises:
            UserError: the model returned another shape.
        """
        inputs = {name: batch[name] for name in (*self._required, *self._optional) if name in batch}
        for name in self._required:
            if name not in inputs:
                inputs[name] = self._absent(name, batch)
        output = model(**inputs)
        forecast = output if isinstance(output, torch.Tensor) else getattr(output, "prediction_outputs", None)
        if not isinstance(forecast, torch.Tensor):
            raise UserError(
                f"model: {type(model).__name__} returned a {type(output).__name__}; expected the forecast as a tensor "
                "[windows, data.horizon, targets], or an object that holds it as prediction_outputs"
            )
        if not self._checked:
            expected = (len(batch["past_values"]), self.shape.horizon, self.shape.targets)
            if tuple(forecast.shape) != expected:
                raise UserError(
                    f"model: {type(model).__name__} returned a forecast of shape {tuple(forecast.shape)}; "
                    f"expected {expected} = (windows, data.horizon, targets)"
                )
            self._checked = True
        return forecast.float()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss summed over observed targets, and their number."""
        forecast = self.forecast(model, batch)
        return loss_sum(self._kind, forecast, batch["future_values"], batch.get("future_observed_mask"), self._delta)

    def meter(self, device: torch.device) -> ForecastMeter:
        """Return fresh sums for one evaluation."""
        return ForecastMeter(self.shape.horizon, self.shape.targets, device)

    def evaluate(self, model: nn.Module, batch: Batch, meter: Any) -> None:
        """Add one batch of forecasts to the sums."""
        forecast = self.forecast(model, batch)
        target, observed = batch["future_values"], batch.get("future_observed_mask")
        total, weight = loss_sum(self._kind, forecast, target, observed, self._delta)
        meter.loss += torch.stack([total, weight]).to(meter.loss.device).double()
        meter.errors.update(forecast, target, observed)

    def _absent(self, name: str, batch: Batch) -> torch.Tensor:
        # Masks are left out of batches in which everything was observed; a model that insists on one gets it whole.
        past = batch["past_values"]
        if name == "past_observed_mask":
            return torch.ones(1, 1, 1, dtype=torch.bool, device=past.device).expand(past.shape)
        raise ConfigError("model.name", f"the model needs {name}, which data without calendar time does not have")


def model_inputs(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of a forward's optional and required inputs.

    Raises:
        ConfigError: a required argument is not one of a batch's names, or the answer is asked for.
    """
    optional: list[str] = []
    required: list[str] = []
    name_of_model = type(model).__name__
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        has_default = parameter.default is not parameter.empty
        if name.startswith("future_") and not name.endswith("time_features"):
            if has_default:
                continue  # transformers' models take the answer to compute a loss of their own; ours is the task's
            raise ConfigError("model.name", f"{name_of_model}.forward requires {name}, which is what it must forecast")
        if name in INPUTS:
            (optional if has_default else required).append(name)
        elif not has_default:
            names = ", ".join(INPUTS[:4])
            raise ConfigError(
                "model.name", f"{name_of_model}.forward requires {name!r}, which no batch has; it may name {names}"
            )
    return optional, required
