"""Device, precision and the optimizer step: everything between a loss and changed weights.

Accelerate decides the device and wraps the model; nothing of it is patched. Two of its conveniences are left unused:
its gradient accumulation (the trainer divides by the weight of the whole step) and its scheduler (steps once per
process instead of once per update).
"""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from accel_trainer.errors import ConfigError, LaunchError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from accel_trainer.config import TrainingOptions
    from accel_trainer.data.samples import Batch


def create_accelerator(options: TrainingOptions) -> Accelerator:
    """Make the Accelerator of a run.

    What ``accelerate config`` or ``accelerate launch`` says about precision holds unless ``training.mixed_precision``
    is set.

    Raises:
        ConfigError: fp16 was asked for where Accelerate would silently train in fp32.
    """
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
        torch.use_deterministic_algorithms(True)
    # The plugin rather than the number: the number would give way to the launcher's, and Accelerate would divide the
    # loss by it a second time.
    accelerator = Accelerator(
        mixed_precision=options.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=options.process_timeout))],
        step_scheduler_with_optimizer=False,
    )
    if accelerator.distributed_type.value not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        raise LaunchError(
            f"Accelerate is set up for {accelerator.distributed_type.value}, which this version does not train with; "
            "use accelerate launch --multi_gpu, or a configuration such as launch/ddp.yaml"
        )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        origin = "" if options.mixed_precision else " (asked for by the launcher or accelerate config)"
        raise ConfigError(
            "training.mixed_precision",
            f"fp16 needs a GPU{origin}; on this CPU the run would be fp32 without saying so. Use bf16 or no",
        )
    return accelerator


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on the training device; samples that live there already are left as they are."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


class StepResult(NamedTuple):
    """What became of a step, the same on all processes.

    Attributes:
        norm: of all gradients, before clipping.
        updated: whether the weights changed.
        hopeless: whether the gradients were NaN or infinite and no smaller loss scale can help.
    """

    norm: float
    updated: bool
    hopeless: bool


class Stepper:
    """One optimizer step: backward passes, clipping, the check for NaN and infinity, the update.

    Args:
        accelerator: prepared with ``model`` and ``optimizer``.
        model: as ``accelerator.prepare`` returned it.
        optimizer: as ``accelerator.prepare`` returned it.
        clip_norm: largest gradient norm, None for no clipping.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
    ) -> None:
        self._accelerator, self._model = accelerator, model
        # Inside Accelerate's wrapper, whose step looks for another package on the disk twice before it gets to work.
        self._optimizer: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        self._clip_norm = clip_norm
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Return the context for a forward and backward pass; gradients travel only in the step's last pass."""
        if last or self._accelerator.num_processes == 1:
            return nullcontext()
        context: AbstractContextManager[None] = self._accelerator.no_sync(self._model)
        return context

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradients, scaled against underflow in fp16."""
        self._accelerator.backward(loss)

    def apply(self) -> StepResult:
        """Clip, update the weights unless a gradient is NaN or infinite, and forget the gradients."""
        scaler = self._accelerator.scaler
        if scaler is not None:
            scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # Reduced gradients are equal on all processes, and so is this decision: it needs no collective of its own.
        size = norm.item()
        finite = math.isfinite(size)
        if self._clip_norm is not None and finite:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        if scaler is not None:
            before = scaler.get_scale()
            scaler.step(self._optimizer)  # left out by the scaler itself when it found infinity
            scaler.update()
            updated = scaler.get_scale() >= before
            # While the scale has room to fall, an overflow is how it finds its place and no sign of divergence.
            hopeless = not updated and scaler.get_scale() < 1
        else:
            if finite:
                self._optimizer.step()
            updated, hopeless = finite, not finite
        for parameter in self._parameters:
            parameter.grad = None
        return StepResult(size, updated, hopeless)


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed what dropout draws from; cheap enough for every pass, unlike ``torch.manual_seed``."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
