"""One run from the command line to its folder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from tests.helpers.runs import PYTHON, command, read, rows, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    where = tmp_path_factory.mktemp("runs")
    done = run(command(where, "one", predict__enabled="true"))
    return where / "one", done.stdout


def test_leaves_the_run_folder(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    for name in ("config.yaml", "metrics.jsonl", "summary.json", "status.json", "model/model.safetensors"):
        assert (folder / name).is_file(), name
    for name in ("model/config.json", "model/scaler.json", "model/README.md", "predictions/forecast.parquet"):
        assert (folder / name).is_file(), name
    assert read(folder / "status.json")["status"] == "finished"
    assert read(folder / "status.json")["exit_code"] == 0


def test_first_line_states_processes_device_and_precision(finished: tuple[Path, str]) -> None:
    first = finished[1].splitlines()[0]
    assert "1 process" in first
    assert "CPU" in first
    assert "fp32" in first


def test_every_step_is_logged_once_with_a_loss(finished: tuple[Path, str]) -> None:
    logged = rows(finished[0])
    assert [row["step"] for row in logged] == list(range(1, len(logged) + 1))
    assert all(math.isfinite(row["train/loss"]) for row in logged)
    evaluated = [row for row in logged if "val/mse" in row]
    assert len(evaluated) == 2  # after each epoch
    assert all("val/mae" in row for row in evaluated)


def test_summary_compares_with_baselines_on_the_same_windows(finished: tuple[Path, str]) -> None:
    summary = read(finished[0] / "summary.json")
    assert {"persistence", "closed_form_linear"} <= summary["baselines"].keys()
    assert "seasonal_naive" in summary["left_out"]  # a day of 144 rows does not fit into 48 rows of context
    for scores in (summary["test"], *summary["baselines"].values()):
        assert scores["mse"] > 0
        assert scores["rmse"] == pytest.approx(math.sqrt(scores["mse"]))
        assert len(scores["per_step"]) == 12
        assert len(scores["per_sensor"]) == 5
    assert summary["stop_reason"]
    sensor = summary["test"]["per_sensor"][0]
    assert sensor["unit"] == "mm"
    assert sensor["physical"]["rmse"] > 0


def test_trained_weights_and_summary_are_of_the_best_evaluation(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    best = read(folder / "summary.json")["best"]
    evaluated = {row["step"]: row["val/mse"] for row in rows(folder) if "val/mse" in row}
    assert best["value"] == min(evaluated.values())
    exported = load_file(folder / "model/model.safetensors")
    kept = load_file(folder / f"checkpoints/step-{best['step']:08d}/model.safetensors")
    assert all((exported[name] == kept[name]).all() for name in kept)


def test_the_same_command_again_says_that_the_run_is_finished(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done = run(command(folder.parent, "one", predict__enabled="true"))
    assert "finished" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after.get(path)}
    assert {name for name in changed if not name.startswith((".lock", ".lease"))} <= {"status.json"}


def test_the_resolved_config_repeats_the_run(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    words = [*PYTHON, "accel_trainer.train", "--config", folder / "config.yaml", "--run.name", "again"]
    run([str(word) for word in words])
    assert (folder.parent / "again/metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()


def test_resume_never_sets_the_earlier_run_aside(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = (folder / "metrics.jsonl").read_text()
    done = run(command(folder.parent, "one", run__resume="never", training__max_steps=3))
    assert "one.1" in done.stdout
    assert (folder.parent / "one.1/metrics.jsonl").read_text() == before
    assert len(rows(folder)) == 3
    # Put it back for the other tests.
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    (folder.parent / "one.1").rename(folder)


def test_a_run_without_a_name_gets_one_from_its_options(tmp_path: Path) -> None:
    words = command(tmp_path, "x", training__max_steps=2)
    at = words.index("--run.name")
    run(words[:at] + words[at + 2 :])
    run([*words[:at], *words[at + 2 :], "--optimizer.lr", "2e-3"])
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 2
    assert all(name.startswith("nlinear-bhm-48x12-") for name in names)


def test_config_from_a_file_and_flags_after_it(tmp_path: Path) -> None:
    options = {
        "data": {"path": "bhm", "context": 48, "horizon": 12, "bhm": {"days": 12, "sensors": 3}},
        "tracking": {"mode": "disabled"},
        "training": {"max_steps": 5},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(options))
    run(
        [*PYTHON, "accel_trainer.train", "--config", "mine.yaml", "--run.name", "n", "--training.max_steps", "3"],
        tmp_path,
    )
    assert len(rows(tmp_path / "runs/n")) == 3


def test_a_forecast_can_be_asked_for_afterwards(tmp_path: Path) -> None:
    run(command(tmp_path, "late", training__max_steps=3))
    done = run([*command(tmp_path, "late", training__max_steps=3), "--do_predict"])
    assert "finished" in done.stdout
    assert (tmp_path / "late/predictions/forecast.csv").is_file()


def test_a_model_that_wants_calendar_features_is_scored_beside_baselines_that_do_not(tmp_path: Path) -> None:
    (tmp_path / "timed.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Timed(nn.Module):\n"
        "    def __init__(self, shape):\n"
        "        super().__init__()\n"
        "        self.values = nn.Linear(shape.context, shape.horizon)\n"
        "        self.time = nn.Linear(shape.time_features, shape.targets)\n"
        "    def forward(self, past_values, future_time_features):\n"
        "        return self.values(past_values.transpose(1, 2)).transpose(1, 2) + self.time(future_time_features)\n"
    )
    words = command(tmp_path, "timed", model__name="timed:Timed", training__max_steps=5, predict__enabled="true")
    run(words, tmp_path)
    assert "persistence" in read(tmp_path / "timed/summary.json")["baselines"]
