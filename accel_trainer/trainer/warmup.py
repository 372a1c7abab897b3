"""One pass that leaves no trace, so that every step of a run adds gradients up in the same order.

DistributedDataParallel gathers gradients in buckets. It fills them in the order of the parameters in the first step
and, from the second on, in the order in which gradients came in the first. Three or more processes add up a bucket in
an order that depends on where in it a value stands. A run that goes on would take its first step with the first
buckets where the run that was never interrupted is long past them: equal up to rounding, not to the last bit. With
two processes, a + b is b + a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def settle_buckets(model: nn.Module, processes: int, backward_pass: Callable[[], None]) -> None:
    """Let DistributedDataParallel see one backward pass before the first step; nothing for other models.

    Args:
        model: as ``accelerator.prepare`` returned it, in training mode or not.
        processes: over all machines.
        backward_pass: one forward and backward pass; its gradients are thrown away, and what it does to buffers (the
            running means of a batch norm) is undone.
    """
    if processes < 3 or not isinstance(model, DistributedDataParallel):
        return
    was_training = model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.module.train()
    backward_pass()
    model.module.train(was_training)
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
