"""What differs between the configuration a run was started with and the one it goes on with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from accel_trainer.config import RunConfig
from accel_trainer.settings import flatten, to_dict

_WITHOUT_EFFECT = (
    "run.",
    "tracking.",
    "checkpoint.",
    "predict.",
    "training.micro_batch_size",
    "training.max_time",
    "training.process_timeout",
    "training.threads",
)
_EXPERIMENT = ("run.seed", "data.", "model.", "training.batch_size", "training.loss", "training.loss_delta")
_OPTIMIZER = ("optimizer.name", "optimizer.decay_all")
# The file may move: whether it is the same data is told by its digest.
_JUDGED_ELSEWHERE = ("data.path",)
# Has had its effect once there is a checkpoint.
_ONLY_AT_FIRST = ("model.init_from",)


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
    old, new = _options(before), _options(now)
    breaking: dict[str, str] = {}
    harmless: dict[str, str] = {}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name) or name in (*_JUDGED_ELSEWHERE, *_ONLY_AT_FIRST):
            continue
        text = f"{_show(old.get(name))} -> {_show(new.get(name))}"
        if name.startswith((*_EXPERIMENT, *_OPTIMIZER)):
            (harmless if name in now.run.allow_changes else breaking)[name] = text
        elif not name.startswith(_WITHOUT_EFFECT):
            harmless[name] = text
    return Changes(breaking, harmless)


def experiment_digest(config: RunConfig, data_digest: str) -> str:
    """Return what tells the checkpoints of one experiment from those of another: data, model, seed, batch, loss."""
    # An option that a later version adds, at a default that changes nothing, makes no other experiment.
    defaults = _options(RunConfig())
    options = {
        name: value
        for name, value in _options(config).items()
        if name.startswith(_EXPERIMENT) and value != defaults.get(name)
    }
    for name in (*_JUDGED_ELSEWHERE, *_ONLY_AT_FIRST):
        options.pop(name, None)
    text = json.dumps([data_digest, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _options(config: RunConfig) -> dict[str, Any]:
    """Return every option by its dotted name; an empty mapping of further options says nothing."""
    return {name: value for name, value in flatten(to_dict(config)).items() if value != {}}


def _show(value: Any) -> str:
    return "null" if value is None else str(value)
