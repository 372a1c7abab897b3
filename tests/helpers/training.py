"""Trainings of a few steps in this process, with everything real but the size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from accel_trainer.config import RunConfig
from accel_trainer.data.split import Rows
from accel_trainer.data.windows import Series, Windows
from accel_trainer.models.registry import ForecastShape, create_model
from accel_trainer.tasks.forecasting import ForecastingTask
from accel_trainer.trainer.hooks import Hook, Request
from accel_trainer.trainer.loop import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accel_trainer.checkpoints.writer import Saved
    from accel_trainer.tasks.base import Task
    from accel_trainer.trainer.hooks import Row

CONTEXT, HORIZON, CHANNELS, TARGETS = 12, 4, 3, 2
SHAPE = ForecastShape(CONTEXT, HORIZON, CHANNELS, TARGETS)
TRAIN, VALIDATION = Rows(0, 105), Rows(105 - CONTEXT, 140)
"""90 training windows and 32 of validation."""


def series(observed: float | None = 0.8, seed: int = 0) -> Series:
    """Return noisy waves; a share of the cells is observed, all of them without a mask for None."""
    generator = np.random.default_rng(seed)
    time = np.arange(140)[:, None]
    values = np.sin(time / 6 + np.arange(CHANNELS)) + 0.1 * generator.normal(size=(140, CHANNELS))
    table = torch.from_numpy(values.astype(np.float32))
    if observed is None:
        return Series(table, None, None, TARGETS)
    mask = torch.from_numpy(generator.random(values.shape) < observed)
    return Series(table.where(mask, 0.0), mask, None, TARGETS)


def windows(of: Series, rows: Rows = TRAIN) -> Windows:
    """Return the windows of some rows."""
    return Windows(of, rows, CONTEXT, HORIZON)


class DropoutLinear(nn.Module):
    """A linear forecaster whose every step draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.4)
        self.linear = nn.Linear(CONTEXT * CHANNELS, HORIZON * TARGETS)

    def forward(self, past_values: torch.Tensor) -> torch.Tensor:
        """Map [B, L, C] to [B, H, C']."""
        forecast: torch.Tensor = self.linear(self.dropout(past_values.flatten(1)))
        return forecast.view(-1, HORIZON, TARGETS)


def model(name: str = "nlinear", seed: int = 0) -> nn.Module:
    """Return a small forecaster, the same one for the same seed."""
    torch.manual_seed(seed)
    return DropoutLinear() if name == "dropout" else create_model(name, SHAPE, {})


def config(**options: Any) -> RunConfig:
    """Return a configuration for a few steps, with ``section__option=value``."""
    made = RunConfig()
    made.training.batch_size = 16
    made.optimizer.lr = 1e-2
    for key, value in options.items():
        section, option = key.split("__")
        assert hasattr(getattr(made, section), option)
        setattr(getattr(made, section), option, value)
    return made


def trainer(
    forecaster: nn.Module,
    train: Any,
    validation: Any = None,
    *,
    hooks: Sequence[Hook] = (),
    store: Any = None,
    task: Task | None = None,
    **options: Any,
) -> Trainer:
    """Return a trainer on one process of the CPU, with an Accelerator of its own."""
    made = config(**options)
    task = task or ForecastingTask(forecaster, SHAPE, made.training.loss, made.training.loss_delta)
    accelerator = Accelerator(cpu=True)
    return Trainer(forecaster, task, train, validation, made, hooks=hooks, store=store, accelerator=accelerator)


def weights(of: Trainer) -> dict[str, torch.Tensor]:
    """Return a copy of a trainer's present weights."""
    return {name: value.clone() for name, value in of.bare_model.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Return whether weights are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Recorder(Hook):
    """Writes down what happens, and asks for what it is told to ask.

    Args:
        save_at: steps after which it asks for a checkpoint.
        stop_at: step after which it asks to stop.
        name: of the hook.
    """

    def __init__(
        self, save_at: Sequence[int] = (), stop_at: tuple[int, Any] | None = None, name: str = "recorder"
    ) -> None:
        self.name = name
        self.events: list[tuple[str, Any]] = []
        self.rows: list[Row] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self._save_at, self._stop_at = save_at, stop_at

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Write it down."""
        self.events.append(("start", trainer.state.step))
        self.weights.append(weights(trainer))
        return None

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Write it down with the weights, and ask."""
        step = trainer.state.step
        self.events.append(("step", step))
        self.weights.append(weights(trainer))
        stop = self._stop_at[1] if self._stop_at and step == self._stop_at[0] else None
        return Request(save=True, stop=stop) if stop or step in self._save_at else None

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> Request | None:
        """Write it down."""
        self.events.append(("evaluation", trainer.state.step))
        return None

    def on_rows(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        """Write them down."""
        self.events.append(("rows", [row["step"] for row in rows]))
        self.rows.extend(dict(row) for row in rows)

    def on_saved(self, trainer: Trainer, saved: Saved) -> None:
        """Write it down."""
        self.events.append(("failed" if saved.problem else "checkpoint", saved.path.name))

    def on_train_end(self, trainer: Trainer) -> None:
        """Write it down."""
        self.events.append(("end", trainer.state.step))
