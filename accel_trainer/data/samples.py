"""What the trainer asks of training data, and the wrapper that gives it for any map-style dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

Batch = dict[str, torch.Tensor]


class Samples(Protocol):
    """Training data with random access; :class:`~accel_trainer.data.windows.Windows` is the one for forecasting."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def weight(self, indices: NDArray[np.int64]) -> float:
        """Return what the loss of these samples counts, equal to the weights that ``Task.loss`` returns for them."""
        ...

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """Return these samples as tensors on the training device."""
        ...


class DatasetSamples:
    """A ``datasets.Dataset`` or any other dataset with ``len`` and indexing by a list, each row weighing one.

    Args:
        dataset: ``dataset[[3, 1, 2]]`` returns a mapping of columns, as ``datasets.Dataset`` does.
        columns: columns to use; every one must hold numbers of one shape.
        device: where batches are wanted.
        transform: applied to each batch of tensors.
    """

    def __init__(
        self,
        dataset: Any,
        columns: Sequence[str],
        device: torch.device | str = "cpu",
        transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self._dataset, self._columns = dataset, list(columns)
        self._device, self._transform = torch.device(device), transform

    def __len__(self) -> int:
        return len(self._dataset)

    def weight(self, indices: NDArray[np.int64]) -> float:
        """Return the number of rows."""
        return float(len(indices))

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """Return the columns of these rows as tensors [B, …]."""
        rows = self._dataset[indices.tolist()]
        batch = {name: torch.as_tensor(rows[name]).to(self._device) for name in self._columns}
        return self._transform(batch) if self._transform else batch
