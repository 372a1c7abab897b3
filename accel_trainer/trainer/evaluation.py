"""One pass over samples that are not trained on, on all processes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from accel_trainer.trainer.agreement import sum_over_processes
from accel_trainer.trainer.plan import own_range
from accel_trainer.trainer.precision import on_device

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
        own = own_range(len(samples), self.accelerator.process_index, self.accelerator.num_processes)
        device = self.accelerator.device
        # Sums are float64, which Apple's GPUs do not know.
        meter = self.task.meter(torch.device("cpu") if device.type == "mps" else device)
        was_training = model.training
        model.eval()
        try:
            # Not inference_mode: a table that a model makes on first use, for all lengths to come, must serve training.
            with torch.no_grad():
                for first in range(own.start, own.stop, self.batch_size):
                    indices = np.arange(first, min(first + self.batch_size, own.stop))
                    self.task.evaluate(model, on_device(samples.batch(indices), device), meter)
        finally:
            model.train(was_training)
        meter.load(sum_over_processes(self.accelerator, meter.tensor()))
        return meter
