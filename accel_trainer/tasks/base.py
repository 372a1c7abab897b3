"""The protocol between the trainer and what is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from accel_trainer.data.samples import Batch


class Meter(Protocol):
    """Sums gathered during one evaluation; processes add theirs up with a single all-reduce."""

    def tensor(self) -> torch.Tensor:
        """Return all sums as one float64 tensor."""
        ...

    def load(self, sums: torch.Tensor) -> None:
        """Replace the sums by those of all processes."""
        ...

    def overall(self) -> dict[str, float]:
        """Return the metrics; one that cannot be computed is absent."""
        ...


class Task(Protocol):
    """One kind of learning problem; forecasting is the first.

    ``loss`` returns a sum and a weight rather than a mean, because only the trainer knows how many samples the whole
    step has over all passes and processes.
    """

    @property
    def metrics(self) -> Sequence[str]:
        """Names of what :meth:`Meter.overall` returns, for checking ``early_stopping.monitor`` before training."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss summed over what counts in the batch, and how much counts (both scalars).

        The weights of a step's batches add up to ``Samples.weight`` of its indices.
        """
        ...

    def meter(self, device: torch.device) -> Meter:
        """Return fresh sums for one evaluation."""
        ...

    def evaluate(self, model: nn.Module, batch: Batch, meter: Meter) -> None:
        """Add one batch to the sums; called without gradients and with the model in evaluation mode."""
        ...
