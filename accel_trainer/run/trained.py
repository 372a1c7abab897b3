"""A trained forecaster on the disk: weights, what they belong to, and how to read it back."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.checkpoint import DESCRIPTION, read_object
from accel_trainer.checkpoints.files import sync, sync_tree, write_json, write_text
from accel_trainer.checkpoints.manifest import problem, read_manifest, write_manifest
from accel_trainer.checkpoints.store import Store
from accel_trainer.checkpoints.weights import WEIGHTS, load_weights
from accel_trainer.data.scale import Scaler
from accel_trainer.data.sources import read_table
from accel_trainer.data.split import Rows, Splits, split_rows
from accel_trainer.errors import CheckpointError, ConfigError, DataError, UserError, nearest
from accel_trainer.models.registry import ForecastShape, create_model
from accel_trainer.options import build_options
from accel_trainer.run.folder import RunFolder
from accel_trainer.settings import from_dict, to_dict

if TYPE_CHECKING:
    import torch
    from torch import nn

    from accel_trainer.config import DataOptions, RunConfig
    from accel_trainer.run.forecast_data import ForecastData

SCALER, CARD = "scaler.json", "README.md"


def describe(config: RunConfig, data: ForecastData) -> dict[str, dict[str, Any]]:
    """Return the files that lie beside weights and say what they are for: name -> JSON content."""
    clock = data.table.clock
    return {
        DESCRIPTION: {
            "shape": dataclasses.asdict(data.shape),
            "sensors": list(data.table.sensors),
            "units": list(data.table.units),
            "clock": {"kind": clock.kind, "period": clock.period},
            "data_digest": data.table.digest,
            "run": to_dict(config),
        },
        SCALER: data.scaler.to_dict(),
    }


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained forecaster as it lies on the disk: a run, a checkpoint or an exported model. Read without torch.

    Attributes:
        folder: where the weights are.
        config: of the run that trained it.
        shape: what goes in and out.
        scaler: of the training data; its sensors are the model's channels, targets first.
        units: one for each sensor.
        period: seconds between two rows.
    """

    folder: Path
    config: RunConfig
    shape: ForecastShape
    scaler: Scaler
    units: tuple[str, ...]
    period: float

    @classmethod
    def from_pretrained(cls, path: Path | str, *, named_by: str = "") -> Trained:
        """Find and verify the weights that a folder stands for: of a run, the best ones.

        Args:
            path: a run, a checkpoint or an exported model.
            named_by: the option that names the folder, for messages.

        Raises:
            UserError: there is no such folder, or nothing of that kind in it.
            CheckpointError: the weights are damaged, or their description cannot be read.
        """
        folder = find(Path(path), named_by)
        if trouble := problem(folder):
            raise CheckpointError(f"{folder}: {trouble}")
        try:
            described, scaler = read_object(folder / DESCRIPTION), Scaler.from_dict(read_object(folder / SCALER))
            shape = build_options(ForecastShape, described["shape"], "shape")
            units, period = tuple(described["units"]), float(described["clock"]["period"])
            config = from_dict(described["run"])
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise CheckpointError(f"{folder}: its description cannot be read: {error}") from None
        return cls(folder, config, shape, scaler, units, period)

    def load_model(self, trust: str | None = None) -> nn.Module:
        """Return the forecaster with its weights, on the CPU, in evaluation mode.

        Args:
            trust: the ``module:Class`` that may be imported, equal to the recorded name. Built-in models need none.

        Raises:
            ConfigError: the model's class cannot be imported.
            UserError: it names a class that was not trusted: what a file from elsewhere names must not run by being
                read.
            CheckpointError: the weights do not fit it.
        """
        name = self.config.model.name
        if ":" in name and trust != name:
            raise UserError(
                f"{self.folder}: the model is {name}, a class of its own, and loading it runs its code; if you know "
                f"it, add --trust {name}"
            )
        model = create_model(self.config.model.name, self.shape, self.config.model.options)
        load_weights(self.folder, model)
        return model.eval()

    def read_data(
        self, options: DataOptions, device: torch.device | str = "cpu", *, whole: bool = False
    ) -> ForecastData:
        """Read a source for this model: its sensors by name in any order, its scaler instead of a new one.

        Args:
            options: which source.
            device: where batches are wanted.
            whole: take all rows as the test split, whatever the options say about splits.

        Raises:
            DataError: a sensor is missing, or the rows are not as far apart as those of the training.
        """
        import torch

        from accel_trainer.run.forecast_data import ForecastData

        table = read_table(options).select(self.scaler.sensors)
        if abs(table.clock.period - self.period) > 1e-3 * self.period:
            raise DataError(
                f"{options.path}: one row every {table.clock.period:g} s, but the model was trained on one every "
                f"{self.period:g} s"
            )
        everything = Rows(0, len(table))
        if whole:
            splits = Splits(everything, everything, everything)
        else:
            splits = split_rows(table, options.split, options.context, options.horizon)
        return ForecastData(table, self.shape.targets, splits, self.scaler, options, torch.device(device))

    @property
    def run_folder(self) -> Path:
        """The run that the weights belong to; an exported model that was moved stands for itself."""
        if self.folder.name == "model":
            return self.folder.parent
        return self.folder.parent.parent if self.folder.parent.name == "checkpoints" else self.folder


def find(path: Path, named_by: str = "") -> Path:
    """Return the folder with the weights that a run, checkpoint or model folder stands for.

    Args:
        path: the folder.
        named_by: the option that names it, for messages.

    Raises:
        UserError: there is no such folder, or nothing of that kind in it.
        CheckpointError: what is there does not verify.
    """
    option = f"{named_by}: " if named_by else ""
    if not path.is_dir():
        beside = [str(p) for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise UserError(f"{option}{path}: no such folder{nearest(str(path), beside)}")
    if (path / WEIGHTS).exists():
        return path
    run = RunFolder(path)
    exported = run.model if (run.model / WEIGHTS).exists() else None
    newest, passed_over = Store(run.checkpoints).newest()
    if newest is None:
        if exported is not None:
            return exported
        if passed_over:
            raise CheckpointError(f"{path}: no model, and no checkpoint that verifies ({'; '.join(passed_over)})")
        raise UserError(f"{option}{path}: holds no model and no checkpoint")
    best = newest.best_step()
    chosen = newest.path if best is None else Store(run.checkpoints).path(best)
    if exported is not None:
        # A run that went on after it was finished may have a better one by now than it exported then.
        step = read_manifest(exported)[0].get("step")
        if step is None or best in (None, step) or problem(chosen) is not None:
            return exported
    if trouble := problem(chosen):
        raise CheckpointError(f"{chosen}: {trouble}")
    return chosen


def export(weights: Path, target: Path, files: dict[str, dict[str, Any]], card: str) -> None:
    """Write a ``model`` folder from a checkpoint's weights, replacing an older one only when the new one is whole."""
    staging = target.with_name(f".staging-{target.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    shutil.copyfile(weights / WEIGHTS, staging / WEIGHTS)
    for name, content in files.items():
        write_json(staging / name, content)
    write_text(staging / CARD, card)
    write_manifest(staging, {"step": read_manifest(weights)[0].get("step")})
    sync_tree(staging)
    older = target.with_name(f".older-{target.name}")
    shutil.rmtree(older, ignore_errors=True)
    if target.exists():
        target.rename(older)
    staging.rename(target)
    sync(target.parent)
    shutil.rmtree(older, ignore_errors=True)
