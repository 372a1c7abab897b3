"""What can be known about a configuration before torch is imported and data is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.config import BUILT_IN_DATA, RunConfig
from accel_trainer.errors import ConfigError, nearest
from accel_trainer.metrics import FORECAST_METRICS
from accel_trainer.models.registry import MODELS, check_model
from accel_trainer.optim.registry import check_optimizer
from accel_trainer.options import leaves
from accel_trainer.tracking.feed import check_trackers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def check_config(config: RunConfig) -> None:
    """Check names of components, their options, and that files are there.

    Raises:
        ConfigError: something cannot work.
    """
    check_model(config.model.name, config.model.options)
    check_optimizer(config.optimizer.name, config.optimizer.options)
    check_trackers(config.tracking)
    check_path(config.data.path)
    check_baselines(config.evaluation.baselines)
    config.early_stopping.check_logged(FORECAST_METRICS)
    _check_allowed(config.run.allow_changes)
    if config.run.resume not in ("auto", "never") and not Path(config.run.resume).is_dir():
        raise ConfigError("run.resume", f"{config.run.resume!r} is neither auto, never nor a run or checkpoint folder")


def _check_allowed(names: Sequence[str]) -> None:
    known = [name for name, _ in leaves(RunConfig)]
    open_ended = tuple(f"{name}." for name, kind in leaves(RunConfig) if kind == dict[str, Any])
    for name in names:
        if name not in known and not name.startswith(open_ended):
            raise ConfigError("run.allow_changes", f"{name!r} is no option{nearest(name, known)}")


def check_baselines(names: Sequence[str]) -> None:
    """Check ``evaluation.baselines``.

    Raises:
        ConfigError: a name is no baseline.
    """
    known = [name for name, info in MODELS.items() if not info.trainable]
    for name in names:
        if name not in known:
            listing = ", ".join(known)
            raise ConfigError(
                "evaluation.baselines", f"{name!r} is no baseline{nearest(name, known)} (known: {listing})"
            )


def check_fixed(source: Mapping[str, str]) -> None:
    """Check that nothing was set that belongs to a trained model.

    Args:
        source: options that were set, and where.

    Raises:
        ConfigError: the model's sensors or sizes were to be changed.
    """
    for key in ("data.targets", "data.covariates", "data.context", "data.horizon", "data.stride"):
        if key in source:
            raise ConfigError(key, f"belongs to the trained model and cannot be changed here [{source[key]}]")


def check_path(path: str | None) -> None:
    """Check that ``data.path`` names something that is there.

    Raises:
        ConfigError: it is not set, or there is no such file; the nearest name beside it is given.
    """
    if path is None:
        raise ConfigError("data.path", f"is not set; give a CSV or Parquet file, a datasets folder or {BUILT_IN_DATA}")
    if path == BUILT_IN_DATA or Path(path).exists():
        return
    parent = Path(path).parent
    beside = [str(parent / entry.name) for entry in parent.iterdir()] if parent.is_dir() else []
    raise ConfigError("data.path", f"no such file: {path}{nearest(path, [*beside, BUILT_IN_DATA])}")
