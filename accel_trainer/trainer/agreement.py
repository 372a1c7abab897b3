"""All processes do the same thing in the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list

from accel_trainer.trainer.hooks import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from accelerate import Accelerator

    from accel_trainer.trainer.state import Stop


def sum_over_processes(accelerator: Accelerator, values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, in place where there are several."""
    if accelerator.num_processes > 1:
        torch.distributed.all_reduce(values)
    return values


def agree(accelerator: Accelerator, requests: Iterable[Request]) -> Request:
    """Bring the requests of all processes together.

    The main process decides, except about requests made for any process. Costs nothing with one process, one small
    all-reduce with several, and one broadcast of the reason when training stops.
    """
    heard = [r for r in requests if accelerator.is_main_process or r.any_process]
    save = any(r.save for r in heard)
    stop: Stop | None = next((r.stop for r in heard if r.stop), None)
    world = accelerator.num_processes
    if world == 1:
        return Request(save=save, stop=stop)
    # The lowest rank that wants to stop gives the reason: encoded so that the maximum finds it.
    wish = torch.tensor([int(save), world - accelerator.process_index if stop else 0], device=accelerator.device)
    torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
    save_agreed, speaker = wish.tolist()
    reason = [stop]
    if speaker:
        broadcast_object_list(reason, from_process=world - speaker)
    return Request(save=bool(save_agreed), stop=reason[0] if speaker else None)
