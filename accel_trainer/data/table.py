"""The one form every source is brought into: a regular grid of rows with an observed mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from accel_trainer.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ClockKind = Literal["datetime", "seconds", "rows"]


@dataclass(frozen=True)
class Clock:
    """Maps row numbers to time on a regular grid.

    Attributes:
        kind: ``datetime`` (calendar time), ``seconds`` (a plain numeric time column, in seconds) or ``rows`` (the
            source has no time column; time is the row number).
        period: seconds between two rows; 1.0 for ``rows``.
        start: time of row 0: nanoseconds since 1970-01-01 for ``datetime``, else ns since the count began.
    """

    kind: ClockKind
    period: float
    start: int = 0

    def at(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the time in nanoseconds of rows ``first`` to ``last - 1`` (rows past the end are allowed)."""
        rows = np.arange(first, last, dtype=np.int64)
        period = self.period * 1e9
        # Whole nanoseconds stay whole numbers: a float row number times a period loses them in a long record.
        offsets = rows * int(period) if period.is_integer() else np.rint(rows * period).astype(np.int64)
        return self.start + offsets

    def labels(self, first: int, last: int) -> NDArray[np.generic]:
        """Return the same rows as people read them: ``datetime64[ns]``, seconds as float, or row numbers."""
        time = self.at(first, last)
        if self.kind == "datetime":
            return time.astype("datetime64[ns]")
        if self.kind == "seconds":
            return time / 1e9
        return np.arange(first, last, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Table:
    """One item (bridge, transformer, recording): its sensors on a regular grid.

    Attributes:
        values: [time, sensors] float32 in physical units; cells that were not observed hold 0.
        observed: [time, sensors] bool; False where the source had nothing, NaN or a marker such as ``#NV``.
        sensors: names in column order, unique.
        units: one per sensor, ``""`` where unknown.
        clock: time of each row.
        item_id: name of the item.
        notes: what a reader of the run should know about how the source was understood, one sentence each.
    """

    values: NDArray[np.float32]
    observed: NDArray[np.bool_]
    sensors: tuple[str, ...]
    units: tuple[str, ...]
    clock: Clock
    item_id: str = "item"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.values), len(self.sensors))
        if self.values.shape != shape or self.observed.shape != shape or len(self.units) != len(self.sensors):
            raise ValueError(
                f"values {self.values.shape}, observed {self.observed.shape}, {len(self.sensors)} sensors and "
                f"{len(self.units)} units do not describe one table"
            )
        if len(set(self.sensors)) != len(self.sensors):
            raise ValueError("sensor names repeat")

    def __len__(self) -> int:
        return len(self.values)

    def select(self, sensors: Sequence[str]) -> Table:
        """Return the table with just these sensors, in this order.

        Raises:
            DataError: a name is not in the table; the nearest known name is given.
        """
        position = {name: i for i, name in enumerate(self.sensors)}
        for name in sensors:
            if name not in position:
                known = ", ".join(self.sensors[:12]) + (", …" if len(self.sensors) > 12 else "")
                raise DataError(f"{self.item_id}: no sensor {name!r}{nearest(name, self.sensors)} (there are: {known})")
        columns = [position[name] for name in sensors]
        if columns == list(range(len(self.sensors))):
            return self
        return replace(
            self,
            values=np.ascontiguousarray(self.values[:, columns]),
            observed=np.ascontiguousarray(self.observed[:, columns]),
            sensors=tuple(sensors),
            units=tuple(self.units[c] for c in columns),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, clock, values and mask: equal digests mean equal experiments."""
        hasher = hashlib.sha256()
        hasher.update(repr((self.sensors, self.units, self.clock)).encode())
        hasher.update(np.ascontiguousarray(self.values).data)
        hasher.update(np.packbits(self.observed).data)
        return hasher.hexdigest()
