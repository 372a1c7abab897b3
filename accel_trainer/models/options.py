"""Options of the built-in models, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from accel_trainer.errors import ConfigError


@dataclass
class NoOptions:
    """A model without options of its own."""


@dataclass
class NLinearOptions:
    """Options of :class:`accel_trainer.models.linear.NLinear`."""

    individual: bool = False
    """One weight matrix per target instead of one that all targets share."""


@dataclass
class DLinearOptions:
    """Options of :class:`accel_trainer.models.linear.DLinear`."""

    kernel_size: int = 25
    """Rows in the moving average that is called the trend; odd, so that it is centred."""
    individual: bool = False
    """One pair of weight matrices per target instead of one that all targets share."""

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ConfigError("model.options.kernel_size", f"{self.kernel_size!r} is not an odd number of 1 or more")
