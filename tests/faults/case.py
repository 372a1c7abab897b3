"""A fault that a training has to survive, and the record of how it did."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.family import end_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.bench import Bench


class NotPossibleError(Exception):
    """This machine does not let a test do that, and why."""


@dataclass(frozen=True)
class Record:
    """What became of a case.

    Attributes:
        case: the case.
        times: how often the fault was inflicted.
        lost: what should not have happened, and where; None when nothing was lost.
        left_out: why it was not tried.
    """

    case: Case
    times: int = 0
    lost: Exception | None = None
    left_out: str = ""


@dataclass(frozen=True)
class Case:
    """A fault in a setting.

    Attributes:
        fault: what happens, for people.
        setting: to what kind of run.
        inflict: does it and checks what has to hold, by assertions; returns how often the fault was inflicted.
        slow: whether the test suite leaves it to the slow tests.
    """

    fault: str
    setting: str
    inflict: Callable[[Bench, random.Random], int]
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.fault}, {self.setting}"

    def perform(self, bench: Bench, seed: int) -> Record:
        """Inflict the fault; what it does at random follows from the seed and the case alone."""
        draws = random.Random(f"{seed} {self}")
        try:
            return Record(self, self.inflict(bench, draws))
        except NotPossibleError as error:
            return Record(self, left_out=str(error).strip())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is in the record, and the other cases are tried
            return Record(self, lost=error)
        finally:
            end_all()
