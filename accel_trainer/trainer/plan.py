"""Which windows every step consumes, on every process: a pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accel_trainer.data.permutation import Permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AHEAD = 8192
"""Windows whose order is computed at once: enough to make the cost of numpy calls vanish, small enough to be quick."""


@dataclass(frozen=True)
class Part:
    """One forward and backward pass of one process.

    Attributes:
        indices: windows in it, at least one.
        counts: False when the process had no window left and repeats one only to take part in the synchronisation.
    """

    indices: NDArray[np.int64]
    counts: bool = True


class StepPlan:
    """The windows of each optimizer step.

    An epoch is every window once, in the order of that epoch; its last step is shorter when the batch size does not
    divide the number of windows, and no window is dropped.

    Args:
        samples: number of windows.
        batch_size: windows in one step over all processes.
        epochs: passes over the windows.
        max_steps: steps after which training ends at the latest; None: no limit.
        seed: of the order.
    """

    def __init__(self, samples: int, batch_size: int, epochs: int, max_steps: int | None, seed: int) -> None:
        if samples < 1:
            raise ValueError("no samples to train on")
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.steps_per_epoch = -(-samples // batch_size)
        whole = epochs * self.steps_per_epoch
        self.total_steps = whole if max_steps is None else min(whole, max_steps)
        self._epoch, self._order, self._block = -1, None, (0, np.empty(0, dtype=np.int64))

    _order: Permutation | None

    def epoch(self, step: int) -> int:
        """Return the epoch (from 0) that step ``step`` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def indices(self, step: int) -> NDArray[np.int64]:
        """Return the windows of step ``step`` (from 0), in order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        begin = position * self.batch_size
        end = min(begin + self.batch_size, self.samples)
        if epoch != self._epoch or self._order is None:
            self._epoch, self._order = epoch, Permutation(self.samples, self.seed, epoch)
            self._block = (0, np.empty(0, dtype=np.int64))
        first, block = self._block
        if not first <= begin <= end <= first + len(block):
            ahead = np.arange(begin, min(max(begin + _AHEAD, end), self.samples), dtype=np.int64)
            first, block = begin, self._order(ahead)
            self._block = (first, block)
        return block[begin - first : end - first]


def own_range(count: int, rank: int, world: int) -> range:
    """Return which of ``count`` things in a row belong to one process; the parts differ by one at most."""
    return range(rank * count // world, (rank + 1) * count // world)


def share(indices: NDArray[np.int64], rank: int, world: int, micro_batch: int | None, parts: int = 1) -> list[Part]:
    """Cut a step's windows for one process into the passes it makes.

    Every process gets the same number of passes, since they synchronise after the last. A process without a window of
    its own repeats the step's first one without counting it.

    Args:
        indices: windows of the step, the same on all processes.
        rank: number of this process.
        world: number of processes.
        micro_batch: most windows in one pass; None: ``parts`` decides.
        parts: number of passes when ``micro_batch`` is None.
    """
    mine = own_range(len(indices), rank, world)
    own = indices[mine.start : mine.stop]
    largest = -(-len(indices) // world)
    passes = -(-largest // micro_batch) if micro_batch else min(parts, largest)
    if passes == 1:
        return [Part(own) if len(own) else Part(indices[:1], counts=False)]
    return [Part(piece) if len(piece) else Part(indices[:1], counts=False) for piece in np.array_split(own, passes)]
