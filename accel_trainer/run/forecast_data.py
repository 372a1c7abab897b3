"""From a source to the windows of three splits: everything a forecaster is trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from accel_trainer.data.calendar import calendar_features, calendar_names
from accel_trainer.data.scale import Scaler
from accel_trainer.data.sources import choose_sensors, read_table
from accel_trainer.data.split import Splits, split_rows
from accel_trainer.data.windows import Series, Windows
from accel_trainer.errors import DataError
from accel_trainer.models.registry import ForecastShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accel_trainer.config import DataOptions
    from accel_trainer.data.samples import Batch
    from accel_trainer.data.split import Rows
    from accel_trainer.data.table import Table

_DAY = 86400.0
_SHARE_OF_DEVICE = 0.25
"""Part of a GPU's free memory that a series may take; the rest is for the model."""


@dataclass(eq=False)
class ForecastData:
    """A table cut into splits and scaled, on the training device.

    Attributes:
        table: the chosen sensors in physical units, targets first.
        targets: number of leading sensors that are forecast.
        splits: rows of training, validation and test.
        scaler: fitted on the training rows.
        options: how it was made.
        device: where batches come out.
    """

    table: Table
    targets: int
    splits: Splits
    scaler: Scaler
    options: DataOptions
    device: torch.device

    @classmethod
    def from_options(cls, options: DataOptions, device: torch.device | str = "cpu") -> ForecastData:
        """Read, choose sensors, split and fit the scaler.

        Raises:
            UserError: the source cannot be read, or it is too short for the splits.
        """
        table, targets = choose_sensors(read_table(options), options.targets, options.covariates)
        splits = split_rows(table, options.split, options.context, options.horizon)
        return cls(table, targets, splits, Scaler.fit(table, splits.train), options, torch.device(device))

    @property
    def shape(self) -> ForecastShape:
        """What goes into a forecaster and comes out of it."""
        return ForecastShape(
            context=self.options.context,
            horizon=self.options.horizon,
            channels=len(self.table.sensors),
            targets=self.targets,
            time_features=len(calendar_names(self.table.clock)),
            season=season_rows(self.options.season, self.table),
        )

    @property
    def sensors(self) -> Sequence[str]:
        """Names of the targets."""
        return self.table.sensors[: self.targets]

    @property
    def units(self) -> Sequence[str]:
        """Units of the targets."""
        return self.table.units[: self.targets]

    def series(self, *, time_features: bool = False) -> Series:
        """Return the scaled table as tensors, on the device when it fits there."""
        observed = None if self.table.observed.all() else torch.from_numpy(self.table.observed)
        features = None
        if time_features and calendar_names(self.table.clock):
            features = torch.from_numpy(calendar_features(self.table.clock, 0, len(self.table)))
        series = Series(torch.from_numpy(self.scaler.transform(self.table)), observed, features, self.targets)
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if series.nbytes > _SHARE_OF_DEVICE * free:
                return series
        return series.to(self.device)

    def windows(self, *, time_features: bool = False) -> tuple[Windows, Windows, Windows]:
        """Return the windows of training, validation and test."""
        series = self.series(time_features=time_features)
        options, splits = self.options, self.splits

        def of(rows: Rows, stride: int = 1) -> Windows:
            return Windows(series, rows, options.context, options.horizon, stride, self.device)

        split = of(splits.train, options.stride), of(splits.validation), of(splits.test)
        for name, windows in zip(("training", "validation", "test"), split, strict=True):
            if not len(windows):
                needed = options.context + options.horizon
                raise DataError(
                    f"{options.path}: {len(self.table)} rows hold no window of data.context + data.horizon = {needed}"
                )
            if not windows.weight(np.arange(len(windows))):
                raise DataError(f"{self.table.item_id}: no target is observed in the {name} rows")
        return split

    def last_context(self, *, time_features: bool = False) -> Batch:
        """Return the batch of one window whose future lies after the end of the data: what a forecast starts from."""
        rows, length, horizon = len(self.table), self.options.context, self.options.horizon
        if rows < length:
            raise DataError(f"{self.table.item_id}: {rows} rows are fewer than data.context = {length}")
        series = self.series(time_features=False)
        batch: Batch = {"past_values": series.values[rows - length :][None]}
        if series.observed is not None:
            batch["past_observed_mask"] = series.observed[rows - length :][None]
        if time_features and calendar_names(self.table.clock):
            features = torch.from_numpy(calendar_features(self.table.clock, rows - length, rows + horizon))
            features = features.to(self.device)[None]
            batch["past_time_features"], batch["future_time_features"] = features[:, :length], features[:, length:]
        return batch

    def scaler_notes(self) -> list[str]:
        """Return what is odd about the training rows, one sentence for each kind."""
        return [
            f"{', '.join(names)}: {what} in the training rows, so that z-scores are {scale}."
            for names, what, scale in (
                (self.scaler.constant, "constant", "distances in the sensor's own unit"),
                (self.scaler.unobserved, "never observed", "readings in the sensor's own unit"),
            )
            if names
        ]

    def facts(self) -> dict[str, Any]:
        """Return what a reader of a result should know about the data, JSON-ready."""
        clock, splits = self.table.clock, self.splits
        labels = clock.labels(0, len(self.table))
        return {
            "source": str(self.options.path),
            "digest": self.table.digest,
            "rows": len(self.table),
            "period_seconds": clock.period,
            "first": str(labels[0]),
            "last": str(labels[-1]),
            "observed": float(self.table.observed.mean()),
            "targets": list(self.sensors),
            "covariates": list(self.table.sensors[self.targets :]),
            "units": dict(zip(self.table.sensors, self.table.units, strict=True)),
            "splits": {
                name: {"begin": rows.begin, "end": rows.end, "windows": rows.windows(*self._window(), stride)}
                for name, rows, stride in (
                    ("train", splits.train, self.options.stride),
                    ("validation", splits.validation, 1),
                    ("test", splits.test, 1),
                )
            },
            "notes": [*self.table.notes, *self.scaler_notes()],
        }

    def _window(self) -> tuple[int, int]:
        return self.options.context, self.options.horizon


def season_rows(season: float | None, table: Table) -> int | None:
    """Return the length of a season in rows; without a set season, a day where the clock knows days."""
    if season is None and table.clock.kind != "datetime":
        return None
    rows = (_DAY if season is None else season) / table.clock.period
    return round(rows) if rows >= 2 and abs(rows - round(rows)) < 1e-6 * rows else None
