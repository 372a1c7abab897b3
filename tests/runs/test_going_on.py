"""Going on under other circumstances, and from another run's weights: what is the same, and what is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.runs import PYTHON, checkpoint_steps, command, kill_after_checkpoint, read, rows, run

SHORT = {"training__max_steps": 6, "evaluation__baselines": "[persistence]"}
LONGER = {**SHORT, "training__max_steps": 12}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def manifest_again(folder: Path) -> None:
    """List a checkpoint anew after a file of it was changed on purpose."""
    from accel_trainer.checkpoints.manifest import NAME, write_manifest

    told = read(folder / NAME)
    (folder / NAME).unlink()
    write_manifest(folder, {key: told[key] for key in told.keys() - {"format", "files", "sha256"}})


def pretend(run_folder: Path, old: str, new: str) -> None:
    """Let the newest checkpoint remember another machine."""
    newest = run_folder / f"checkpoints/step-{checkpoint_steps(run_folder)[-1]:08d}"
    edit(newest / "state.json", old, new)
    manifest_again(newest)


def trained(run_folder: Path) -> list[tuple[float, float]]:
    """What each step computed, without the evaluation that the end of a start brings."""
    return [(row["train/loss"], row["train/grad_norm"]) for row in rows(run_folder)]


# ---- other circumstances


def test_a_checkpoint_remembers_what_the_same_needs(tmp_path: Path) -> None:
    run(command(tmp_path, "r", **SHORT), OMP_NUM_THREADS="2")
    newest = tmp_path / "r/checkpoints/step-00000006"
    assert read(newest / "state.json")["environment"] == {
        "device": "cpu",
        "threads": 2,
        "processes": 1,
        "micro_batches": 1,
        "micro_batch_size": None,
        "precision": "no",
        "torch": str(torch.__version__),
    }
    manifest = read(newest / "manifest.json")
    assert (manifest["step"], manifest["processes"], manifest["batch_size"]) == (6, 1, 32)
    assert manifest["metric"]["name"] == "val/mse"
    assert manifest["epoch"] == pytest.approx(rows(tmp_path / "r")[-1]["epoch"])
    assert len(manifest["config_digest"]) == 8


def test_threads_and_passes_are_those_of_before_and_nothing_is_said_to_differ(tmp_path: Path) -> None:
    launcher = ["accelerate", "launch", "--gradient_accumulation_steps", "4", "-m"]
    run(command(tmp_path, "whole", launcher, **LONGER), OMP_NUM_THREADS="2")
    run(command(tmp_path, "cut", launcher, **SHORT), OMP_NUM_THREADS="2")
    done = run(command(tmp_path, "cut", PYTHON, **LONGER), OMP_NUM_THREADS="1")
    assert "CPU threads: 2 as before, not 1" in done.stdout
    assert "bit-exact" not in done.stdout
    assert trained(tmp_path / "whole") == trained(tmp_path / "cut")


def test_what_can_no_longer_be_bit_exact_is_said_in_one_line(tmp_path: Path) -> None:
    run(command(tmp_path, "r", **SHORT))
    pretend(tmp_path / "r", '"processes": 1', '"processes": 8')
    pretend(tmp_path / "r", '"device": "cpu"', '"device": "cuda (A100)"')
    options = {**LONGER, "training__micro_batch_size": 5, "training__mixed_precision": "bf16", "training__threads": 1}
    done = run(command(tmp_path, "r", **options))
    [line] = [line for line in done.stdout.splitlines() if "bit-exact" in line]
    assert line.startswith("not bit-exact from here on: device cuda (A100) -> cpu, processes 8 -> 1, ")
    assert "micro_batch_size unset -> 5, precision no -> bf16; the windows, their order" in line


# ---- how long, and what stays


def test_max_time_ends_a_start_and_the_same_command_goes_on(tmp_path: Path) -> None:
    options = {"training__epochs": 1}
    run(command(tmp_path, "whole", **options))
    words = command(tmp_path, "cut", **options, training__max_time=0.01)
    for _ in range(3):
        done = run(words, code=75)
        assert "training.max_time of 0.01 s is over" in done.stdout
    status = read(tmp_path / "cut/status.json")
    assert (status["status"], status["exit_code"]) == ("preempted", 75)
    run(command(tmp_path, "cut", **options))
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()


def test_the_best_and_regular_checkpoints_stay(tmp_path: Path) -> None:
    options = {"evaluation__every_steps": 4, "checkpoint__keep_best": 3, "checkpoint__keep_every": 20}
    run(command(tmp_path, "r", training__epochs=1, checkpoint__every_steps=5, checkpoint__keep_last=1, **options))
    steps = checkpoint_steps(tmp_path / "r")
    values = {row["step"]: row["val/mse"] for row in rows(tmp_path / "r") if "val/mse" in row}
    best = sorted(values, key=lambda step: (values[step], step))[:3]
    assert steps == sorted({*best, 20, 36})


# ---- from another run's weights


def test_a_run_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    run(command(tmp_path, "source", **SHORT))
    words = command(tmp_path, "new", model__init_from=tmp_path / "source", data__bhm__seed=9, **SHORT)
    done = run([*words, "--optimizer.lr", "1e-12"])
    assert "weights from" in done.stdout
    assert "2 of 2 tensors fit" in done.stdout
    source, new = (load_file(tmp_path / name / "model/model.safetensors") for name in ("source", "new"))
    for name, value in source.items():
        torch.testing.assert_close(new[name], value, rtol=0, atol=1e-9)
    # Once begun it goes on from its own checkpoints, and the source may be gone or another.
    again = run(command(tmp_path, "new", model__init_from=tmp_path, data__bhm__seed=9, **SHORT))
    assert "finished" in again.stdout


def test_what_fits_is_taken_and_the_rest_is_told(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "from torch import nn\n\n\n"
        "class Two(nn.Module):\n"
        "    def __init__(self, shape):\n"
        "        super().__init__()\n"
        "        self.inner, self.outer = nn.Linear(shape.context, 8), nn.Linear(8, shape.horizon)\n"
        "        self.targets = shape.targets\n\n"
        "    def forward(self, past_values):\n"
        "        hidden = self.inner(past_values.transpose(1, 2)).relu()\n"
        "        return self.outer(hidden).transpose(1, 2)[..., : self.targets]\n"
    )
    options = {**SHORT, "model__name": "two:Two"}
    run(command(tmp_path, "source", **options), cwd=tmp_path)
    other = {**options, "data__horizon": 6, "model__init_from": tmp_path / "source/model"}
    done = run(command(tmp_path, "new", **other), cwd=tmp_path)
    assert "2 of 4 tensors fit" in done.stdout
    assert "of another shape: outer.weight (12, 8) instead of (6, 8), outer.bias (12,) instead of (6,)" in done.stdout
    done = run(command(tmp_path, "none", **{**other, "model__name": "nlinear"}), cwd=tmp_path, code=4)
    assert "no weight fits the model" in done.stderr


def test_a_source_that_is_none_or_damaged_is_refused(tmp_path: Path) -> None:
    done = run(command(tmp_path, "new", model__init_from=tmp_path / "nowhere", **SHORT), code=2)
    assert "model.init_from" in done.stderr
    run(command(tmp_path, "source", **SHORT))
    weights = tmp_path / "source/model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = run(command(tmp_path, "new", model__init_from=tmp_path / "source", **SHORT), code=4)
    assert "model.init_from" in done.stderr
    assert "has changed" in done.stderr
    assert not (tmp_path / "new/checkpoints").exists()


def test_what_a_run_was_begun_from_stays_in_its_record(tmp_path: Path) -> None:
    run(command(tmp_path, "r", **SHORT))
    done = run(command(tmp_path, "r", model__init_from=tmp_path / "gone", **LONGER))
    assert "model.init_from has no effect on a run that goes on; it stays unset" in done.stdout
    assert "init_from: null" in (tmp_path / "r/config.yaml").read_text()


# ---- what must not be lost on the way


def test_a_run_whose_checkpoints_were_deleted_does_not_begin_anew(tmp_path: Path) -> None:
    words = command(tmp_path, "r", checkpoint__every_steps=5, training__max_time=0.01)
    run(words, code=75)
    shutil.rmtree(tmp_path / "r/checkpoints")
    before = (tmp_path / "r/metrics.jsonl").read_text()
    assert before
    done = run(command(tmp_path, "r"), code=4)
    assert "those that were there are gone" in done.stderr
    assert "--run.resume never" in done.stderr
    assert (tmp_path / "r/metrics.jsonl").read_text() == before


def test_a_refused_source_leaves_nothing_behind(tmp_path: Path) -> None:
    run(command(tmp_path, "right", **SHORT))
    run(command(tmp_path, "wrong", **SHORT, data__horizon=6))
    done = run(command(tmp_path, "new", **LONGER, run__resume=tmp_path / "wrong"), code=2)
    assert "data.horizon" in done.stderr
    assert not (tmp_path / "new/checkpoints").exists()
    done = run(command(tmp_path, "new", **LONGER, run__resume=tmp_path / "right"))
    assert "taken over from" in done.stdout


def test_copies_of_a_start_that_was_killed_are_made_again(tmp_path: Path) -> None:
    """Killed between the two copies, the run may hold the best checkpoint of the other one and not its newest."""
    run(command(tmp_path, "source", **SHORT, checkpoint__every_steps=3))
    shutil.copytree(tmp_path / "source/checkpoints/step-00000003", tmp_path / "new/checkpoints/step-00000003")
    done = run(command(tmp_path, "new", **LONGER, run__resume=tmp_path / "source"))
    assert "going on from step 6" in done.stdout
    assert rows(tmp_path / "new")[0]["step"] == 7


def test_what_more_epochs_do_to_the_rate_is_said(tmp_path: Path) -> None:
    options = {"schedule__name": "cosine", "evaluation__baselines": "[]"}
    run(command(tmp_path, "r", training__max_steps=6, **options))
    done = run(command(tmp_path, "r", training__max_steps=12, **options))
    [line] = [line for line in done.stdout.splitlines() if line.startswith("the learning rate is")]
    assert line == (
        "the learning rate is 0.0005 from here on, where it would have been 0: schedule cosine over 12 steps, "
        "after 6 before"
    )


def test_a_run_that_went_on_is_evaluated_with_its_newest_best(tmp_path: Path) -> None:
    run(command(tmp_path, "r", **SHORT))
    more = command(tmp_path, "r", training__epochs=9, evaluation__every_steps=4, checkpoint__keep_last=1)
    step = kill_after_checkpoint(more, tmp_path / "r", 12)
    best = read(tmp_path / f"r/checkpoints/step-{step:08d}/state.json")["trainer"]["best"]["step"]
    assert best > 6
    done = run([*PYTHON, "accel_trainer.evaluate", "--checkpoint", str(tmp_path / "r")])
    assert f"checkpoints/step-{best:08d}" in done.stdout


def test_a_mistyped_option_keeps_what_is_said_of_a_finished_run(tmp_path: Path) -> None:
    run(command(tmp_path, "r", **SHORT))
    before = read(tmp_path / "r/status.json")
    for _ in range(2):
        run(command(tmp_path, "r", **SHORT, optimizer__lrr=1), code=2)
        status = read(tmp_path / "r/status.json")
        assert (status["status"], status["exit_code"], status["finished"]) == ("failed", 2, before)
