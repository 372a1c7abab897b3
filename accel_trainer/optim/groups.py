"""Which parameters decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float, *, decay_all: bool = False) -> list[dict[str, Any]]:
    """Return a model's trainable parameters in groups, with their names.

    Weight decay pulls weights towards zero; for biases (by name) and the gains of norms (tensors of fewer than two
    dimensions) zero is no sensible rest, so they are left alone unless ``decay_all``.

    Args:
        model: the model, before or after it is wrapped.
        weight_decay: of the group that decays.
        decay_all: one group for all.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    names = {name for name, p in named if decay_all or (p.ndim >= 2 and name.rsplit(".", 1)[-1] != "bias")}
    decayed = [(name, p) for name, p in named if name in names]
    spared = [(name, p) for name, p in named if name not in names]
    # Names in the groups let a checkpoint say which tensor a state belongs to.
    return [
        {"params": group, "weight_decay": decay} for group, decay in ((decayed, weight_decay), (spared, 0.0)) if group
    ]
