"""What a result depends on to the last bit besides options and data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from accelerate import Accelerator


@dataclass(frozen=True)
class Environment:
    """The machine and the way a step is cut, as a checkpoint remembers them.

    Attributes:
        device: kind of device, and its name where there is one.
        threads: of the CPU, in each process.
        processes: over all machines.
        micro_batches: passes per step and process where no size of them is set.
        micro_batch_size: most windows in one pass.
        precision: no, fp16 or bf16.
        torch: its version.
    """

    device: str
    threads: int
    processes: int
    micro_batches: int
    micro_batch_size: int | None
    precision: str
    torch: str

    @classmethod
    def of(cls, accelerator: Accelerator, micro_batches: int, micro_batch_size: int | None) -> Environment:
        """Return the environment of now."""
        device = accelerator.device
        name = f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device.type)
        return cls(
            device=name,
            threads=torch.get_num_threads(),
            processes=accelerator.num_processes,
            micro_batches=micro_batches,
            micro_batch_size=micro_batch_size,
            precision=accelerator.mixed_precision,
            torch=str(torch.__version__),
        )

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return what is another than it was, as ``name old -> new``; an older checkpoint tells less."""
        named = (field.name for field in fields(self))
        changed = [name for name in named if name in recorded and recorded[name] != getattr(self, name)]
        return [f"{name} {_show(recorded[name])} -> {_show(getattr(self, name))}" for name in changed]


def _show(value: object) -> str:
    return "unset" if value is None else str(value)
