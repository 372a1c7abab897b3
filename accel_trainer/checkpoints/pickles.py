"""What two kinds of pickle hold, found out without making any of the objects that they describe.

Wherever a pickle names a function or a class, a stand-in is taken that does nothing. So what is found can be judged
before torch, which makes the objects, is let near it.
"""

from __future__ import annotations

import pickle
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import IO


class _StandIn:
    """Takes the place of a function, of a class and of what is made with it."""

    values: tuple[Any, ...]
    state: Any

    def __new__(cls, *values: Any) -> Self:
        made = super().__new__(cls)
        made.values, made.state = values, None
        return made

    def __setstate__(self, state: Any) -> None:
        if self.state is not None:
            raise pickle.UnpicklingError("a part has two states")
        self.state = state


class _Reader(pickle.Unpickler):
    """Reads a pickle that needs no names but the given ones."""

    def __init__(self, file: IO[bytes], names: Mapping[tuple[str, str], type[_StandIn]]) -> None:
        super().__init__(file)
        self._names = names

    def find_class(self, module: str, name: str) -> type[_StandIn]:
        found = self._names.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which it has no need of")
        return found

    def persistent_load(self, _: Any) -> _StandIn:
        return _StandIn()


# ---- the index of a sharded checkpoint -------------------------------------------------------------------------------


class _Index(_StandIn):
    pass


class _Key(_StandIn):
    pass


class _Place(_StandIn):
    pass


class _Tensor(_StandIn):
    pass


_SHARDED = "torch.distributed.checkpoint"


def _index_names() -> dict[tuple[str, str], type[_StandIn]]:
    import torch

    dtypes = {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return {
        (f"{_SHARDED}.metadata", "Metadata"): _Index,
        (f"{_SHARDED}.metadata", "MetadataIndex"): _Key,
        (f"{_SHARDED}.metadata", "TensorStorageMetadata"): _Tensor,
        (f"{_SHARDED}.metadata", "BytesStorageMetadata"): _StandIn,
        (f"{_SHARDED}.metadata", "ChunkStorageMetadata"): _StandIn,
        (f"{_SHARDED}.metadata", "StorageMeta"): _StandIn,
        (f"{_SHARDED}.metadata", "TensorProperties"): _StandIn,
        (f"{_SHARDED}.metadata", "_MEM_FORMAT_ENCODING"): _StandIn,
        (f"{_SHARDED}.filesystem", "_StorageInfo"): _Place,
        ("pathlib", "PosixPath"): _StandIn,
        ("pathlib._local", "PosixPath"): _StandIn,  # Python 3.13
        ("torch", "Size"): _StandIn,
        ("torch.serialization", "_get_layout"): _StandIn,
        **{("torch", name): _StandIn for name in dtypes},
    }


class Entry(NamedTuple):
    """Something that an index lists.

    Attributes:
        shard: name of the file beside the index that it lies in.
        offset: where it begins, in bytes.
        length: its bytes.
        is_tensor: whether torch will take it for a tensor; if not, it will unpickle whatever is there.
    """

    shard: str
    offset: int
    length: int
    is_tensor: bool


def read_index(file: IO[bytes]) -> Iterator[Entry]:
    """Yield what the index (``.metadata``) of a checkpoint of torch.distributed.checkpoint lists.

    Raises:
        UnpicklingError: it is none, or needs something that no index needs; damaged ones raise other errors too.
    """
    content = _fields(_Reader(file, _index_names()).load(), _Index)
    kinds, places = content.get("state_dict_metadata"), content.get("storage_data")
    if type(kinds) is not dict or type(places) is not dict:
        raise pickle.UnpicklingError("it is no index of a sharded checkpoint")
    for key, value in places.items():
        name, place = _fields(key, _Key).get("fqn"), _fields(value, _Place)
        shard, offset, length = (place.get(part) for part in ("relative_path", "offset", "length"))
        if not (type(name) is type(shard) is str and type(offset) is type(length) is int):
            raise pickle.UnpicklingError("it is no index of a sharded checkpoint")
        if shard != PurePath(shard).name or shard == "..":
            raise pickle.UnpicklingError(f"it names {shard!r}, which is no file beside it")
        if place.get("transform_descriptors"):
            raise pickle.UnpicklingError(f"{shard} is compressed")
        yield Entry(shard, offset, length, type(kinds.get(name)) is _Tensor)


def _fields(part: Any, kind: type[_StandIn]) -> dict[str, Any]:
    """Return the fields of a part as torch writes them; one that is put together in another way is refused."""
    if type(part) is not kind or part.values or type(part.state) is not dict:
        raise pickle.UnpicklingError("it is no index of a sharded checkpoint")
    fields: dict[str, Any] = part.state
    return fields


# ---- random states ---------------------------------------------------------------------------------------------------


class _Made(_StandIn):
    """Something that is made with arguments alone."""

    def __setstate__(self, state: Any) -> None:
        _expect(False)


class _Text(_Made):
    def __new__(cls, *values: Any) -> Self:
        _expect(len(values) == 2 and values[1] == "latin1")
        return super().__new__(cls, *values)


class _Dtype(_StandIn):
    def __new__(cls, *values: Any) -> Self:
        _expect(repr(values) == "('u4', False, True)")
        return super().__new__(cls, *values)

    def __setstate__(self, state: Any) -> None:
        _expect(repr(state) == "(3, '<', None, None, None, -1, -1, 0)")


class _Array(_StandIn):
    def __new__(cls, *values: Any) -> Self:
        _expect(len(values) == 3 and values[0] is _ArrayType and repr(values[1]) == "(0,)" and type(values[2]) is _Text)
        return super().__new__(cls, *values)

    def __setstate__(self, state: Any) -> None:
        _expect(type(state) is tuple and [type(part) for part in state] == [int, tuple, _Dtype, bool, _Text])
        _expect([type(size) for size in state[1]] == [int])


class _ArrayType(_Made):
    def __new__(cls, *values: Any) -> Self:
        raise pickle.UnpicklingError(_OTHERWISE)


_RANDOM_NAMES: dict[tuple[str, str], type[_StandIn]] = {
    ("_codecs", "encode"): _Text,
    ("collections", "OrderedDict"): _Made,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("torch", "ByteStorage"): _Made,
    ("torch._utils", "_rebuild_tensor_v2"): _Made,
}


def check_random_states(file: IO[bytes]) -> None:
    """Check that random states are what Accelerate writes.

    numpy trusts what its arrays and their types are unpickled from so far that a wrong one may end the process, or
    worse; the type of numpy's random state is always the same.

    Raises:
        UnpicklingError: they are something else; damaged ones raise other errors too.
    """
    _Reader(file, _RANDOM_NAMES).load()


_OTHERWISE = "it is not put together like random states"


def _expect(holds: bool) -> None:
    if not holds:
        raise pickle.UnpicklingError(_OTHERWISE)
