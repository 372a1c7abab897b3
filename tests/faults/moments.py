"""Moments of a training at which something is done to it.

What is to be done stands in the training's environment, so that its command is the one that people type:

* a moment is a stage of a save (:data:`accel_trainer.checkpoints.stages.STAGES`); ``writing``: weights or the
  optimizer's state are about to be written; ``replacing <name>``: a file was written and is about to take another's
  place; or ``training`` or ``evaluation``: a forward pass of :class:`tests.faults.model.Noisy` in that mode;
* a :class:`Fault` is an action at the n-th time that a moment is reached by one of the processes.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.family import OWN, members

if TYPE_CHECKING:
    from collections.abc import Mapping

KILL, KILL_PROCESS, FILL = "kill", "kill process", "fill"
_FAULTS, _PAUSES, _DISK = "FAULTS", "FAULTS_PAUSES", "FAULTS_DISK"


@dataclass(frozen=True)
class Fault:
    """Something done to a training.

    Attributes:
        action: KILL (SIGKILL to all processes of the start, launcher included), KILL_PROCESS (to this one alone), FILL
            (write a file until the disk is full), or the name of a signal sent to this process.
        moment: name of the moment.
        nth: how often the moment has to be reached.
        rank: of the process that does it.
    """

    action: str
    moment: str
    nth: int = 1
    rank: int = 0


def environment(
    faults: tuple[Fault, ...], pauses: Mapping[str, float] | None = None, disk: Path | None = None
) -> dict[str, str]:
    """Return the variables that tell a training what will be done to it.

    Args:
        faults: what, and when.
        pauses: moment -> seconds that it takes longer than it would.
        disk: folder on the disk that FILL fills.
    """
    told = {_FAULTS: json.dumps([astuple(fault) for fault in faults]), _PAUSES: json.dumps(dict(pauses or {}))}
    return told if disk is None else {**told, _DISK: str(disk)}


def ballast(disk: Path) -> Path:
    """Return the file that FILL writes; without it there is room again."""
    return disk / "ballast"


_faults = [Fault(*fields) for fields in json.loads(os.environ.get(_FAULTS, "[]"))]
_pauses: dict[str, float] = json.loads(os.environ.get(_PAUSES, "{}"))
_rank = int(os.environ.get("RANK", "0"))
_times: Counter[str] = Counter()
_counting = threading.Lock()  # a save that goes on behind training reaches its stages on a thread of its own


def reached(stage: str) -> None:
    """Count a moment, a stage of a save or another, and do what is due."""
    with _counting:
        _times[stage] += 1
        now = (stage, _times[stage], _rank)
    for fault in _faults:
        if (fault.moment, fault.nth, fault.rank) == now:
            _do(fault.action)
    time.sleep(_pauses.get(stage, 0.0))


def _do(action: str) -> None:
    if action == KILL:
        # Itself last: nobody is left to do the rest.
        for pid in sorted(members(os.environ[OWN]), key=lambda pid: pid == os.getpid()):
            os.kill(pid, signal.SIGKILL)
    elif action == KILL_PROCESS:
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == FILL:
        _fill(ballast(Path(os.environ[_DISK])))
    else:
        os.kill(os.getpid(), signal.Signals[action])


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):  # to the last byte
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
