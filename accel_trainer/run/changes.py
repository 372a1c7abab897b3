"""What differs between the configuration a run was started with and the one it goes on with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accel_trainer.settings import flatten, to_dict

if TYPE_CHECKING:
    from accel_trainer.config import RunConfig

_WITHOUT_EFFECT = ("run.", "tracking.", "checkpoint.", "predict.", "evaluation.batch_size", "training.micro_batch_size")
_EXPERIMENT = ("run.seed", "data.", "model.", "training.batch_size", "training.loss", "training.loss_delta")
_OPTIMIZER = ("optimizer.name", "optimizer.decay_all")
# The file may move: whether it is the same data is told by its digest.
_JUDGED_ELSEWHERE = ("data.path",)


@dataclass(frozen=True)
class Changes:
    """Options that differ, as ``name: old -> new``.

    Attributes:
        breaking: change what the numbers mean, or leave the saved state without use; refused unless allowed by name.
        harmless: a run may go on with them.
    """

    breaking: dict[str, str]
    harmless: dict[str, str]

    @property
    def fresh_optimizer(self) -> bool:
        """Whether the saved optimizer's state is of no use to the optimizer of now."""
        return any(name in self.harmless for name in _OPTIMIZER)


def compare(before: RunConfig, now: RunConfig) -> Changes:
    """Compare two configurations option by option; options without effect on the result are left out."""
    old, new = flatten(to_dict(before)), flatten(to_dict(now))
    breaking: dict[str, str] = {}
    harmless: dict[str, str] = {}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name) or name in _JUDGED_ELSEWHERE:
            continue
        text = f"{_show(old.get(name))} -> {_show(new.get(name))}"
        if name.startswith((*_EXPERIMENT, *_OPTIMIZER)):
            (harmless if name in now.run.allow_changes else breaking)[name] = text
        elif not name.startswith(_WITHOUT_EFFECT):
            harmless[name] = text
    return Changes(breaking, harmless)


def _show(value: Any) -> str:
    return "null" if value is None else str(value)
