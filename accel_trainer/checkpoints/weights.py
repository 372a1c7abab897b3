"""Weights in safetensors files, read into models that they belong to, or as far as they fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from accel_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from accelerate import Accelerator
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"


def bare(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """Return a model without what Accelerate wraps around it: its weights have the names that it gave them itself."""
    unwrapped: nn.Module = accelerator.unwrap_model(model, keep_torch_compile=False)
    return unwrapped


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint or an exported model, by name.

    Raises:
        CheckpointError: the file cannot be read as safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file and those of a model go together.

    Attributes:
        fitting: names on both sides, of one shape.
        missing: names of the model that the file lacks.
        unknown: names of the file that the model lacks.
        reshaped: names on both sides, with both shapes.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    reshaped: tuple[str, ...]

    def differences(self) -> str:
        """Return what does not go together, the first few names of each kind; empty when all does."""
        kinds = (("missing", self.missing), ("unknown", self.unknown), ("of another shape", self.reshaped))
        return "; ".join(f"{label}: {_few(names)}" for label, names in kinds if names)


def fit(weights: dict[str, Tensor], model: nn.Module) -> Fit:
    """Compare the tensors of a file with those of a model."""
    own = model.state_dict()
    common = [name for name in own if name in weights]
    fitting = [name for name in common if weights[name].shape == own[name].shape]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in common
        if weights[name].shape != own[name].shape
    ]
    # Tied weights are stored once; the names left out of the file share memory with one that is in it.
    stored = {own[name].data_ptr() for name in common if own[name].numel()}
    missing = [name for name in own if name not in weights and own[name].data_ptr() not in stored]
    unknown = [name for name in weights if name not in own]
    return Fit(tuple(fitting), tuple(missing), tuple(unknown), tuple(reshaped))


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint or of an exported model into a bare model.

    Raises:
        CheckpointError: a name or a shape differs; the first few are listed.
    """
    weights = read_weights(folder)
    if differences := fit(weights, model).differences():
        raise CheckpointError(f"{folder / WEIGHTS}: the weights belong to another model ({differences})")
    model.load_state_dict(weights, strict=False)


def load_what_fits(folder: Path, model: nn.Module) -> Fit:
    """Load into a bare model the tensors that have its names and shapes; the others keep their values.

    Raises:
        CheckpointError: the file cannot be read, or nothing in it fits.
    """
    weights = read_weights(folder)
    result = fit(weights, model)
    if not result.fitting:
        raise CheckpointError(f"{folder / WEIGHTS}: no weight fits the model ({result.differences()})")
    model.load_state_dict({name: weights[name] for name in result.fitting}, strict=False)
    return result


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
