"""Options of the built-in bridge, readable without numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accel_trainer.errors import ConfigError


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
