"""Runs that are killed go on as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.runs import (
    TWO_PROCESSES,
    assert_same_run,
    checkpoint_steps,
    command,
    environment,
    kill_after_checkpoint,
    read,
    rows,
    run,
)

DROPOUT_MODEL = """
from torch import nn


class Noisy(nn.Module):
    def __init__(self, shape, p=0.3):
        super().__init__()
        self.net = nn.Sequential(nn.Dropout(p), nn.Linear(shape.context, 32), nn.ReLU(), nn.Linear(32, shape.horizon))
        self.targets = shape.targets

    def forward(self, past_values):
        return self.net(past_values.transpose(1, 2)).transpose(1, 2)[..., : self.targets]
"""

CASES = {
    "nlinear": {"model__name": "nlinear"},
    "dropout, clipping and micro-batches": {
        "model__name": "noisy:Noisy",
        "training__clip_norm": 0.5,
        "training__micro_batch_size": 7,
        "schedule__name": "cosine",
    },
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "noisy.py").write_text(DROPOUT_MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_in_mid_epoch_three_times(here: Path, case: str) -> None:
    options = {**CASES[case], "checkpoint__every_steps": 7, "training__epochs": 3}
    run(command(here, "whole", **options))
    killed = command(here, "killed", **options)
    for number, step in enumerate((7, 28, 70)):
        assert kill_after_checkpoint(killed, here / "killed", step, wait=0.004 * number) >= step
    done = run(killed)
    assert "going on from step" in done.stdout
    assert_same_run(here / "whole", here / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_killed_with_several_processes(here: Path, processes: int) -> None:
    """Three add up in an order that depends on how gradients and losses are laid out; two cannot."""
    launcher = [*TWO_PROCESSES[:-2], str(processes), "-m"]
    options = {**CASES["dropout, clipping and micro-batches"], "checkpoint__every_steps": 7}
    run(command(here, "whole", launcher, **options))
    killed = command(here, "killed", launcher, **options, checkpoint__asynchronous=True)
    for step in (7, 35):
        kill_after_checkpoint(killed, here / "killed", step)
    run(killed)
    assert_same_run(here / "whole", here / "killed")


def test_a_damaged_checkpoint_is_passed_over_and_named(here: Path) -> None:
    options = {"checkpoint__every_steps": 7, "checkpoint__keep_last": 3}
    run(command(here, "whole", **options))
    words = command(here, "damaged", **options)
    kill_after_checkpoint(words, here / "damaged", 21)
    newest = here / "damaged/checkpoints" / f"step-{checkpoint_steps(here / 'damaged')[-1]:08d}/model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = run(words)
    assert f"passed over {newest.parent}" in done.stdout.replace("\n", "")
    assert "model.safetensors has changed" in done.stdout
    assert_same_run(here / "whole", here / "damaged")


def test_no_checkpoint_that_verifies_is_an_error_not_a_fresh_start(here: Path) -> None:
    words = command(here, "lost", checkpoint__every_steps=7)
    kill_after_checkpoint(words, here / "lost", 14)
    for step in checkpoint_steps(here / "lost"):
        (here / f"lost/checkpoints/step-{step:08d}/optimizer.bin").unlink()
    done = run(words, code=4)
    assert "optimizer.bin is missing" in done.stderr
    assert read(here / "lost/status.json")["exit_code"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(here: Path, number: signal.Signals) -> None:
    run(command(here, "whole", training__epochs=3))
    words = command(here, "asked", training__epochs=3)
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not checkpoint_steps(here / "asked"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    status = read(here / "asked/status.json")
    assert status["status"] == "preempted"
    assert number.name in status["reason"]
    run(words)
    assert_same_run(here / "whole", here / "asked")


def test_a_second_start_of_a_live_run_is_refused(here: Path) -> None:
    words = command(here, "live", training__epochs=2000)
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not checkpoint_steps(here / "live"):
            assert process.poll() is None
            time.sleep(0.01)
        second = run(words, code=2)
        assert "is writing to this run" in second.stderr
        assert str(process.pid) in second.stderr
        assert read(here / "live/status.json")["status"] == "running"
    finally:
        process.kill()
        process.wait()


def test_more_epochs_continue_a_finished_run(here: Path) -> None:
    run(command(here, "short", training__epochs=1))
    done = run(command(here, "short", training__epochs=2))
    assert "training.epochs: 1 -> 2" in done.stdout
    run(command(here, "long", training__epochs=2))
    assert [row["train/loss"] for row in rows(here / "short")] == [row["train/loss"] for row in rows(here / "long")]


@pytest.mark.parametrize(
    ("option", "value"), [("data__horizon", 6), ("training__batch_size", 16), ("run__seed", 1), ("data__bhm__seed", 5)]
)
def test_a_change_of_the_experiment_is_refused(here: Path, option: str, value: int) -> None:
    run(command(here, "fixed", training__max_steps=3))
    done = run(command(here, "fixed", training__max_steps=6, **{option: value}), code=2)
    assert option.replace("__", ".") in done.stderr
    assert "--run.allow_changes" in done.stderr


def test_resume_from_another_run(here: Path) -> None:
    run(command(here, "first", training__epochs=1))
    done = run(command(here, "second", training__epochs=2, run__resume=here / "first"))
    assert "taken over from" in done.stdout
    run(command(here, "whole", training__epochs=2))
    first, second = (
        load_file(here / "whole/model/model.safetensors"),
        load_file(here / "second/model/model.safetensors"),
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    # Everything it needs is its own: the other run may go.
    shutil.rmtree(here / "first")
    assert "finished" in run(command(here, "second", training__epochs=2)).stdout


def test_resume_from_another_run_that_was_never_beaten(here: Path) -> None:
    """The best weights are the other run's then, and are tested and exported here."""
    run(command(here, "first", training__epochs=1))
    options = {"training__epochs": 2, "run__resume": here / "first", "optimizer__lr": 3.0}
    run(command(here, "second", **options))
    best = read(here / "second/summary.json")["best"]
    assert best == read(here / "first/summary.json")["best"]
    first, second = (
        load_file(here / "first/model/model.safetensors"),
        load_file(here / "second/model/model.safetensors"),
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("option", "value"), [("data__horizon", 6), ("training__batch_size", 8), ("data__bhm__seed", 5)]
)
def test_resume_from_a_run_of_another_experiment_is_refused(here: Path, option: str, value: int) -> None:
    run(command(here, "first", training__max_steps=3))
    done = run(command(here, "second", run__resume=here / "first", **{option: value}), code=2)
    assert option.replace("__", ".") in done.stderr


def test_resume_from_a_checkpoint_of_the_same_run_is_refused(here: Path) -> None:
    run(command(here, "own", training__epochs=1, checkpoint__every_steps=10))
    inside = here / f"own/checkpoints/step-{checkpoint_steps(here / 'own')[0]:08d}"
    done = run(command(here, "own", training__epochs=2, run__resume=inside), code=2)
    assert "belongs to this run itself" in done.stderr


def test_a_lost_best_checkpoint_is_said_and_looked_for_anew(here: Path) -> None:
    run(command(here, "r", training__epochs=1))
    run(command(here, "r", training__epochs=2, optimizer__lr=3.0))  # makes it worse, so that the best stays behind
    best = read(here / "r/summary.json")["best"]["step"]
    (here / f"r/checkpoints/step-{best:08d}/model.safetensors").unlink()
    done = run(command(here, "r", training__epochs=3))
    assert "model.safetensors is missing" in done.stdout
    assert read(here / "r/summary.json")["best"]["step"] != best


def test_another_optimizer_is_refused_or_starts_afresh_when_allowed(here: Path) -> None:
    run(command(here, "r", training__epochs=1, optimizer__name="sgd", optimizer__lr=0.1))
    change = {"training__epochs": 2, "optimizer__name": "adamw"}
    done = run(command(here, "r", **change), code=2)
    assert "optimizer.name: sgd -> adamw" in done.stderr
    done = run(command(here, "r", **change, run__allow_changes="[optimizer.name]"))
    assert "starts without what it had gathered" in done.stdout


def test_fewer_steps_than_were_done_end_the_run_with_a_result(here: Path) -> None:
    words = command(here, "r", checkpoint__every_steps=7, evaluation__every_steps=10000)
    kill_after_checkpoint(words, here / "r", 14)
    run([*words, "--training.max_steps", "10"])
    assert read(here / "r/summary.json")["test"]["mse"] > 0


def test_a_finished_run_without_its_checkpoints_stays_finished(here: Path) -> None:
    run(command(here, "r", training__max_steps=3))
    shutil.rmtree(here / "r/checkpoints")
    before = (here / "r/metrics.jsonl").read_text()
    assert "finished" in run(command(here, "r", training__max_steps=3)).stdout
    done = run(command(here, "r", training__max_steps=6), code=4)
    assert "are gone" in done.stderr
    assert (here / "r/metrics.jsonl").read_text() == before


def test_a_refusal_reaches_all_processes(here: Path) -> None:
    run(command(here, "r", training__max_steps=3))
    done = run(command(here, "r", TWO_PROCESSES, data__horizon=6), code=None)
    assert done.returncode != 0
    assert done.stderr.count("error: data.horizon") == 1
    assert "unpickl" not in done.stderr
    assert "TypeError" not in done.stderr
    status = read(here / "r/status.json")
    assert (status["status"], status["exit_code"]) == ("failed", 2)
    assert (status["finished"]["exit_code"], status["finished"]["step"]) == (0, 3)  # that it had ended well stays said


@pytest.mark.slow
def test_a_compiled_model_is_saved_under_its_own_names(here: Path) -> None:
    launcher = ["accelerate", "launch", "--dynamo_backend", "eager", "-m"]
    run(command(here, "compiled", launcher, training__max_steps=3))
    assert all("_orig_mod" not in name for name in load_file(here / "compiled/model/model.safetensors"))
    run(command(here, "compiled", training__max_steps=3))


def test_sigterm_outside_of_training_leaves_a_status(here: Path) -> None:
    words = [*command(here, "early"), "--data.bhm.days", "36000"]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "1 process" in process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert read(here / "early/status.json")["status"] == "preempted"


def test_interrupting_while_the_data_is_read_leaves_a_status(here: Path) -> None:
    words = [*command(here, "early"), "--data.bhm.days", "36000"]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "1 process" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert read(here / "early/status.json")["status"] == "failed"
