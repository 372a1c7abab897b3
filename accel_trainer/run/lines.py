"""What a run says about itself when it starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from accel_trainer import __version__
from accel_trainer.optim.schedules import rate
from accel_trainer.trainer.plan import StepPlan

if TYPE_CHECKING:
    from accelerate import Accelerator

    from accel_trainer.config import RunConfig
    from accel_trainer.data.windows import Windows
    from accel_trainer.run.forecast_data import ForecastData
    from accel_trainer.trainer.loop import Trainer


def machine_line(accelerator: Accelerator) -> str:
    """Say what trains: processes, device, precision."""
    world, device = accelerator.num_processes, accelerator.device
    processes = f"{world} process{'es' if world > 1 else ''}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        name = f"CPU with {threads} thread{'s' if threads > 1 else ''}{' each' if world > 1 else ''}"
    else:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    return f"accel_trainer {__version__}: {processes} on {name}, precision {precision}"


def data_line(data: ForecastData, train: Windows, validation: Windows, test: Windows) -> str:
    """Say what the data is and how it was cut."""
    table, covariates = data.table, len(data.table.sensors) - data.targets
    sensors = f"{data.targets} target{'s' if data.targets > 1 else ''}"
    sensors += f" and {covariates} covariate{'s' if covariates > 1 else ''}" if covariates else ""
    return (
        f"data: {data.options.path}, {len(table):,} rows every {table.clock.period:g} s, {sensors}, "
        f"{table.observed.mean():.1%} observed; windows of {data.options.context} + {data.options.horizon} rows: "
        f"{len(train):,} training, {len(validation):,} validation, {len(test):,} test"
    )


def rate_line(before: RunConfig, now: RunConfig, trainer: Trainer) -> str | None:
    """Say what changed options do to the learning rate of a run that goes on; None if nothing."""
    training = before.training
    plan = StepPlan(trainer.plan.samples, training.batch_size, training.epochs, training.max_steps, before.run.seed)
    share = rate(before.schedule, plan.total_steps, plan.steps_per_epoch)
    was, will = before.optimizer.lr * share(trainer.state.updates), trainer.optimizer.param_groups[0]["lr"]
    if math.isclose(was, will, rel_tol=1e-9):
        return None
    return (
        f"the learning rate is {will:.3g} from here on, where it would have been {was:.3g}: schedule "
        f"{now.schedule.name} over {trainer.plan.total_steps:,} steps, after {plan.total_steps:,} before"
    )


def model_line(config: RunConfig, trainer: Trainer) -> str:
    """Say what is trained and for how long."""
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return (
        f"model: {config.model.name}, {parameters:,} parameters; {config.optimizer.name}, lr {config.optimizer.lr:g}; "
        f"{trainer.plan.steps_per_epoch:,} steps of {config.training.batch_size} windows an epoch, "
        f"{trainer.plan.total_steps:,} steps at most"
    )
