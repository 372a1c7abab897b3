"""The experiment does not depend on how it is cut into processes and passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.runs import PYTHON, TORCHRUN, TWO_PROCESSES, command, read, rows, run

STEPS = 50


def losses(folder: Path) -> list[float]:
    return [row["train/loss"] for row in rows(folder)]


@pytest.mark.parametrize(("model", "launcher"), [("nlinear", TWO_PROCESSES), ("dlinear", TORCHRUN)])
def test_two_processes_compute_what_one_does(tmp_path: Path, model: str, launcher: list[str]) -> None:
    options = {"model__name": model, "training__max_steps": STEPS, "training__epochs": 9, "training__clip_norm": 1.0}
    run(command(tmp_path, "one", PYTHON, **options))
    done = run(command(tmp_path, "two", launcher, **options))
    assert "2 processes" in done.stdout
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert len(losses(tmp_path / "one")) == STEPS
    one, two = (read(tmp_path / name / "summary.json") for name in ("one", "two"))
    assert two["test"]["mse"] == pytest.approx(one["test"]["mse"], rel=1e-5)
    for name, scores in one["baselines"].items():
        assert two["baselines"][name]["mse"] == pytest.approx(scores["mse"], rel=1e-6)


def test_output_of_two_processes_comes_once(tmp_path: Path) -> None:
    # 33 windows a step: the processes' shares differ, and in the last pass one of them has nothing left.
    options = {"training__max_steps": 4, "training__batch_size": 33, "training__micro_batch_size": 4}
    done = run(command(tmp_path, "two", TWO_PROCESSES, **options))
    assert done.stdout.count("2 processes") == 1
    assert done.stdout.count("the model ") == 1
    run(command(tmp_path, "one", **options))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    options = {"training__epochs": 1}
    run(command(tmp_path, "whole", **{**options, "training__epochs": 2}))
    run(command(tmp_path, "changed", TWO_PROCESSES, **options))
    run(command(tmp_path, "changed", **{**options, "training__epochs": 2}))
    assert losses(tmp_path / "changed") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_accumulation_from_the_launcher_makes_passes_not_bigger_steps(tmp_path: Path) -> None:
    options = {"training__max_steps": 12}
    run(command(tmp_path, "plain", **options))
    launcher = ["accelerate", "launch", "--gradient_accumulation_steps", "4", "-m"]
    run(command(tmp_path, "passes", launcher, **options))
    assert losses(tmp_path / "passes") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


def test_precision_of_the_launcher_holds_unless_set_here(tmp_path: Path) -> None:
    launcher = ["accelerate", "launch", "--mixed_precision", "bf16", "-m"]
    assert "bf16" in run(command(tmp_path, "theirs", launcher, training__max_steps=2)).stdout.splitlines()[0]
    ours = command(tmp_path, "ours", launcher, training__max_steps=2, training__mixed_precision="no")
    assert "fp32" in run(ours).stdout.splitlines()[0]


def test_fp16_without_a_gpu_is_refused(tmp_path: Path) -> None:
    done = run(command(tmp_path, "half", training__mixed_precision="fp16"), code=2)
    assert "fp16 needs a GPU" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        (["accelerate", "launch", "--cpu", "--num_processes", "2", "-m"], "--multi_gpu --num_processes 2"),
        (PYTHON, "run.expect_processes"),
    ],
)
def test_a_launch_that_would_train_in_one_process_is_refused(tmp_path: Path, launcher: list[str], said: str) -> None:
    options = {"run__expect_processes": 2} if launcher == PYTHON else {}
    done = run(command(tmp_path, "wrong", launcher, **options), code=None)
    assert done.returncode != 0
    assert said in done.stderr
    status = read(tmp_path / "wrong/status.json")
    assert status["status"] == "failed"
    assert status["exit_code"] == 2
    assert not (tmp_path / "wrong/metrics.jsonl").exists()


def test_two_runs_of_one_process_in_one_folder_are_refused(tmp_path: Path) -> None:
    # What `--multi_gpu` does on a machine without a GPU, when Accelerate is not told to use the CPU.
    done = run(command(tmp_path, "twice", TWO_PROCESSES), code=None, ACCELERATE_USE_CPU="false")
    assert done.returncode != 0
    assert "ACCELERATE_USE_CPU=true" in done.stderr
    assert not (tmp_path / "twice/metrics.jsonl").exists()
