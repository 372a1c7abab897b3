"""Optimizers by name, with the options each of them takes; readable without torch.

Learning rate and weight decay are options of every run (``optimizer.lr``, ``optimizer.weight_decay``); a record holds
what is particular to one optimizer. Defaults are those of torch.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accel_trainer.errors import ConfigError, nearest
from accel_trainer.options import build_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from torch.optim import Optimizer

    from accel_trainer.config import OptimizerOptions


@dataclass(frozen=True)
class SGDOptions:
    """Stochastic gradient descent."""

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True)
class AdamOptions:
    """Adam and AdamW."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = False
    fused: bool | None = None


@dataclass(frozen=True)
class AdamVariantOptions:
    """Adamax and RAdam."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class NAdamOptions:
    """Adam with Nesterov momentum."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum_decay: float = 4e-3


@dataclass(frozen=True)
class RMSpropOptions:
    """RMSprop."""

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False


@dataclass(frozen=True)
class AdagradOptions:
    """Adagrad."""

    lr_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10


@dataclass(frozen=True)
class AdadeltaOptions:
    """Adadelta."""

    rho: float = 0.9
    eps: float = 1e-6


@dataclass(frozen=True)
class OptimizerInfo:
    """One optimizer.

    Attributes:
        name: its name in ``optimizer.name``.
        target: class in ``torch.optim``.
        options: record of its own options.
        summary: one line.
        paper: where it comes from.
    """

    name: str
    target: str
    options: type
    summary: str
    paper: str


OPTIMIZERS = {
    info.name: info
    for info in (
        OptimizerInfo("adadelta", "Adadelta", AdadeltaOptions, "Rates from running averages", "arXiv:1212.5701"),
        OptimizerInfo("adagrad", "Adagrad", AdagradOptions, "Rates fall with past gradients", "Duchi et al. 2011"),
        OptimizerInfo("adam", "Adam", AdamOptions, "Adaptive moments, L2 in the gradient", "arXiv:1412.6980"),
        OptimizerInfo("adamax", "Adamax", AdamVariantOptions, "Adam with the maximum norm", "arXiv:1412.6980"),
        OptimizerInfo("adamw", "AdamW", AdamOptions, "Adam with decoupled weight decay", "arXiv:1711.05101"),
        OptimizerInfo("nadam", "NAdam", NAdamOptions, "Adam with Nesterov momentum", "Dozat 2016"),
        OptimizerInfo("radam", "RAdam", AdamVariantOptions, "Adam with rectified variance", "arXiv:1908.03265"),
        OptimizerInfo("rmsprop", "RMSprop", RMSpropOptions, "Gradient over its running norm", "Graves 2013"),
        OptimizerInfo("sgd", "SGD", SGDOptions, "Gradient descent with momentum", "Sutskever et al. 2013"),
    )
}


def check_optimizer(name: str, options: Mapping[str, Any]) -> None:
    """Check a name and its options before torch is imported.

    Raises:
        ConfigError: the name is unknown, or it has no such option.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise ConfigError("optimizer.name", f"{name!r} is not of the form module:Class")
        return
    if name not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise ConfigError(
            "optimizer.name", f"unknown optimizer {name!r}{nearest(name.lower(), OPTIMIZERS)} (known: {known})"
        )
    build_options(OPTIMIZERS[name].options, options, "optimizer.options")


def create_optimizer(options: OptimizerOptions, model: nn.Module) -> Optimizer:
    """Build the optimizer of a run over a model's parameter groups.

    Raises:
        ConfigError: the name or an option is unknown, the class cannot be imported, or it refuses an option.
    """
    import torch

    from accel_trainer.imports import import_object
    from accel_trainer.optim.groups import parameter_groups

    check_optimizer(options.name, options.options)
    groups = parameter_groups(model, options.weight_decay, decay_all=options.decay_all)
    if ":" in options.name:
        target = import_object("optimizer.name", options.name)
        if not callable(target):
            raise ConfigError("optimizer.name", f"{options.name} is a {type(target).__name__}, not a class")
        arguments = {"lr": options.lr, **options.options}
        accepted = inspect.signature(target).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            for key in options.options:
                if key not in accepted:
                    problem = f"{options.name} takes no such option{nearest(key, accepted)}"
                    raise ConfigError(f"optimizer.options.{key}", problem)
    else:
        info = OPTIMIZERS[options.name]
        record: Any = build_options(info.options, options.options, "optimizer.options")
        target = getattr(torch.optim, info.target)
        arguments = {"lr": options.lr, **dataclasses.asdict(record)}
    try:
        optimizer = target(groups, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("optimizer.options", f"{options.name} refused {arguments}: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError("optimizer.name", f"{options.name} is not a torch.optim.Optimizer")
    return optimizer
