"""A training that is told when to die: ``python -m tests.faults.victim`` instead of ``accel_trainer.train``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate.checkpointing

from accel_trainer.checkpoints import stages, writer
from accel_trainer.train import main
from tests.faults import moments

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

_replace = Path.replace


def _replace_a_moment_later(self: Path, target: str | os.PathLike[str]) -> Path:
    moments.reached(f"replacing {Path(target).name}")
    return _replace(self, target)


def _save_a_moment_later(save: Callable[..., None], *arguments: Any, **options: Any) -> None:
    moments.reached("writing")
    save(*arguments, **options)


if __name__ == "__main__":
    stages.reached = moments.reached
    Path.replace = _replace_a_moment_later  # type: ignore[assignment, method-assign]
    for module in (accelerate.checkpointing, writer):  # one writes while training waits, the other behind its back
        vars(module)["save"] = partial(_save_a_moment_later, vars(module)["save"])
    sys.exit(main())
