"""Options of the built-in bridge, readable without numpy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from accel_trainer.errors import ConfigError

FAULT_CLASSES: tuple[str, ...] = ("normal", "missing", "minor", "outlier", "square", "trend", "drift")
"""States of one reading, in the order of the label numbers: the seven classes monitoring engineers sort data into."""


@dataclass
class BridgeOptions:
    """The generated bridge; used when data.path is "bhm"."""

    days: float = 365.0
    """Length of the record in days."""
    period: float = 600.0
    """Seconds between two rows; the values are means over that time."""
    sensors: int = 24
    """Number of sensors, spread over deflection, strain, acceleration RMS, temperature, wind and more."""
    start: str = "2025-01-01"
    """First moment of the record, an ISO date."""
    seed: int = 0
    """Seed of weather, traffic, noise and faults; the run's own seed has no effect on the data."""
    faults: bool = True
    """Put sensor faults (missing, minor, outlier, square, trend, drift) and gaps into the readings."""
    damage: float = 0.0
    """Share of stiffness lost at the damage event, 0 for none."""
    damage_day: float | None = None
    """Day of the damage event; null: two thirds through the record."""
    kind: Literal["concrete", "steel"] = "concrete"
    """Material: sets stiffness, thermal lag and traffic strain."""

    def __post_init__(self) -> None:
        for name, value, valid, allowed in (
            ("days", self.days, 0 < self.days <= 36525, "above 0, at most 36525"),
            ("period", self.period, 1 <= self.period <= 86400, "1 to 86400 seconds"),
            ("sensors", self.sensors, 1 <= self.sensors <= 1000, "1 to 1000"),
            ("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1"),
            ("damage", self.damage, 0 <= self.damage < 1, "0 to below 1"),
        ):
            if not valid:
                raise ConfigError(f"data.bhm.{name}", f"{value!r} is out of range; allowed: {allowed}")
        if self.damage_day is not None and not 0 <= self.damage_day <= self.days:
            raise ConfigError("data.bhm.damage_day", f"{self.damage_day!r} is outside the {self.days} days")
        if self.kind not in ("concrete", "steel"):
            raise ConfigError("data.bhm.kind", f"{self.kind!r} is not allowed; expected concrete, steel")
        if self.rows == 0:
            raise ConfigError("data.bhm.days", f"{self.days!r} days are shorter than one period of {self.period} s")
        _ = self.start_ns

    @property
    def rows(self) -> int:
        """Number of whole periods in the record."""
        return int(self.days * 86400 / self.period * (1 + 1e-12))

    @property
    def start_ns(self) -> int:
        """First moment in nanoseconds since 1970-01-01, in the bridge's local standard time.

        Raises:
            ConfigError: ``start`` is not an ISO date, names a time zone, or lies outside what nanoseconds can hold
                together with the longest record.
        """
        try:
            start = datetime.fromisoformat(self.start)
        except (TypeError, ValueError):
            problem = f"{self.start!r} is not an ISO date, such as 2025-01-01 or 2025-01-01T06:00"
            raise ConfigError("data.bhm.start", problem) from None
        if start.tzinfo is not None:
            raise ConfigError("data.bhm.start", f"{self.start!r} names a time zone; the bridge keeps local time")
        if not 1700 <= start.year < 2150:
            raise ConfigError("data.bhm.start", f"{self.start!r} is out of range; allowed: years 1700 to 2149")
        gone = start - datetime(1970, 1, 1)
        return (gone.days * 86400 + gone.seconds) * 10**9 + gone.microseconds * 1000

    @property
    def event_day(self) -> float:
        """Day of the damage event, with the default filled in."""
        return self.days * 2 / 3 if self.damage_day is None else self.damage_day
