"""Train sensor forecasters with Hugging Face Accelerate."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel_trainer.config import RunConfig
    from accel_trainer.run.forecast_data import ForecastData
    from accel_trainer.run.trained import Trained
    from accel_trainer.tasks.forecasting import ForecastingTask
    from accel_trainer.trainer.loop import Trainer

__version__ = "0.1.0"

__all__ = ["ForecastData", "ForecastingTask", "RunConfig", "Trained", "Trainer", "__version__"]

# Imported on first use: `--help` and a mistake in a config file answer without waiting for torch.
_HOMES = {
    "ForecastData": "accel_trainer.run.forecast_data",
    "ForecastingTask": "accel_trainer.tasks.forecasting",
    "RunConfig": "accel_trainer.config",
    "Trained": "accel_trainer.run.trained",
    "Trainer": "accel_trainer.trainer.loop",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
