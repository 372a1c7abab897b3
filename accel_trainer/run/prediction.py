"""The forecast of the rows after the end of the data, in physical units, with time stamps and names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from accel_trainer.errors import not_written

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import nn

    from accel_trainer.run.forecast_data import ForecastData
    from accel_trainer.tasks.forecasting import ForecastingTask

STEM = "forecast"


def forecast_table(model: nn.Module, task: ForecastingTask, data: ForecastData) -> pa.Table:
    """Forecast the horizon that follows the last row of the data.

    Returns:
        One row for each sensor and step: ``item``, ``sensor``, ``unit``, ``timestamp`` (a date, seconds or a row
        number, as the data counts time), ``step`` from 1, ``forecast`` in the sensor's unit.
    """
    import pyarrow as pa

    was_training = model.training
    model.eval()
    with torch.inference_mode():
        scaled = task.forecast(model, data.last_context(time_features=task.wants_time_features))[0]
    model.train(was_training)
    values = data.scaler.inverse(scaled.cpu().numpy(), data.sensors)  # [H, C'] float64
    horizon, targets = values.shape
    rows = len(data.table)
    stamps = coarsest(data.table.clock.labels(rows, rows + horizon))
    return pa.table(
        {
            "item": [data.table.item_id] * (horizon * targets),
            "sensor": np.repeat(np.array(data.sensors, dtype=object), horizon),
            "unit": np.repeat(np.array(data.units, dtype=object), horizon),
            "timestamp": np.tile(stamps, targets),
            "step": np.tile(np.arange(1, horizon + 1), targets),
            "forecast": values.T.reshape(-1),
        }
    )


def coarsest(stamps: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return dates in the coarsest unit that holds them all, so that nobody has to read nine zeros."""
    if stamps.dtype.kind != "M":
        return stamps
    units = ("s", "ms", "us")
    coarse = (stamps.astype(f"datetime64[{unit}]") for unit in units)
    return next((c for c in coarse if (c.astype(stamps.dtype) == stamps).all()), stamps)


def write_forecast(table: pa.Table, folder: Path) -> list[Path]:
    """Write ``forecast.parquet`` and ``forecast.csv``, each whole or not at all; return their paths."""
    import pyarrow.csv
    import pyarrow.parquet

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from None

    def replace(path: Path, write: Any) -> Path:
        staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(table, str(staging))
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)
        return path

    return [
        replace(folder / f"{STEM}.parquet", pyarrow.parquet.write_table),
        replace(folder / f"{STEM}.csv", pyarrow.csv.write_csv),
    ]
