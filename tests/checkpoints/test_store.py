"""The folder of checkpoints: written whole, rotated, found again, by a real Accelerator."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from accel_trainer.checkpoints.files import read_json
from accel_trainer.checkpoints.rotation import Keep
from accel_trainer.checkpoints.store import Store
from accel_trainer.checkpoints.weights import WEIGHTS, load_weights
from accel_trainer.checkpoints.writer import Saved, Writer
from accel_trainer.errors import CheckpointError, ExitCode


@pytest.fixture
def model(accelerator: Accelerator) -> nn.Module:
    """A prepared model whose prepared optimizer has taken a step."""
    torch.manual_seed(0)
    model = nn.Linear(40, 40)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    accelerator.backward(model(torch.ones(1, 40)).square().sum())
    optimizer.step()
    return model


def writer(store: Store, accelerator: Accelerator, *, behind: bool = False) -> Writer:
    return Writer(store, accelerator, accelerator._models[0], accelerator._optimizers[0], behind=behind)


def attempt(store: Store, accelerator: Accelerator, step: int, protect: int | None = None, **facts: Any) -> Saved:
    saved = writer(store, accelerator).save(step, {"trainer": {"step": step}}, facts=facts, protect=protect)
    assert saved is not None
    return saved


def save(store: Store, accelerator: Accelerator, *steps: int, protect: int | None = None) -> None:
    for step in steps:
        assert not attempt(store, accelerator, step, protect).problem


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def break_file(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Make every file that grows beyond a size fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- there and back


def test_a_checkpoint_holds_everything_and_gives_it_back(tmp_path, accelerator, model):
    store = Store(tmp_path / "deep" / "er", experiment={"batch_size": 8}, files={"scaler.json": {"mean": [0.5]}})
    own_state: dict[str, Any] = {"trainer": {"step": 3}, "hooks": {"a": {"best": None, "x": [1.5]}}}
    saved = writer(store, accelerator).save(3, own_state, facts={"epoch": 0.5})
    assert saved is not None
    path = saved.path
    assert saved == Saved(3, tmp_path / "deep" / "er" / "step-00000003")
    assert folders(path.parent) == ["step-00000003"]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    momentum = {key: value["exp_avg"].clone() for key, value in accelerator._optimizers[0].state.items()}

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
            accelerator._optimizers[0].state[parameter]["exp_avg"].zero_()
    checkpoint, passed_over = store.newest()
    assert checkpoint is not None
    assert passed_over == []
    checkpoint.restore(accelerator)
    assert checkpoint.own_state() == own_state
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    assert all(torch.equal(accelerator._optimizers[0].state[p]["exp_avg"], value) for p, value in momentum.items())
    manifest = checkpoint.manifest()
    assert (manifest["step"], manifest["processes"], manifest["batch_size"], manifest["epoch"]) == (3, 1, 8, 0.5)
    assert manifest["versions"].keys() >= {"torch", "accelerate", "accel_trainer"}
    assert read_json(path / "scaler.json") == {"mean": [0.5]}


def test_weights_load_into_a_bare_model(tmp_path, accelerator, model):
    save(Store(tmp_path), accelerator, 1)
    bare = nn.Linear(40, 40)
    load_weights(tmp_path / "step-00000001", bare)
    assert torch.equal(bare.weight, model.weight)
    with pytest.raises(CheckpointError, match=r"of another shape: weight \(40, 40\) instead of \(3, 40\)"):
        load_weights(tmp_path / "step-00000001", nn.Linear(40, 3))
    with pytest.raises(CheckpointError, match=r"unknown: bias"):
        load_weights(tmp_path / "step-00000001", nn.Linear(40, 40, bias=False))
    with pytest.raises(CheckpointError, match=r"missing: 0\.weight, 0\.bias; unknown"):
        load_weights(tmp_path / "step-00000001", nn.Sequential(nn.Linear(40, 40)))
    (tmp_path / "step-00000001" / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(tmp_path / "step-00000001", bare)


# ---- finding


def test_newest_takes_the_first_that_verifies_and_says_what_it_passed_over(tmp_path, accelerator, model):
    store = Store(tmp_path, Keep(9))
    assert store.newest() == (None, [])
    save(store, accelerator, 2, 9, 10, 11, 12)
    break_file(tmp_path / "step-00000012" / "optimizer.bin")
    (tmp_path / "step-00000011" / WEIGHTS).unlink()
    (tmp_path / "step-00000010" / "manifest.json").unlink()
    checkpoint, passed_over = store.newest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.path) == (9, tmp_path / "step-00000009")
    assert passed_over == [
        f"{tmp_path / 'step-00000012'}: optimizer.bin has changed (its digest differs)",
        f"{tmp_path / 'step-00000011'}: model.safetensors is missing",
        f"{tmp_path / 'step-00000010'}: no manifest.json",
    ]
    for step in (9, 2):
        shutil.rmtree(tmp_path / f"step-{step:08d}")
    checkpoint, passed_over = store.newest()
    assert checkpoint is None
    assert len(passed_over) == 3


def test_steps_are_compared_as_numbers(tmp_path, accelerator, model):
    store = Store(tmp_path)
    save(store, accelerator, 99_999_999, 100_000_000)
    newest, _ = store.newest()
    assert newest is not None
    assert newest.step == 100_000_000


def test_a_checkpoint_by_its_step(tmp_path, accelerator, model):
    store = Store(tmp_path)
    save(store, accelerator, 5)
    assert store.at(5).own_state() == {"trainer": {"step": 5}}
    with pytest.raises(CheckpointError, match=r"step-00000006: no manifest\.json"):
        store.at(6)
    break_file(tmp_path / "step-00000005" / "state.json")
    with pytest.raises(CheckpointError, match=r"step-00000005: state\.json has changed") as caught:
        store.at(5)
    assert caught.value.exit_code is ExitCode.CHECKPOINT


# ---- rotation


def test_rotation_keeps_the_newest_few_and_the_best(tmp_path, accelerator, model):
    store = Store(tmp_path, Keep(2))
    save(store, accelerator, 1, 2)
    assert folders(tmp_path) == ["step-00000001", "step-00000002"]
    save(store, accelerator, 3, 4, protect=2)
    assert folders(tmp_path) == ["step-00000002", "step-00000003", "step-00000004"]
    save(store, accelerator, 5, protect=4)
    assert folders(tmp_path) == ["step-00000004", "step-00000005"]
    save(store, accelerator, 6, protect=6)
    assert folders(tmp_path) == ["step-00000005", "step-00000006"]


def test_rotation_leaves_alone_what_is_not_its_own(tmp_path, accelerator, model):
    foreign = ["notes", "step-1", "step-00000001-copy", "damaged-step-00000001-1", "model", ".hidden"]
    for name in foreign:
        (tmp_path / name).mkdir()
        (tmp_path / name / "keep").write_text("mine")
    (tmp_path / "step-00000002").write_text("a file")
    store = Store(tmp_path, Keep(1))
    save(store, accelerator, 3, 4, 5)
    assert folders(tmp_path) == sorted([*foreign, "step-00000002", "step-00000005"])
    assert all((tmp_path / name / "keep").exists() for name in foreign)


def test_rotation_never_takes_another_experiments(tmp_path, accelerator, model):
    """A folder of checkpoints that somebody copied here, or one of the same run before its data was changed."""
    save(Store(tmp_path, experiment={"data_digest": "a", "experiment": "x"}), accelerator, 1, 2)
    save(Store(tmp_path, Keep(1), experiment={"data_digest": "b", "experiment": "y"}), accelerator, 3, 4)
    assert folders(tmp_path) == ["step-00000001", "step-00000002", "step-00000004"]
    # What an older format did not tell cannot speak against it.
    save(Store(tmp_path, Keep(1), experiment={"data_digest": "b", "new fact": 3}), accelerator, 5)
    assert folders(tmp_path) == ["step-00000001", "step-00000002", "step-00000005"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep(last=1, best=2), [2, 5, 8]),
        (Keep(last=1, best=2, mode="max"), [1, 3, 8]),
        (Keep(last=2, best=1, every=3), [3, 5, 6, 7, 8]),
        (Keep(last=1, best=1, monitor="val/mae"), [8]),
    ],
)
def test_rotation_keeps_the_best_few_and_regular_ones(tmp_path, accelerator, model, keep, expected):
    """Of two equal values the earlier one is the better; a step without an evaluation has no value."""
    values = {1: 0.9, 2: 0.4, 3: 0.6, 5: 0.3, 6: 0.5, 7: 0.4}
    store = Store(tmp_path, keep)
    for step in range(1, 9):
        metric = {"name": "val/mse", "value": values[step]} if step in values else None
        assert not attempt(store, accelerator, step, metric=metric).problem
    assert folders(tmp_path) == [f"step-{step:08d}" for step in expected]


def test_rotation_never_takes_later_steps(tmp_path, accelerator, model):
    """They were passed over when the run went on from an earlier one; a person may want to look at them."""
    store = Store(tmp_path, Keep(1))
    save(store, accelerator, 8)
    break_file(tmp_path / "step-00000008" / WEIGHTS)
    save(store, accelerator, 3, 4)
    assert folders(tmp_path) == ["step-00000004", "step-00000008"]


def test_a_damaged_checkpoint_makes_room_for_its_successor(tmp_path, accelerator, model):
    store = Store(tmp_path)
    save(store, accelerator, 8)
    for number in (1, 2):
        break_file(tmp_path / "step-00000008" / WEIGHTS)
        save(store, accelerator, 8)
        assert store.at(8).step == 8
        assert (tmp_path / f"damaged-step-00000008-{number}" / WEIGHTS).exists()


# ---- failures


@pytest.mark.parametrize("size", [100, 10_000, 15_000], ids=["weights", "optimizer", "random state"])
def test_a_full_disk_costs_nothing_that_was_there(tmp_path, accelerator, model, size):
    store = Store(tmp_path, Keep(1))
    save(store, accelerator, 1)
    with files_at_most(size):
        assert attempt(store, accelerator, 2).problem
    assert folders(tmp_path) == ["step-00000001"]
    newest, passed_over = store.newest()
    assert newest is not None
    assert (newest.step, passed_over) == (1, [])
    save(store, accelerator, 2)
    assert folders(tmp_path) == ["step-00000002"]


def test_a_disk_with_too_little_room_is_found_before_anything_is_written(tmp_path, accelerator, model, monkeypatch):
    store = Store(tmp_path)
    save(store, accelerator, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    problem = attempt(store, accelerator, 2).problem
    assert re.fullmatch(r"it needs about 0\.1\d MB, and the disk has 0\.01 MB left", problem)
    assert folders(tmp_path) == ["step-00000001"]


def test_who_may_read_the_run_may_read_the_weights(tmp_path, accelerator, model):
    save(Store(tmp_path), accelerator, 1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "step-00000001").iterdir()}
    assert set(modes.values()) == {modes["state.json"]}, modes


def test_a_folder_that_cannot_be_made(tmp_path, accelerator, model):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in attempt(Store(tmp_path / "file" / "checkpoints"), accelerator, 1).problem


def test_what_a_killed_save_left_is_never_found_and_can_be_cleared(tmp_path, accelerator, model):
    store = Store(tmp_path)
    store.clear_staging()
    save(store, accelerator, 1)
    (tmp_path / "step-00000001").rename(tmp_path / ".staging-step-00000002")
    assert store.newest() == (None, [])
    save(store, accelerator, 2)
    assert folders(tmp_path) == [".staging-step-00000002", "step-00000002"], "it may be a live one of another host"
    (tmp_path / ".staging-step-00000007").mkdir()
    store.clear_staging()
    assert folders(tmp_path) == ["step-00000002"]


TWO_PROCESSES = """
import resource, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from accel_trainer.checkpoints.store import Store
from accel_trainer.checkpoints.writer import Writer

accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(40, 40)
model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
store = Store(Path("checkpoints"))
writer = Writer(store, accelerator, model, optimizer, behind=sys.argv[1] == "behind")
said = [writer.save(1, {}) or writer.settle()]
for failing in (0, 1):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if accelerator.process_index == failing:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    said.append(writer.save(2, {}) or writer.settle())
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
said.append(writer.save(3, {}) or writer.settle())
newest, passed_over = store.newest()
assert [(saved.step, bool(saved.problem)) for saved in said] == [(1, False), (2, True), (2, True), (3, False)], said
assert newest.step == 3 and newest.manifest()["processes"] == 2 and passed_over == []
Path(f"done-{accelerator.process_index}").touch()
# With the wrapped model alive, gloo's threads now and then abort the interpreter at its end.
accelerator.wait_for_everyone()
del model, optimizer
accelerator.free_memory()
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("mode", ["waiting", "behind"])
def test_a_failure_on_one_process_is_everyones(tmp_path, mode):
    """None of them waits for the others for ever."""
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    environment |= {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "script.py", mode]
    ended = subprocess.run(launch, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "done-0").exists()
    assert (tmp_path / "done-1").exists()
    assert folders(tmp_path / "checkpoints") == ["step-00000001", "step-00000003"]
