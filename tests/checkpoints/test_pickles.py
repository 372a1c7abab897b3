"""Pickles made to confuse whoever looks through them: nothing they name is called, and nothing but a refusal comes."""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from accel_trainer.checkpoints.safe import check_harmless
from accel_trainer.errors import CheckpointError
from tests.helpers.attacks import MakesFolder, archive, bare, legacy, names_from_memo, pickle_of, with_pickle

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The folder that an attack makes; no test may leave it."""
    yield tmp_path / "it ran"
    assert not (tmp_path / "it ran").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What save_state writes for a model, an optimizer and a loss scale."""
    folder = tmp_path_factory.mktemp("saved")
    model = torch.nn.Linear(4, 4)
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    accelerator.backward(model(torch.ones(1, 4)).sum())
    optimizer.step()
    accelerator.save_state(str(folder))
    torch.save(torch.amp.GradScaler("cpu").state_dict(), folder / "scaler.pt")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_harmless(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- archives


def test_what_accelerate_saves_is_harmless(saved):
    assert {path.name for path in saved.iterdir()} == {
        "model.safetensors",
        "optimizer.bin",
        "random_states_0.pkl",
        "scaler.pt",
    }
    check_harmless(saved)


@pytest.mark.parametrize("name", ["optimizer.bin", "optimizer_1.bin", "random_states_3.pkl", "scaler.pt"])
@pytest.mark.parametrize("attack", [bare, archive, legacy])
def test_attacks_under_every_name(tmp_path, mark, name, attack):
    (tmp_path / name).write_bytes(attack(mark))
    said = refusal(tmp_path)
    assert said.startswith(f"{tmp_path / name}: reading it could run code: ")
    assert said.endswith("--checkpoint.trust true reads it all the same")
    assert "weights_only" not in said, "torch's advice is not for this"


HAND_MADE: dict[str, Callable[[Path], bytes]] = {
    "a call": lambda mark: f"cos\nmkdir\n(S'{mark}'\ntR.".encode(),
    "an instance": lambda mark: f"(S'{mark}'\nios\nmkdir\n.".encode(),
    "an object": lambda mark: f"(cos\nmkdir\nS'{mark}'\no.".encode(),
    "names from the memo": lambda mark: names_from_memo("os", "mkdir", str(mark)),
    "a name in a module that is needed": lambda mark: names_from_memo(
        "torch.distributed.checkpoint.metadata", "os.mkdir", str(mark)
    ),
    "a name in torch": lambda mark: names_from_memo("torch", "serialization.os.mkdir", str(mark)),
    "getattr": lambda mark: (
        f"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'mkdir'\ntR(S'{mark}'\ntR.".encode()
    ),
    "an extension": lambda mark: b"\x80\x02\x82\x01.",
    "a persistent object": lambda mark: b"Pos\n.",
    "a needed name with other arguments": lambda mark: b"ctorch\nSize\n(S'x'\ntR.",
    "a layout that is none": lambda mark: f"ctorch.serialization\n_get_layout\n(S'{mark}'\ntR.".encode(),
    "a changed class": lambda mark: (
        b"ctorch.distributed.checkpoint.filesystem\n_StorageInfo\n(N(dS'relative_path'\nS'x'\nstb."
    ),
    "a changed function": lambda mark: b"ctorch.serialization\n_get_layout\n(dS'cache'\nNsb.",
    "a codec": lambda mark: b"c_codecs\nencode\n(Vx\nVno_such_codec\ntR.",
    "a tensor of nothing": lambda mark: b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(t(ttR.",
    "an array of objects": lambda mark: b"cnumpy\ndtype\n(S'O'\nI00\nI01\ntR.",
    "nothing": lambda mark: b"",
    "a stack that is empty": lambda mark: b"\x80\x020.",
    "half of it": lambda mark: pickle.dumps({"a": [1, 2, 3]})[:-4],
    "harmless but not this": lambda mark: pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("kind", list(HAND_MADE)[:7])
def test_these_would_run(tmp_path, kind):
    pickle.loads(HAND_MADE[kind](tmp_path / "it ran"))
    assert (tmp_path / "it ran").is_dir()


@pytest.mark.parametrize("kind", HAND_MADE)
def test_hand_made_pickles(tmp_path, mark, saved, kind):
    content = HAND_MADE[kind](mark)
    for name in ("optimizer.bin", "random_states_0.pkl"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(with_pickle(saved / name, content))
        if kind not in ("harmless but not this", "a needed name with other arguments"):
            refusal(folder)
    (tmp_path / "sharded").mkdir()
    (tmp_path / "sharded/.metadata").write_bytes(content)
    refusal(tmp_path / "sharded")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3),
        np.array([None]),
        np.zeros(2, dtype=[("a", "O")]),
        np.dtype("O"),
        np.float64(1),
        np.zeros((2, 2), np.uint32),
        np.array(["text"]),
    ],
)
def test_arrays_other_than_numpys_own_state(tmp_path, array):
    """numpy's arrays are no safer than what they are told about their own memory."""
    for name in ("random_states_0.pkl", "optimizer.bin", "scaler.pt"):
        torch.save({"numpy_random_seed": array}, tmp_path / name)
        refusal(tmp_path)
        (tmp_path / name).unlink()


@given(data=st.data())
@settings(deadline=None, max_examples=150)
@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
def test_damaged_archives_are_refused_or_read(saved, tmp_path_factory, name, data):
    folder = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(with_pickle(saved / name, damaged(pickle_of(saved / name), data)))
    refused_or_read(folder)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(content)
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(changed))
        changed[place : place + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
    return bytes(changed)


def refused_or_read(folder: Path) -> None:
    with suppress(CheckpointError):
        check_harmless(folder)


# ---- sharded checkpoints

STATE = {"w": torch.arange(12.0), "o": {"lr": 0.1, "betas": (0.9, 0.99), "name": "x", "n": torch.zeros(2).long()}}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    dcp.save(dict(STATE), checkpoint_id=folder, no_dist=True)
    return folder


def test_what_torch_saves_in_shards_is_harmless(sharded):
    assert {path.name for path in sharded.iterdir()} == {".metadata", "__0_0.distcp"}
    check_harmless(sharded)


def test_shards_of_a_mesh_are_harmless(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        tensors = [torch.ones(4, 2, dtype=kind) for kind in (torch.float32, torch.bfloat16, torch.int64, torch.bool)]
        parts = {str(tensor.dtype): distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in tensors}
        dcp.save({"model": parts, "step": 3}, checkpoint_id=tmp_path / "pytorch_model_fsdp_0")
    finally:
        dist.destroy_process_group()
    check_harmless(tmp_path / "pytorch_model_fsdp_0")
    (tmp_path / "meeting").unlink(missing_ok=True)
    check_harmless(tmp_path)


def test_what_an_index_calls_no_tensor_is_looked_through(tmp_path, mark):
    """torch.distributed.checkpoint unpickles it whatever it is."""
    dcp.save({"w": torch.ones(2), "own": MakesFolder(mark), "lr": 0.1}, checkpoint_id=tmp_path, no_dist=True)
    assert "reading it could run code" in refusal(tmp_path)


def test_the_attack_in_a_shard_is_one(tmp_path):
    state = {"own": MakesFolder(tmp_path / "it ran")}
    dcp.save(dict(state), checkpoint_id=tmp_path / "saved", no_dist=True)
    dcp.load({"own": 0}, checkpoint_id=tmp_path / "saved", no_dist=True)
    assert (tmp_path / "it ran").is_dir()


def index(kinds: Any, **place: Any) -> Metadata:
    where = _StorageInfo(**{"relative_path": "__0_0.distcp", "offset": 0, "length": 9, **place})
    return Metadata(kinds, storage_data={MetadataIndex("own"): where})


@pytest.mark.parametrize(
    "made",
    [
        index({"own": BytesStorageMetadata()}, relative_path="../secret"),
        index({"own": BytesStorageMetadata()}, relative_path="/etc/passwd"),
        index({"own": BytesStorageMetadata()}, relative_path=".."),
        index({"own": BytesStorageMetadata()}, relative_path="gone.distcp"),
        index({"own": BytesStorageMetadata()}, relative_path=3),
        index({"own": BytesStorageMetadata()}, offset=-1),
        index({"own": BytesStorageMetadata()}, offset=1 << 40),
        index({"own": BytesStorageMetadata()}, length="all"),
        index({"own": BytesStorageMetadata()}, transform_descriptors=["stream.zstd"]),
        index({}),
        index(OrderedDict(own=BytesStorageMetadata())),
        index([]),
        Metadata({}, storage_data=None),
        Metadata({}, storage_data={"own": 1}),
        Metadata({}, storage_data={MetadataIndex("own"): BytesStorageMetadata()}),
        MetadataIndex("own"),
        {"state_dict_metadata": {}, "storage_data": {}},
    ],
)
def test_indexes_that_lead_astray(tmp_path, made):
    (tmp_path / "secret").write_bytes(b"")
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "__0_0.distcp").write_bytes(b"no archive")
    (folder / ".metadata").write_bytes(pickle.dumps(made))
    refusal(folder)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_damaged_indexes_are_refused_or_read(sharded, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged-index"
    folder.mkdir(exist_ok=True)
    (folder / "__0_0.distcp").write_bytes((sharded / "__0_0.distcp").read_bytes())
    (folder / ".metadata").write_bytes(damaged((sharded / ".metadata").read_bytes(), data))
    refused_or_read(folder)
