"""All processes do the same thing in the same step."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from accelerate import Accelerator

    from accel_trainer.trainer.hooks import Request
    from accel_trainer.trainer.state import Stop


@dataclass(frozen=True)
class Decision:
    """What all processes do at the end of a step.

    Attributes:
        save: write a checkpoint.
        stop: end training for this reason.
        news: hear what became of a save.
    """

    save: bool = False
    stop: Stop | None = None
    news: bool = False


def sum_over_processes(accelerator: Accelerator, values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, added up in the order of their ranks.

    An all-reduce of three or more adds in an order that depends on how long the tensor is and on where in it a value
    stands: the same losses, logged ten at a time or fifty, would differ in their last digits.
    """
    if accelerator.num_processes == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(accelerator.num_processes)]
    torch.distributed.all_gather(parts, values)
    return functools.reduce(torch.add, parts)


def agree(accelerator: Accelerator, requests: Iterable[Request], *, news: bool = False) -> Decision:
    """Bring the requests of all processes together.

    The main process decides, except about requests made for any process. Costs nothing with one process, one small
    all-reduce with several, and one broadcast of the reason when training stops.

    Args:
        accelerator: of the run.
        requests: of this process's hooks.
        news: whether this process knows what became of a save.
    """
    heard = [r for r in requests if accelerator.is_main_process or r.any_process]
    save = any(r.save for r in heard)
    stops = [r.stop for r in heard if r.stop]
    # Divergence before all else: its state must not be saved as that of a run that was asked to stop in the same step.
    stop: Stop | None = next((s for s in stops if s.kind == "diverged"), stops[0] if stops else None)
    world = accelerator.num_processes
    if world == 1:
        return Decision(save, stop, news)
    # The lowest rank that wants to stop gives the reason: encoded so that the maximum finds it.
    speaks = world - accelerator.process_index if stop else 0
    wish = torch.tensor([int(save), speaks, int(news)], device=accelerator.device)
    torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
    save_agreed, speaker, news_agreed = wish.tolist()
    reason = [stop]
    if speaker:
        broadcast_object_list(reason, from_process=world - speaker)
    return Decision(bool(save_agreed), reason[0] if speaker else None, bool(news_agreed))
