"""Which models there are, and how one is made from its name; readable without torch.

A model of this package is one record in :data:`MODELS`. A model from anywhere else is named ``module:Class``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accel_trainer.errors import ConfigError, nearest
from accel_trainer.imports import import_object
from accel_trainer.models.options import DLinearOptions, NLinearOptions, NoOptions
from accel_trainer.options import build_options

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ForecastShape:
    """Sizes that a model is built for.

    Attributes:
        context: rows the model sees (L).
        horizon: rows it forecasts (H).
        channels: sensors it sees (C); the targets come first, covariates after them.
        targets: sensors it forecasts (C'), the first of the channels.
        time_features: numbers that describe the time of each row (F).
        season: rows after which the series is expected to repeat; None: no season is known.
    """

    context: int
    horizon: int
    channels: int
    targets: int
    time_features: int = 0
    season: int | None = None

    def __post_init__(self) -> None:
        sizes = (self.context, self.horizon, self.targets, 1 if self.season is None else self.season)
        if min(sizes) < 1 or self.targets > self.channels or self.time_features < 0:
            raise ValueError(f"no forecast has this shape: {self}")


def _always(shape: ForecastShape) -> str | None:
    return None


def season_problem(shape: ForecastShape) -> str | None:
    """Return why one season back is not in the context, or None when it is."""
    if shape.season is None:
        return "no season is known; data.season sets one, in seconds"
    if shape.season > shape.context:
        return f"a season of {shape.season} rows does not fit into a context of {shape.context} rows"
    return None


@dataclass(frozen=True)
class ModelInfo:
    """A built-in model.

    Attributes:
        name: what ``model.name`` or ``evaluation.baselines`` calls it.
        target: ``package.module:Class``, imported when the model is made; called as ``Class(shape, options)``.
        options: dataclass of its options.
        summary: what it does, in one line.
        trainable: False for a baseline, which has nothing that an optimizer could change.
        why_not: returns why the model cannot be made for a shape, as a clause; None when it can.
    """

    name: str
    target: str
    options: type[Any]
    summary: str
    trainable: bool
    why_not: Callable[[ForecastShape], str | None] = _always


_HERE = "accel_trainer.models"

MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo(
            "nlinear",
            f"{_HERE}.linear:NLinear",
            NLinearOptions,
            "one linear map on the differences to the last value (Zeng et al. 2023)",
            trainable=True,
        ),
        ModelInfo(
            "dlinear",
            f"{_HERE}.linear:DLinear",
            DLinearOptions,
            "linear maps on the moving average and on the rest (Zeng et al. 2023)",
            trainable=True,
        ),
        ModelInfo(
            "persistence",
            f"{_HERE}.naive:Persistence",
            NoOptions,
            "the last observed value, repeated",
            trainable=False,
        ),
        ModelInfo(
            "seasonal_naive",
            f"{_HERE}.naive:SeasonalNaive",
            NoOptions,
            "the value one season earlier",
            trainable=False,
            why_not=season_problem,
        ),
        ModelInfo(
            "closed_form_linear",
            f"{_HERE}.closed_form:ClosedFormLinear",
            NoOptions,
            "nlinear solved exactly by ridge regression",
            trainable=False,
        ),
    )
}


def list_models() -> list[ModelInfo]:
    """Return the built-in models, those that can be trained first."""
    return sorted(MODELS.values(), key=lambda info: not info.trainable)


def check_model(name: str, options: Mapping[str, Any]) -> None:
    """Check what ``model.name`` and ``model.options`` of a training run say, without importing torch or the model.

    Of ``module:Class`` only the form is checked: importing it is up to :func:`create_model`.

    Raises:
        ConfigError: no such model, a baseline (there is nothing to train), or an option that cannot be used.
    """
    if ":" in name:
        _check_target(name)
        return
    info = _built_in(name)
    if not info.trainable:
        trainable = ", ".join(known.name for known in list_models() if known.trainable)
        raise ConfigError(
            "model.name",
            f"{name!r} is a baseline with nothing to train; it is scored beside every model when it is among "
            f"evaluation.baselines. Models to train: {trainable}, or module:Class",
        )
    build_options(info.options, options, "model.options")


def create_model(name: str, shape: ForecastShape, options: Mapping[str, Any]) -> nn.Module:
    """Make a model, trainable or baseline, with freshly drawn weights.

    A built-in model is made as ``Class(shape, record of its options)``. ``module:Class`` is imported, from the current
    folder as well, and called as ``Class(shape, **options)``; a function that returns a module will do.

    Raises:
        ConfigError: no such model, module or class; options that do not fit; a shape it cannot be made for; or
            something was made that is not a ``torch.nn.Module``.
    """
    if ":" in name:
        return _create_from_outside(name, shape, options)
    info = _built_in(name)
    record = build_options(info.options, options, "model.options")
    reason = info.why_not(shape)
    if reason is not None:
        raise ConfigError("model.name", f"{name} cannot be used here: {reason}")
    module, _, attribute = info.target.partition(":")
    model: nn.Module = getattr(importlib.import_module(module), attribute)(shape, record)
    return model


def _built_in(name: str) -> ModelInfo:
    if name not in MODELS:
        hint = nearest(name.lower(), MODELS) or "; a model of your own is named module:Class"
        raise ConfigError("model.name", f"no model is named {name!r}{hint} (built in: {', '.join(MODELS)})")
    return MODELS[name]


def _check_target(name: str) -> None:
    module, _, attribute = name.partition(":")
    if not (all(part.isidentifier() for part in module.split(".")) and attribute.isidentifier()):
        raise ConfigError(
            "model.name", f"{name!r} is not of the form module:Class, such as my_package.my_model:MyModel"
        )


def _create_from_outside(name: str, shape: ForecastShape, options: Mapping[str, Any]) -> nn.Module:
    from torch import nn

    _check_target(name)
    maker = import_object("model.name", name)
    if not callable(maker):
        raise ConfigError("model.name", f"{name} is a {type(maker).__name__}, not a class")
    try:
        signature = inspect.signature(maker)
    except ValueError:  # built in C without a signature: the call itself has to tell
        pass
    else:
        try:
            signature.bind(shape, **options)
        except TypeError as error:
            raise ConfigError(
                "model.options",
                f"{name} is called with the ForecastShape first and every option by name, which does not fit: {error} "
                f"(its signature is {signature})",
            ) from None
    model = maker(shape, **options)
    if not isinstance(model, nn.Module):
        raise ConfigError("model.name", f"{name} gave a {type(model).__name__}, not a torch.nn.Module")
    return model
