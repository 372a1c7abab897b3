"""One pass over samples that are not trained on, on all processes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from accel_trainer.trainer.agreement import sum_over_processes

if TYPE_CHECKING:
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
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        begin, end = rank * len(samples) // world, (rank + 1) * len(samples) // world
        meter = self.task.meter(self.accelerator.device)
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                for first in range(begin, end, self.batch_size):
                    indices = np.arange(first, min(first + self.batch_size, end))
                    self.task.evaluate(model, samples.batch(indices), meter)
        finally:
            model.train(was_training)
        meter.load(sum_over_processes(self.accelerator, meter.tensor()))
        return meter
