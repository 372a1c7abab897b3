"""Where a run goes on from: what its folder holds, and whether it still fits the options of now."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list

from accel_trainer.checkpoints.store import Checkpoint, Store
from accel_trainer.errors import CheckpointError, ConfigError, UserError
from accel_trainer.run.changes import compare
from accel_trainer.settings import from_dict, read_yaml

if TYPE_CHECKING:
    from accelerate import Accelerator

    from accel_trainer.config import RunConfig
    from accel_trainer.run.folder import RunFolder


@dataclass
class Start:
    """Where training begins, the same on all processes.

    Attributes:
        checkpoint: where it goes on from; None: at the beginning.
        notes: what people should know about it, one line each.
        finished: result of the run when there is nothing left to do.
    """

    checkpoint: Checkpoint | None = None
    notes: list[str] = field(default_factory=list)
    finished: dict[str, Any] | None = None


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
        except UserError as error:
            found = [error]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    if isinstance(found[0], Exception):
        raise found[0]
    start: Start = found[0]
    return start


def _look(config: RunConfig, folder: RunFolder, data_digest: str) -> Start:
    own = Store(folder.checkpoints)
    checkpoint, notes = _newest(own)
    if checkpoint is None:
        if config.run.resume in ("auto", "never"):
            return Start()
        # Training goes on here from another run's state; with checkpoints of its own this folder comes first.
        return Start(*_elsewhere(Path(config.run.resume)))
    before = from_dict(read_yaml(folder.config)) if folder.config.exists() else config
    changes = compare(before, config)
    if changes.breaking:
        name, *others = changes.breaking
        also = f"; changed as well: {', '.join(others)}" if others else ""
        raise ConfigError(
            name,
            f"{changes.breaking[name]} changes the experiment of the run in {folder.path}; choose another --run.name, "
            f"start anew with --run.resume never, or allow it with --run.allow_changes [{name}]{also}",
        )
    if checkpoint.manifest().get("data_digest") != data_digest and "data.path" not in config.run.allow_changes:
        raise ConfigError(
            "data.path",
            f"{config.data.path} does not hold the data that the run in {folder.path} was started with (its digest "
            "differs); choose another --run.name, or allow it with --run.allow_changes [data.path]",
        )
    notes += [f"changed since this run was started: {name}: {text}" for name, text in changes.harmless.items()]
    summary = folder.read_summary()
    if summary is not None and summary["training"]["step"] == checkpoint.step and not _goes_on(config, summary):
        return Start(checkpoint, notes, summary)
    return Start(checkpoint, [*notes, f"going on from step {checkpoint.step} ({checkpoint.path})"])


def _newest(store: Store) -> tuple[Checkpoint | None, list[str]]:
    checkpoint, passed_over = store.newest()
    if checkpoint is None and passed_over:
        raise CheckpointError(
            f"{store.root}: no checkpoint verifies ({'; '.join(passed_over)}); --run.resume never starts anew and sets "
            "this folder aside"
        )
    return checkpoint, [f"passed over {text}" for text in passed_over]


def _elsewhere(path: Path) -> tuple[Checkpoint, list[str]]:
    """Return the checkpoint that ``run.resume`` names: a checkpoint folder or the newest of a run."""
    number = path.name.removeprefix("step-")
    if number.isdigit() and (path / "manifest.json").exists():
        checkpoint: Checkpoint | None = Store(path.parent).at(int(number))
        notes: list[str] = []
    else:
        checkpoint, notes = _newest(Store(path / "checkpoints"))
    if checkpoint is None:
        raise CheckpointError(f"run.resume: {path} holds no checkpoint")
    return checkpoint, [*notes, f"going on from step {checkpoint.step} ({checkpoint.path})"]


def _goes_on(config: RunConfig, summary: dict[str, Any]) -> bool:
    """Whether a run that ended has steps left under the options of now: more epochs, more patience."""
    training = config.training
    total = training.epochs * summary["training"]["steps_per_epoch"]
    if summary["training"]["step"] >= min(total, training.max_steps or total):
        return False
    before, now = summary["early_stopping"], config.early_stopping
    patience_ran_out = now.enabled and now.patience <= before["patience"]
    return summary["stop_kind"] != "early_stopping" or not patience_ran_out
