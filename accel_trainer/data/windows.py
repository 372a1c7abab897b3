"""Windows are gathered, not loaded: a batch is one indexed read of a series that lives in memory once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from accel_trainer.data.samples import Batch
    from accel_trainer.data.split import Rows


@dataclass(frozen=True, eq=False)
class Series:
    """A scaled table as tensors on one device, row after row in memory; a view that is not is copied.

    Attributes:
        values: [time, channels] float32 in z units, 0 where unobserved; the targets are the first channels.
        observed: [time, channels] bool, or None when every cell was observed, which saves all work with masks.
        features: [time, features] float32 calendar features, or None when no model asks for them.
        targets: number of leading channels that are forecast.
    """

    values: torch.Tensor
    observed: torch.Tensor | None
    features: torch.Tensor | None
    targets: int

    def __post_init__(self) -> None:
        # Windows count on it: in a transposed table or a choice of columns they would find other cells.
        for name in ("values", "observed", "features"):
            tensor = getattr(self, name)
            object.__setattr__(self, name, None if tensor is None else tensor.contiguous())

    def to(self, device: torch.device) -> Series:
        """Return the series on another device."""
        observed = None if self.observed is None else self.observed.to(device)
        features = None if self.features is None else self.features.to(device)
        return Series(self.values.to(device), observed, features, self.targets)

    @property
    def nbytes(self) -> int:
        """Bytes of memory the tensors take."""
        tensors = (self.values, self.observed, self.features)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


class Windows:
    """Every window of some rows of a series, in order of time.

    Window i covers rows ``begin + i·stride`` to ``begin + i·stride + context + horizon - 1``.

    Args:
        series: the whole series; windows of several splits share it.
        rows: the rows that windows may touch.
        context: rows in the past of a window (L).
        horizon: rows in its future (H).
        stride: rows between the starts of two windows.
        device: where batches are wanted; the series may live elsewhere.
    """

    def __init__(
        self,
        series: Series,
        rows: Rows,
        context: int,
        horizon: int,
        stride: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.series, self.rows = series, rows
        self.context, self.horizon, self.stride = context, horizon, stride
        self.device = device or series.values.device
        self._count = rows.windows(context, horizon, stride)
        # How many targets were observed before each row: a window's weight is one subtraction, on any rank.
        self._observed_before: NDArray[np.int64] | None = None
        if series.observed is not None:
            per_row = series.observed[:, : series.targets].sum(dim=1, dtype=torch.int64).cpu().numpy()
            self._observed_before = np.concatenate(([0], np.cumsum(per_row)))

    def __len__(self) -> int:
        return self._count

    def starts(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first row of each window."""
        return self.rows.begin + indices * self.stride

    def weight(self, indices: NDArray[np.int64]) -> float:
        """Return the number of observed targets in these windows: what their loss is divided by."""
        if self._observed_before is None:
            return float(len(indices) * self.horizon * self.series.targets)
        first = self.starts(indices) + self.context
        return float((self._observed_before[first + self.horizon] - self._observed_before[first]).sum())

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """Gather windows.

        Returns:
            ``past_values`` [B, L, C], ``future_values`` [B, H, C'] and, unless every cell was observed,
            ``past_observed_mask`` and ``future_observed_mask`` of the same shapes; with calendar features also
            ``past_time_features`` [B, L, F] and ``future_time_features`` [B, H, F].
        """
        source = self.series.values.device
        starts = torch.from_numpy(self.starts(indices)).to(source)
        targets = self.series.targets
        batch: Batch = {}
        values = self._gather(self.series.values, starts)
        batch["past_values"] = values[:, : self.context]
        batch["future_values"] = values[:, self.context :, :targets]
        if self.series.observed is not None:
            observed = self._gather(self.series.observed, starts)
            batch["past_observed_mask"] = observed[:, : self.context]
            batch["future_observed_mask"] = observed[:, self.context :, :targets]
        if self.series.features is not None:
            features = self._gather(self.series.features, starts)
            batch["past_time_features"] = features[:, : self.context]
            batch["future_time_features"] = features[:, self.context :]
        return batch

    def _gather(self, table: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Read [time, C] at windows starting at ``starts`` as [B, L + H, C]."""
        time, channels = table.shape
        length = self.context + self.horizon
        # Seen with stride C, the flat series is a matrix whose row t is the window that starts at t: the windows
        # overlap in memory, nothing is copied but the rows that are selected.
        overlapping = table.as_strided((time - length + 1, length * channels), (channels, 1))
        gathered = overlapping.index_select(0, starts).view(len(starts), length, channels)
        if gathered.device != self.device:
            pinned = gathered.pin_memory() if self.device.type == "cuda" else gathered
            gathered = pinned.to(self.device, non_blocking=True)
        return gathered
