"""Where a run goes on from: what its folder holds, and whether it still fits the options of now."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list

from accel_trainer.checkpoints.checkpoint import DESCRIPTION, Checkpoint, read_object
from accel_trainer.checkpoints.manifest import NAME as MANIFEST
from accel_trainer.checkpoints.manifest import problem
from accel_trainer.checkpoints.store import Store
from accel_trainer.errors import CheckpointError, ConfigError, UserError
from accel_trainer.run.changes import compare
from accel_trainer.settings import from_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator

    from accel_trainer.config import RunConfig
    from accel_trainer.run.folder import RunFolder
    from accel_trainer.trainer.environment import Environment


@dataclass
class Start:
    """Where training begins, the same on all processes.

    Attributes:
        checkpoint: where it goes on from; None: at the beginning.
        notes: what people should know about it, one line each.
        finished: result of the run when there is nothing left to do.
        fresh_optimizer: the saved optimizer's state is of no use.
        lost_best: the best checkpoint is gone or damaged: what counts as best starts anew.
        foreign: the state was another run's, which keeps its own place in the tracker.
        environment: what the checkpoint remembers of the machine; empty in old ones.
        recorded: options that the checkpoint was written under.
    """

    checkpoint: Checkpoint | None = None
    notes: list[str] = field(default_factory=list)
    finished: dict[str, Any] | None = None
    fresh_optimizer: bool = False
    lost_best: bool = False
    foreign: bool = False
    environment: dict[str, Any] = field(default_factory=dict)
    recorded: RunConfig | None = None

    def use_threads(self, wanted: int | None) -> str | None:
        """Use as many CPU threads as before, since another number adds up in another order; return what to say of it.

        Args:
            wanted: the option ``training.threads``, which decides when it is set.
        """
        before, now = self.environment.get("threads"), torch.get_num_threads()
        if wanted is not None or before is None or before == now or before > _cores():
            return None
        torch.set_num_threads(before)
        return f"CPU threads: {before} as before, not {now}, for the same sums; training.threads decides otherwise"

    def micro_batches(self, processes: int) -> int | None:
        """Return the passes that a step was cut into before, if as many processes share it now."""
        return self.environment.get("micro_batches") if self.environment.get("processes") == processes else None

    def exactness(self, now: Environment, *, deterministic: bool) -> Iterator[str]:
        """Yield what keeps the rest of the run from being equal to the last bit to one that was never interrupted."""
        if changed := now.differences(self.environment):
            yield (
                f"not bit-exact from here on: {', '.join(changed)}; the windows, their order and the learning rates "
                "stay the same"
            )
        elif now.device.startswith("cuda") and not deterministic:
            yield "a GPU adds up in no fixed order: equal up to that; --training.deterministic true is bit-exact"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_start(accelerator: Accelerator, config: RunConfig, folder: RunFolder, data_digest: str) -> Start:
    """Decide on the main process where to start, for all processes; its errors are everyone's.

    Raises:
        CheckpointError: there are checkpoints and none verifies: never a silent fresh start over existing work.
        ConfigError: an option or the data changed in a way that would change the experiment.
    """
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [_look(config, folder, data_digest)]
        except (UserError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            found = [error]  # whatever it is: the others must not wait for an answer that never comes
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    if isinstance(found[0], Exception):
        raise found[0]
    start: Start = found[0]
    return start


def _look(config: RunConfig, folder: RunFolder, data_digest: str) -> Start:
    own = Store(folder.checkpoints)
    named = None if config.run.resume in ("auto", "never") else Path(config.run.resume)
    summary = folder.read_summary()
    # Without a configuration no start of this run has come as far as its first step: what is there are copies that a
    # start was making when it was killed, and they are made again.
    source = _named(named) if named is not None and not folder.config.exists() else None
    checkpoint: Checkpoint | None
    if source is not None:
        checkpoint, notes = source.checkpoint, source.notes
    else:
        checkpoint, notes = _newest(own, begun=folder.saved.exists() and summary is None)
        if checkpoint is None and named is not None:
            source = _named(named)
            checkpoint, notes = source.checkpoint, source.notes
        elif named is not None:
            _check_named(named, folder)
            notes.append(f"this run has checkpoints of its own: --run.resume {named} was for its first start")
    if checkpoint is None:
        if summary is None:
            begun = folder.metrics.exists() and folder.metrics.stat().st_size > 0
            again = f"{folder.metrics} begins anew: an earlier start ended before its first checkpoint"
            return Start(notes=[again] if begun else [])
        if _goes_on(config, summary):
            raise CheckpointError(
                f"{folder.checkpoints}: the checkpoints of this finished run are gone, so that it cannot go on; "
                "--run.resume never starts anew and sets this folder aside"
            )
        return Start(None, notes, summary)
    recorded = _recorded(checkpoint)
    changes = compare(recorded, config)
    if changes.breaking:
        name, *others = changes.breaking
        also = f"; changed as well: {', '.join(others)}" if others else ""
        raise ConfigError(
            name,
            f"{changes.breaking[name]} changes the experiment of the run in {named if source else folder.path}; "
            f"{_instead(named if source else None)}, or allow it with --run.allow_changes [{name}]{also}",
        )
    if checkpoint.manifest().get("data_digest") != data_digest and "data.path" not in config.run.allow_changes:
        raise ConfigError(
            "data.path",
            f"{config.data.path} does not hold the data that the checkpoint {checkpoint.path} was trained on (its "
            f"digest differs); {_instead(named if source else None)}, or allow it with --run.allow_changes [data.path]",
        )
    changed = [f"{name}: {text}" for name, text in changes.harmless.items()]
    if summary is not None and summary["training"]["step"] == checkpoint.step and not _goes_on(config, summary):
        notes += [f"not applied, since the run is finished: {text}" for text in changed]
        return Start(checkpoint, notes, summary)
    notes += [f"changed since this run was started: {text}" for text in changed]
    if changes.fresh_optimizer:
        notes.append("the optimizer starts without what it had gathered")
    if source is not None:
        checkpoint = _adopt(source, own)  # last: what was refused leaves nothing behind
    lost_best = _best_is_lost(own, checkpoint, notes)
    notes.append(f"going on from step {checkpoint.step} ({checkpoint.path})")
    environment = checkpoint.own_state().get("environment", {})
    return Start(
        checkpoint,
        notes,
        fresh_optimizer=changes.fresh_optimizer,
        lost_best=lost_best,
        foreign=source is not None,
        environment=environment,
        recorded=recorded,
    )


def _instead(taken_over: Path | None) -> str:
    """Return what to do about a change that makes another experiment; beginning anew differs with what was asked."""
    if taken_over is None:
        return "choose another --run.name, start anew with --run.resume never"
    return f"take its weights alone with --model.init_from {taken_over} instead of --run.resume"


def _newest(store: Store, *, begun: bool = False) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies, and what is to be said of it.

    Args:
        store: where to look.
        begun: whether there was a checkpoint before.
    """
    checkpoint, passed_over = store.newest()
    if checkpoint is None and (passed_over or begun):
        why = "; ".join(passed_over) or "those that were there are gone"
        raise CheckpointError(
            f"{store.root}: no checkpoint verifies ({why}); --run.resume never starts anew and sets this folder aside"
        )
    return checkpoint, [f"passed over {text}" for text in passed_over]


def _recorded(checkpoint: Checkpoint) -> RunConfig:
    """Return the options that a checkpoint was written under."""
    path = checkpoint.path / DESCRIPTION
    try:
        return from_dict(read_object(path)["run"])
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: cannot be read by this version: {error}") from None


@dataclass(frozen=True)
class _Source:
    """What ``run.resume`` names: a checkpoint of another run, in its own place."""

    store: Store
    checkpoint: Checkpoint
    notes: list[str]


def _named(path: Path) -> _Source:
    number, notes = path.name.removeprefix("step-"), list[str]()
    checkpoint: Checkpoint | None
    if number.isdigit() and (path / MANIFEST).exists():
        store = Store(path.parent)
        checkpoint = store.at(int(number))
    else:
        store = Store(path / "checkpoints")
        checkpoint, notes = _newest(store)
    if checkpoint is None:
        raise ConfigError("run.resume", f"{path} holds no checkpoint")
    return _Source(store, checkpoint, [*notes, f"taken over from {checkpoint.path}"])


def _adopt(source: _Source, own: Store) -> Checkpoint:
    """Copy a checkpoint into this run, and the best one its state speaks of."""
    adopted = own.adopt(source.checkpoint)
    best = source.checkpoint.best_step()
    if best is not None and best != source.checkpoint.step and problem(source.store.path(best)) is None:
        own.adopt(source.store.at(best))
    return adopted


def _check_named(named: Path, folder: RunFolder) -> None:
    inside = named.resolve()
    if inside == folder.path.resolve() or folder.path.resolve() in inside.parents:
        raise ConfigError(
            "run.resume",
            f"{named} belongs to this run itself, which goes on from its newest checkpoint by itself (auto); to go on "
            "from an older one, give the new run another --run.name",
        )


def _best_is_lost(store: Store, checkpoint: Checkpoint, notes: list[str]) -> bool:
    best = checkpoint.best_step()
    trouble = problem(store.path(best)) if best is not None else None
    if trouble is None:
        return False
    notes.append(f"the best checkpoint, of step {best}, is lost ({trouble}): the best is looked for anew")
    return True


def _goes_on(config: RunConfig, summary: dict[str, Any]) -> bool:
    """Whether a run that ended has steps left under the options of now: more epochs, more patience."""
    training = config.training
    total = training.epochs * summary["training"]["steps_per_epoch"]
    if summary["training"]["step"] >= min(total, training.max_steps or total):
        return False
    before, now = summary["early_stopping"], config.early_stopping
    patience_ran_out = now.enabled and now.patience <= before["patience"]
    return summary["stop_kind"] != "early_stopping" or not patience_ran_out
