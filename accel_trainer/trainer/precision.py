"""Device, precision and the optimizer step: everything between a loss and changed weights.

Accelerate decides the device and wraps the model; nothing of it is patched. Two of its conveniences are left unused:
its gradient accumulation (the trainer divides by the weight of the whole step) and its scheduler (steps once per
process instead of once per update).
"""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from accel_trainer.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from accel_trainer.config import TrainingOptions


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
        step_scheduler_with_optimizer=False,
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        origin = "" if options.mixed_precision else " (asked for by the launcher or accelerate config)"
        raise ConfigError(
            "training.mixed_precision",
            f"fp16 needs a GPU{origin}; on this CPU the run would be fp32 without saying so. Use bf16 or no",
        )
    return accelerator


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
        self._accelerator, self._model, self._optimizer = accelerator, model, optimizer
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

    def apply(self) -> tuple[float, bool]:
        """Clip, update the weights unless a gradient is NaN or infinite, and forget the gradients.

        Returns:
            The norm of all gradients before clipping, equal on all processes, and whether the weights were updated.
        """
        scaler = self._accelerator.scaler
        if scaler is not None:
            scaler.unscale_(getattr(self._optimizer, "optimizer", self._optimizer))  # inside Accelerate's wrapper
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # Reduced gradients are equal on all processes, and so is this decision: it needs no collective of its own.
        size = norm.item()
        finite = math.isfinite(size)
        if self._clip_norm is not None and finite:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        if scaler is not None:
            before = scaler.get_scale()
            self._optimizer.step()  # left out by the scaler itself when it found inf
            updated = scaler.get_scale() >= before
        else:
            if finite:
                self._optimizer.step()
            updated = finite
        for parameter in self._parameters:
            parameter.grad = None
        return size, updated


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed what dropout draws from; cheap enough for every pass, unlike ``torch.manual_seed``."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or torch.cuda.current_device()].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
