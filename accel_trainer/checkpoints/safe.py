"""Nothing in a checkpoint runs code by being read.

Weights are safetensors and the run's own state is JSON: both are data whatever they hold. The optimizer's state, the
random states and the loss scale are torch archives, whose pickles are read with ``weights_only``. A sharded checkpoint
of torch.distributed.checkpoint has two places that torch reads without such care: its index (``.metadata``), a pickle,
and in its shards whatever the index says is no tensor. Both are looked through here first.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path

from accel_trainer.checkpoints.pickles import check_random_states, read_index
from accel_trainer.errors import CheckpointError

UNREADABLE = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    ImportError,
    MemoryError,
    AssertionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch and pickle raise over a file that is damaged, of another kind, or made to confuse them."""

_DATA = (".json", ".safetensors", ".md", ".yaml")
_ARCHIVE = re.compile(r"optimizer(_\d+)?\.bin|scaler\.pt")
_RANDOM = re.compile(r"random_states_\d+\.pkl")
_INDEX, _SHARD = ".metadata", ".distcp"
_ZIP = b"PK\x03\x04"
_ADVICE = re.compile("weights.only", re.IGNORECASE)
_TRUST = "if you know where it comes from, --checkpoint.trust true reads it all the same"


def check_harmless(folder: Path) -> None:
    """Check every file of a checkpoint that is not plain data.

    Raises:
        CheckpointError: a file would run code when read, cannot be read, or is of a kind that cannot be judged.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue  # what is in it comes by itself; behind a link it would not
        try:
            _check(path)
        except pickle.UnpicklingError as error:
            raise CheckpointError(f"{path}: reading it could run code: {first_line(error)}; {_TRUST}") from None
        except UNREADABLE as error:
            raise CheckpointError(f"{path}: cannot be read: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return what an error says in one line, without torch's advice to read the file with less care."""
    lines = (line.strip() for line in str(error).splitlines() if not _ADVICE.search(line))
    said = next(filter(None, lines), type(error).__name__)
    return said.removeprefix("WeightsUnpickler error: ").partition(" Please use ")[0]


def _check(path: Path) -> None:
    if not path.is_file():
        raise pickle.UnpicklingError("it is no plain file")
    if path.name == _INDEX:
        with path.open("rb") as index:
            for shard, offset, length, is_tensor in read_index(index):
                if not is_tensor:
                    with (path.parent / shard).open("rb") as file:
                        file.seek(offset)
                        _check_entry(file.read(length))
    elif _RANDOM.fullmatch(path.name):
        _check_random_states(path)
    elif _ARCHIVE.fullmatch(path.name):
        _check_archive(path)
    elif path.suffix not in (*_DATA, _SHARD):
        raise pickle.UnpicklingError("it is no known part of a checkpoint")


def _check_archive(path: Path) -> None:
    """Read a torch archive as load_state will, its tensors left on the disk, and without the names numpy needs."""
    import torch

    with path.open("rb") as file:
        _check_is_archive(file.read(len(_ZIP)))
    torch.load(path, map_location="cpu", mmap=True, weights_only=True)


def _check_random_states(path: Path) -> None:
    import torch
    from accelerate.utils import load

    with path.open("rb") as file:
        _check_is_archive(file.read(len(_ZIP)))
    # torch's own reader: another one might find another record of this name.
    check_random_states(io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")))
    load(path, map_location="cpu", mmap=True)


def _check_entry(content: bytes) -> None:
    import torch

    _check_is_archive(content)
    torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _check_is_archive(content: bytes) -> None:
    if not content.startswith(_ZIP):
        raise pickle.UnpicklingError("it is a bare pickle or damaged, not an archive of torch")
