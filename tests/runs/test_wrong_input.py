"""A user's mistake gets one clear error, an exit code and a status; nothing saved is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.runs import PYTHON, command, read, run

TRAIN = [*PYTHON, "accel_trainer.train"]
CSV = "date,a [mm],b\n" + "".join(f"2025-01-01 {h:02d}:00:00,{h * 0.5},{-h}\n" for h in range(24))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optimizer.lrr", "1"], ["optimizer.lrr", "did you mean 'optimizer.lr'"]),
        (["--optimizer.lr", "fast"], ["optimizer.lr", "'fast'", "a number"]),
        (["--optimizer.lr", "-1"], ["optimizer.lr", "-1", "above 0"]),
        (["--config", "nope.yaml"], ["nope.yaml", "no such file"]),
        (["--config", "wrong.yaml"], ["wrong.yaml", "training.epoch", "did you mean 'training.epochs'"]),
        (["--config", "broken.yaml"], ["broken.yaml", "line 3"]),
        (["--data.path", "mine.csw"], ["data.path", "did you mean 'mine.csv'"]),
        (["--data.path", "mine.csv", "--model.name", "nlinaer"], ["model.name", "nlinear"]),
        (["--data.path", "mine.csv", "--model.name", "persistence"], ["model.name", "nothing to train"]),
        (["--data.path", "mine.csv", "--optimizer.name", "adamwx"], ["optimizer.name", "did you mean 'adamw'"]),
        (["--data.path", "mine.csv", "--optimizer.options.betta", "1"], ["optimizer.options.betta", "betas"]),
        (["--data.path", "mine.csv", "--tracking.trackers", "[wndb]"], ["tracking.trackers", "wandb"]),
        (["--data.path", "mine.csv", "--run.resume", "runs/none"], ["run.resume", "runs/none"]),
        (["--data.path", "mine.csv", "--early_stopping.monitor", "val/mze"], ["early_stopping.monitor", "val/mse"]),
        (["--early_stopping.monitor", "val/r2"], ["early_stopping.mode", "max"]),
        (["--data.split.train", "0.9", "--data.split.test", "0.2"], ["data.split", "no rows for validation"]),
        (["--data.path", "mine.csv", "--run.allow_changes", "[run.sed]"], ["run.allow_changes", "'run.seed'"]),
        (["--training.max_time", "4h"], ["training.max_time", "the number alone"]),
        (["train"], ["'train' is not an option"]),
    ],
)
def test_mistakes_are_answered_at_once(tmp_path: Path, words: list[str], said: list[str]) -> None:
    (tmp_path / "mine.csv").write_text(CSV)
    (tmp_path / "wrong.yaml").write_text("training:\n  epoch: 3\n")
    (tmp_path / "broken.yaml").write_text("training:\n  epochs: [3\n")
    done = run([*TRAIN, "--run.name", "r", *words], tmp_path, code=2)
    for text in said:
        assert text in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    status = read(tmp_path / "runs/r/status.json")
    assert status["status"] == "failed"
    assert status["exit_code"] == 2
    assert status["reason"] in done.stderr


def test_help_and_mistakes_do_not_wait_for_torch(tmp_path: Path) -> None:
    code = "import sys; from accel_trainer.train import main; main({}); assert 'torch' not in sys.modules"
    for words in (["--help"], ["--optimizer.lrr", "1"], ["--print_config"], ["--data.path", "nope.csv"]):
        done = run([sys.executable, "-c", code.format(words)], tmp_path)
        assert done.stdout or done.stderr


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (CSV, {}, ["rows", "context", "horizon"]),
        (CSV, {"data.context": 2, "data.horizon": 1, "data.targets": "[c]"}, ["'c'", "a, b"]),
        (CSV.replace("-3\n", "three\n"), {"data.context": 2, "data.horizon": 1}, ["three", "line", "b"]),
        ("", {}, ["empty"]),
    ],
)
def test_data_that_does_not_fit(tmp_path: Path, text: str, options: dict[str, object], said: list[str]) -> None:
    (tmp_path / "mine.csv").write_text(text)
    words = [*TRAIN, "--run.name", "r", "--data.path", "mine.csv", "--tracking.mode", "disabled"]
    done = run([*words, *(str(w) for name, value in options.items() for w in (f"--{name}", value))], tmp_path, code=2)
    for expected in said:
        assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert "mine" in done.stderr


def test_a_mistake_over_a_finished_run_loses_nothing(tmp_path: Path) -> None:
    run(command(tmp_path, "kept", training__max_steps=3))
    before = {p: p.read_bytes() for p in (tmp_path / "kept").rglob("*") if p.is_file() and p.name != "status.json"}
    run(command(tmp_path, "kept", optimizer__lr="much"), code=2)
    for path, content in before.items():
        if not path.name.startswith((".lock", ".lease")):
            assert path.read_bytes() == content
    again = run(command(tmp_path, "kept", training__max_steps=3))
    assert "finished" in again.stdout


MODELS = """
from torch import nn


class WrongShape(nn.Linear):
    def __init__(self, shape):
        super().__init__(shape.context, shape.horizon + 1)

    def forward(self, past_values):
        return super().forward(past_values.transpose(1, 2)).transpose(1, 2)


class Pair(WrongShape):
    def forward(self, past_values):
        return super().forward(past_values), None


class Peeks(WrongShape):
    def forward(self, past_values, future_values):
        return super().forward(past_values)


class Broken(WrongShape):
    def forward(self, past_values):
        return super().forward(past_values)[:, :-1] * float("nan")


class NoWeights(nn.Module):
    def __init__(self, shape):
        super().__init__()

    def forward(self, past_values):
        return past_values
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("WrongShape", 2, ["shape", "(32, 13, 5)", "(32, 12, 5)"]),
        ("Peeks", 2, ["future_values", "must forecast"]),
        ("Pair", 2, ["returned a tuple"]),
        ("NoWeights", 2, ["no weights"]),
        ("Missing", 2, ["no 'Missing'"]),
        ("Broken", 3, []),
    ],
)
def test_models_of_ones_own_that_cannot_work(tmp_path: Path, name: str, code: int, said: list[str]) -> None:
    (tmp_path / "own.py").write_text(MODELS)
    done = run(command(tmp_path, "r", model__name=f"own:{name}"), tmp_path, code=code)
    for expected in said:
        assert expected in done.stderr
    assert "Traceback" not in done.stderr
    status = read(tmp_path / "r/status.json")
    assert status["exit_code"] == code
    assert status["status"] == "failed"
