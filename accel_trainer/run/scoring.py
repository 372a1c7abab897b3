"""What a result is worth: the model and its baselines on the same test windows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from accel_trainer.errors import DataError
from accel_trainer.models.closed_form import NormalEquations
from accel_trainer.models.registry import MODELS, create_model
from accel_trainer.tasks.forecasting import ForecastingTask
from accel_trainer.trainer.agreement import sum_over_processes
from accel_trainer.trainer.plan import own_range

if TYPE_CHECKING:
    from torch import nn

    from accel_trainer.data.samples import Samples
    from accel_trainer.data.windows import Windows
    from accel_trainer.models.registry import ForecastShape
    from accel_trainer.run.forecast_data import ForecastData
    from accel_trainer.tasks.base import Meter
    from accel_trainer.trainer.evaluation import Evaluator

_ENOUGH_PAIRS = 400_000
"""Training windows times sensors that the closed form is solved from; a longer record is thinned out evenly. On ETTh1
and on a year of bridge data the test error has settled in the fourth decimal well before."""


def report(meter: Any, data: ForecastData) -> dict[str, Any]:
    """Return all metrics of one evaluation with sensor names and physical units, JSON-ready."""
    targets = slice(0, data.targets)
    return dict(meter.errors.report(data.sensors, data.units, data.scaler.mean[targets], data.scaler.std[targets]))


class Baselines:
    """The reference forecasts of a run.

    Args:
        names: which ones; see :data:`accel_trainer.models.registry.MODELS`.
        shape: sizes of the windows.
        train: what the closed form is solved from; None: there is nothing it has not to forecast.
        evaluator: device and processes.

    Attributes:
        models: those that can be made for this shape, by name.
        left_out: name -> why the others cannot.
        notes: name -> what a reader should know.
    """

    def __init__(self, names: list[str], shape: ForecastShape, train: Windows | None, evaluator: Evaluator) -> None:
        self._evaluator, self._shape = evaluator, shape
        self.models: dict[str, nn.Module] = {}
        self.left_out: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        for name in names:
            if reason := MODELS[name].why_not(shape):
                self.left_out[name] = reason
            elif name != "closed_form_linear":
                self.models[name] = create_model(name, shape, {}).to(evaluator.accelerator.device)
            elif train is None:
                self.left_out[name] = "there are no training rows to solve it from"
            else:
                try:
                    self.models[name] = self._solve(shape, train)
                except DataError as error:
                    self.left_out[name] = str(error)

    def _solve(self, shape: ForecastShape, train: Windows) -> nn.Module:
        accelerator = self._evaluator.accelerator
        thinning = max(1, math.ceil(len(train) * shape.targets / _ENOUGH_PAIRS))
        chosen = np.arange(0, len(train), thinning)
        if thinning > 1:
            self.notes["closed_form_linear"] = f"solved from one in {thinning} of the {len(train):,} training windows"
        device = accelerator.device if accelerator.device.type != "mps" else torch.device("cpu")
        equations = NormalEquations(shape, device)
        mine = own_range(len(chosen), accelerator.process_index, accelerator.num_processes)
        own = chosen[mine.start : mine.stop]
        for indices in np.array_split(own, max(1, len(own) // 512)):
            batch = train.batch(indices)
            equations.update(
                batch["past_values"],
                batch.get("past_observed_mask"),
                batch["future_values"],
                batch.get("future_observed_mask"),
            )
        for sums in equations.tensors():
            sums.copy_(sum_over_processes(accelerator, sums))
        return equations.solve().to(accelerator.device)

    def score(self, samples: Samples) -> dict[str, Meter]:
        """Return the errors of each baseline on samples."""
        # Each is asked for what its own forward names, which is less than what the model beside it may want.
        return {
            name: replace(self._evaluator, task=ForecastingTask(model, self._shape)).measure(model, samples)
            for name, model in self.models.items()
        }
