"""Where trainings are interrupted: runs, and for each number of processes one that nobody disturbs."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.store import Store
from tests.faults import moments
from tests.faults.family import Start
from tests.helpers.runs import SMALL, flags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.faults.moments import Fault

OPTIONS: dict[str, Any] = {
    **SMALL,
    "run.seed": 1,
    "model.name": "tests.faults.model:Noisy",
    "optimizer.lr": 0.05,  # so high that the best evaluation is not the last one
    "optimizer.weight_decay": 0.01,
    "schedule.name": "cosine",
    "schedule.warmup": 10,
    "training.epochs": 3,
    "training.micro_batch_size": 7,
    "training.clip_norm": 0.5,
    "training.threads": 1,
    "evaluation.every_steps": 7,
    "evaluation.batch_size": 16,
    "evaluation.baselines": "[persistence]",
    "early_stopping.patience": 4,
    "checkpoint.every_steps": 4,
    "checkpoint.keep_last": 2,
    "tracking.log_every": 3,
}
"""About a hundred steps in two seconds: dropout, micro-batches, clipping, warm-up, checkpoints every few steps and
after evaluations in between. With one, two and three processes alike the best of several bests is followed by four
worse evaluations, which end the run early."""

KEEP_LAST: int = OPTIONS["checkpoint.keep_last"]
_KEEP_ALL = {"checkpoint.keep_last": 1000}
WAITING, BEHIND = False, True
"""How a run saves: training waits, or goes on while a thread writes."""


@dataclass(frozen=True)
class Run:
    """A run under one command, which is given as often as it takes.

    Attributes:
        folder: of the run.
        logs: folder for what its starts say.
        processes: that train it.
        behind: whether saving goes on behind training.
        options: that differ from :data:`OPTIONS`.
    """

    folder: Path
    logs: Path
    processes: int = 1
    behind: bool = WAITING
    options: Mapping[str, Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    def start(self, *faults: Fault, pauses: Mapping[str, float] | None = None, disk: Path | None = None) -> Start:
        """Start it; see :mod:`tests.faults.moments` for what may be done to it."""
        launch = f"accelerate launch --multi_gpu --num_processes {self.processes} --main_process_port 0".split()
        options = {"run.dir": self.folder.parent, "run.name": self.folder.name, "checkpoint.asynchronous": self.behind}
        words = [
            *(launch if self.processes > 1 else [sys.executable]),
            *("-m", "tests.faults.victim" if faults else "accel_trainer.train"),
            *flags({**OPTIONS, **options, **self.options}),
        ]
        log = self.logs / f"{self.folder.name}-{next(self._numbers)}.log"
        return Start(words, self.folder, log, moments.environment(faults, pauses, disk))

    def wait_for_checkpoint(self, start: Start) -> None:
        """Wait until there is a newer checkpoint than now."""
        before = self.newest()
        start.wait_until(lambda: self.newest() > before, "there was a new checkpoint")

    def finish(self) -> str:
        """Start it a last time and wait for its end; return what it said."""
        return self.start().end()

    @property
    def store(self) -> Store:
        """Its checkpoints."""
        return Store(self.folder / "checkpoints")

    def newest(self) -> int:
        """Return the step of the newest checkpoint, whole or not; 0 without any."""
        return max(self.store.folders(), default=0)


class Bench:
    """A folder for runs.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = count(1)
        self._undisturbed: dict[int, Run] = {}

    def new(self, processes: int = 1, behind: bool = WAITING, folder: Path | None = None) -> Run:
        """Return a run that was not started yet."""
        return Run(folder or self.root / f"run-{next(self._numbers)}", self.root, processes, behind)

    def undisturbed(self, processes: int = 1) -> Run:
        """Return the run that the others are compared with, finished, with all its checkpoints."""
        if processes not in self._undisturbed:
            run = Run(self.root / f"undisturbed-{processes}", self.root, processes, options=_KEEP_ALL)
            run.finish()
            self._undisturbed[processes] = run
        return self._undisturbed[processes]

    def interrupted(self, step: int, processes: int = 1) -> Run:
        """Return a run as if it had been killed after saving a step, with all checkpoints up to it."""
        whole, run = self.undisturbed(processes), self.new(processes)
        shutil.copytree(whole.folder, run.folder)
        for name in ("summary.json", "report.html"):
            (run.folder / name).unlink()
        shutil.rmtree(run.folder / "model")
        for later, path in run.store.folders().items():
            if later > step:
                shutil.rmtree(path)
        return run
