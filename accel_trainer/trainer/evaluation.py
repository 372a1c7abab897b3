"""One pass over samples that are not trained on, on all processes together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from accel_trainer.trainer.agreement import sum_over_processes
from accel_trainer.trainer.plan import own_range
from accel_trainer.trainer.precision import on_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator
    from torch import nn

    from accel_trainer.data.samples import Samples
    from accel_trainer.tasks.base import Meter, Task


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Measures models on samples.

    Every process takes a consecutive share of the samples and all sums come together at the end: no sample is left
    out and none counts twice, whatever the number of processes and the batch size; no forecast is kept.

    Attributes:
        accelerator: device and processes.
        task: what is measured.
        batch_size: samples per process put through a model at once.
    """

    accelerator: Accelerator
    task: Task
    batch_size: int

    def measure(self, model: nn.Module, samples: Samples) -> Meter:
        """Return the sums of one pass, the same on all processes.

        Args:
            model: bare, not wrapped for several processes; it is in evaluation mode during the pass.
            samples: what to measure on.
        """
        meter = self.measure_unless(model, samples, lambda: False)
        assert meter is not None
        return meter

    def measure_unless(self, model: nn.Module, samples: Samples, given_up: Callable[[], bool]) -> Meter | None:
        """Return the sums of one pass, or None on all processes when one of them gave it up.

        Args:
            model: as for :meth:`measure`.
            samples: as for :meth:`measure`.
            given_up: asked between batches, with several processes about once a second.
        """
        world = self.accelerator.num_processes
        own = own_range(len(samples), self.accelerator.process_index, world)
        # As many rounds as the largest share needs: all processes ask each other in the same ones.
        largest = -(-len(samples) // world)
        rounds = -(-largest // self.batch_size)
        asking = _Asking(self.accelerator, given_up)
        device = self.accelerator.device
        # Sums are float64, which Apple's GPUs do not know.
        meter = self.task.meter(torch.device("cpu") if device.type == "mps" else device)
        if world > 1:
            # Running means differ between processes, each having seen its own share; the first one's are saved.
            for buffer in filter(torch.is_floating_point, model.buffers()):
                torch.distributed.broadcast(buffer, src=0)
        was_training = model.training
        model.eval()
        try:
            # Not inference_mode: a table that a model makes on first use, for all lengths to come, must serve training.
            with torch.no_grad():
                for number in range(rounds):
                    first = own.start + number * self.batch_size
                    indices = np.arange(first, min(first + self.batch_size, own.stop))
                    if len(indices):
                        self.task.evaluate(model, on_device(samples.batch(indices), device), meter)
                    if number + 1 < rounds and asking.given_up(number):
                        return None
        finally:
            model.train(was_training)
        meter.load(sum_over_processes(self.accelerator, meter.tensor()))
        return meter


class _Asking:
    """Whether to give up, asked in the same rounds on all processes: about once a second, whatever a round takes."""

    def __init__(self, accelerator: Accelerator, given_up: Callable[[], bool]) -> None:
        self._accelerator, self._given_up = accelerator, given_up
        self._due, self._begin = 0, time.perf_counter()

    def given_up(self, number: int) -> bool:
        """Return whether any process gives up after round ``number``."""
        if self._accelerator.num_processes == 1:
            return self._given_up()
        if number < self._due:
            return False
        pace = (time.perf_counter() - self._begin) / (number + 1)
        said = torch.tensor([float(self._given_up()), pace], device=self._accelerator.device)
        torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX)
        wish, slowest = said.tolist()
        # The slowest pace is the same number on all processes, and so is the round they ask in next.
        self._due = number + max(1, min(int(1 / max(slowest, 1e-6)), 2 * number + 1))
        return bool(wish)
