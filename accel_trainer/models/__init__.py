"""Forecasting models and the registry that makes them; torch is imported when a model class is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accel_trainer.models.registry import (
    MODELS,
    ForecastShape,
    ModelInfo,
    check_model,
    create_model,
    list_models,
)

if TYPE_CHECKING:
    from accel_trainer.models.closed_form import ClosedFormLinear, NormalEquations
    from accel_trainer.models.linear import DLinear, NLinear
    from accel_trainer.models.naive import Persistence, SeasonalNaive

__all__ = [
    "MODELS",
    "ClosedFormLinear",
    "DLinear",
    "ForecastShape",
    "ModelInfo",
    "NLinear",
    "NormalEquations",
    "Persistence",
    "SeasonalNaive",
    "check_model",
    "create_model",
    "list_models",
]

_LAZY = {
    "ClosedFormLinear": "closed_form",
    "NormalEquations": "closed_form",
    "DLinear": "linear",
    "NLinear": "linear",
    "Persistence": "naive",
    "SeasonalNaive": "naive",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
