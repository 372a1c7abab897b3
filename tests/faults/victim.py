"""A training that is told when to die: ``python -m tests.faults.victim`` instead of ``accel_trainer.train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.checkpoints import stages
from accel_trainer.train import main
from tests.faults import moments

if TYPE_CHECKING:
    import os

_replace = Path.replace


def _replace_a_moment_later(self: Path, target: str | os.PathLike[str]) -> Path:
    moments.reached(f"replacing {Path(target).name}")
    return _replace(self, target)


if __name__ == "__main__":
    stages.reached = moments.reached
    Path.replace = _replace_a_moment_later  # type: ignore[assignment, method-assign]
    sys.exit(main())
