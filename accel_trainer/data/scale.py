"""The z-score, fitted on what was observed in the training rows, and its way back to physical units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accel_trainer.data.split import Rows
from accel_trainer.data.table import Table
from accel_trainer.errors import DataError, nearest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_BLOCK = 1 << 16
"""Rows converted to float64 at a time, so that a long record needs no second copy in memory."""


@dataclass(frozen=True, eq=False)
class Scaler:
    """Mean and standard deviation (ddof 0) of each sensor.

    Attributes:
        sensors: names, in the order of ``mean`` and ``std``.
        mean: float64 [sensors], physical units; 0 for a sensor never observed in training.
        std: float64 [sensors], physical units; 1 for sensors in ``constant`` and ``unobserved``, so that scaling
            only takes off their mean.
        constant: sensors with zero spread in training.
        unobserved: sensors without a single reading in training.
    """

    sensors: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    constant: tuple[str, ...] = ()
    unobserved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.sensors),)
        if self.mean.shape != shape or self.std.shape != shape:
            raise ValueError(f"mean {self.mean.shape} and std {self.std.shape} do not fit {shape[0]} sensors")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise ValueError("means must be finite and standard deviations finite and above 0")

    @classmethod
    def fit(cls, table: Table, rows: Rows) -> Scaler:
        """Fit on the observed cells of the training rows, in float64.

        Args:
            table: values in physical units.
            rows: the training rows; readings outside them have no influence.
        """
        seen = table.observed[rows.begin : rows.end]
        count = seen.sum(axis=0)
        some = count > 0
        divisor = np.maximum(count, 1)
        total = np.zeros(len(table.sensors))
        low, high = np.full_like(total, np.inf), np.full_like(total, -np.inf)
        for values, observed in _blocks(table, rows):
            total += values.sum(axis=0, where=observed)
            np.minimum(low, values.min(axis=0, where=observed, initial=np.inf), out=low)
            np.maximum(high, values.max(axis=0, where=observed, initial=-np.inf), out=high)
        mean = total / divisor
        squares = np.zeros_like(total)
        for values, observed in _blocks(table, rows):
            squares += np.square(values - mean).sum(axis=0, where=observed)
        std = np.sqrt(squares / divisor)
        # By range, not by std: the mean of equal numbers is off in its last digit, and the std is then not quite 0.
        constant = some & (low == high)
        mean = np.where(constant, low, mean)
        std = np.where(some & ~constant, std, 1.0)
        return cls(
            sensors=table.sensors,
            mean=mean,
            std=std,
            constant=_names(table.sensors, constant),
            unobserved=_names(table.sensors, ~some),
        )

    def transform(self, table: Table) -> NDArray[np.float32]:
        """Return z-scores, float32 [time, sensors]; cells that were not observed are exactly 0, the training mean.

        Raises:
            DataError: the table's sensors are not those of the scaler in the same order (select them first), or a
                reading is so far off that its z-score is beyond float32.
        """
        if table.sensors != self.sensors:
            missing = [name for name in self.sensors if name not in table.sensors]
            problem = f"lacks {missing[0]!r}" if missing else "has others besides, or another order"
            raise DataError(f"{table.item_id}: the scaler was fitted on {', '.join(self.sensors)}; the data {problem}")
        scaled = np.empty(table.values.shape, np.float32)
        begin = 0
        with np.errstate(over="ignore"):
            for values, observed in _blocks(table, Rows(0, len(table))):
                block = scaled[begin : begin + len(values)]
                block[...] = np.where(observed, (values - self.mean) / self.std, 0.0)
                if not np.isfinite(block).all():
                    row, sensor = np.argwhere(~np.isfinite(block))[0]
                    raise DataError(
                        f"{table.item_id}: {self.sensors[sensor]!r} reads {values[row, sensor]:g} in row "
                        f"{begin + row}; with mean {self.mean[sensor]:g} and std {self.std[sensor]:g} in training "
                        "its z-score is beyond float32"
                    )
                begin += len(values)
        return scaled

    def inverse(self, values: ArrayLike, sensors: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Return z-scores in physical units.

        Args:
            values: [..., sensors] in z units.
            sensors: names of the last axis; None: all sensors of the scaler.

        Raises:
            DataError: a name the scaler does not know.
            ValueError: the last axis has another length.
        """
        where = slice(None) if sensors is None else self._positions(sensors)
        mean, std = self.mean[where], self.std[where]
        scores = np.asarray(values, dtype=np.float64)
        if scores.ndim == 0 or scores.shape[-1] != len(mean):
            raise ValueError(f"values {scores.shape} do not end in {len(mean)} sensors")
        physical: NDArray[np.float64] = scores * std + mean
        return physical

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists that JSON keeps to the last digit."""
        return {
            "sensors": list(self.sensors),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "constant": list(self.constant),
            "unobserved": list(self.unobserved),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Scaler:
        """Return the scaler that :meth:`to_dict` described.

        Raises:
            DataError: an entry is missing or of another kind.
        """
        try:
            return cls(
                sensors=tuple(content["sensors"]),
                mean=np.asarray(content["mean"], dtype=np.float64),
                std=np.asarray(content["std"], dtype=np.float64),
                constant=tuple(content["constant"]),
                unobserved=tuple(content["unobserved"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the saved scaler is damaged: {type(error).__name__} {error}") from None

    def _positions(self, sensors: Sequence[str]) -> list[int]:
        position = {name: i for i, name in enumerate(self.sensors)}
        for name in sensors:
            if name not in position:
                raise DataError(f"the scaler knows no sensor {name!r}{nearest(name, self.sensors)}")
        return [position[name] for name in sensors]


def _blocks(table: Table, rows: Rows) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    for begin in range(rows.begin, rows.end, _BLOCK):
        part = slice(begin, min(begin + _BLOCK, rows.end))
        yield table.values[part].astype(np.float64), table.observed[part]


def _names(sensors: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, yes in zip(sensors, chosen, strict=True) if yes)
