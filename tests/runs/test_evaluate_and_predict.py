"""What a trained run is used for afterwards."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.helpers.runs import PYTHON, command, flags, read, run

EVALUATE = [*PYTHON, "accel_trainer.evaluate"]
PREDICT = [*PYTHON, "accel_trainer.predict"]
START = datetime(2025, 3, 1)


def write_csv(
    path: Path, hours: int, columns: dict[str, float], start: datetime = START, period: float = 3600.0
) -> None:
    """Daily waves, each sensor at its own height, in physical units far from z-scores."""
    lines = ["time," + ",".join(columns)]
    for row in range(hours):
        stamp = start + timedelta(seconds=row * period)
        wave = np.sin(2 * np.pi * row / 24)
        lines.append(
            f"{stamp:%Y-%m-%d %H:%M:%S}," + ",".join(f"{height + 10 * wave:.4f}" for height in columns.values())
        )
    path.write_text("\n".join(lines) + "\n")


SENSORS = {"deflection [mm]": 500.0, "strain [µε]": -2000.0, "temp [°C]": 15.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("trained")
    write_csv(where / "bridge.csv", 480, SENSORS)
    options = {"data.path": "bridge.csv", "data.context": 48, "data.horizon": 24, "optimizer.lr": "1e-2"}
    words = [*PYTHON, "accel_trainer.train", "--run.name", "r", "--tracking.mode", "disabled", "--do_predict"]
    run([*words, *flags({**options, "data.covariates": "[temp]"})], where)
    return where


def test_the_forecast_follows_the_data_in_physical_units(trained: Path) -> None:
    table = pq.read_table(trained / "runs/r/predictions/forecast.parquet")
    assert set(table.column("sensor").to_pylist()) == {"deflection", "strain"}  # the covariate is not forecast
    rows = table.to_pylist()
    assert len(rows) == 2 * 24
    first = next(row for row in rows if row["sensor"] == "strain" and row["step"] == 1)
    assert first["timestamp"] == START + timedelta(hours=480)
    assert first["unit"] == "µε"
    truth = {
        name: np.array([height + 10 * np.sin(2 * np.pi * hour / 24) for hour in range(480, 504)])
        for name, height in (("deflection", 500.0), ("strain", -2000.0))
    }
    for name, expected in truth.items():
        forecast = np.array([row["forecast"] for row in rows if row["sensor"] == name])
        assert np.abs(forecast - expected).max() < 2.0
    csv = pyarrow.csv.read_csv(trained / "runs/r/predictions/forecast.csv")
    assert csv.column("forecast").to_pylist() == pytest.approx(table.column("forecast").to_pylist())


def test_evaluate_gives_what_the_run_reported(trained: Path) -> None:
    done = run([*EVALUATE, "--checkpoint", "runs/r", "--json", "again.json"], trained)
    again, summary = read(trained / "again.json"), read(trained / "runs/r/summary.json")
    assert again["scores"]["mse"] == pytest.approx(summary["test"]["mse"], rel=1e-6)
    assert again["baselines"].keys() == summary["baselines"].keys()
    assert again["windows"] == summary["protocol"]["test_windows"]
    assert "MSE" in done.stdout


@pytest.mark.parametrize("what", ["runs/r/model", "checkpoint", "moved"])
def test_a_checkpoint_and_an_exported_model_stand_for_themselves(trained: Path, what: str, tmp_path: Path) -> None:
    if what == "checkpoint":
        best = read(trained / "runs/r/summary.json")["best"]["step"]
        folder = trained / f"runs/r/checkpoints/step-{best:08d}"
    elif what == "moved":
        folder = tmp_path / "elsewhere"
        shutil.copytree(trained / "runs/r/model", folder)
    else:
        folder = trained / what
    run([*EVALUATE, "--checkpoint", str(folder), "--json", str(tmp_path / "a.json")], trained)
    expected = read(trained / "runs/r/summary.json")["test"]["mse"]
    assert read(tmp_path / "a.json")["scores"]["mse"] == pytest.approx(expected, rel=1e-6)


def test_another_file_is_scored_and_forecast_whole_whatever_the_order_of_its_columns(trained: Path) -> None:
    other = {"temp [°C]": 15.0, "unrelated": 7.0, "strain [µε]": -2000.0, "deflection [mm]": 500.0}
    later = START + timedelta(days=100)
    write_csv(trained / "other.csv", 100, other, later)
    run([*EVALUATE, "--checkpoint", "runs/r", "--data.path", "other.csv", "--json", "o.json"], trained)
    result = read(trained / "o.json")
    assert result["windows"] == 100 - 48 - 24 + 1
    assert result["scores"]["per_sensor"][0]["physical"]["rmse"] < 2.0
    run([*PREDICT, "--checkpoint", "runs/r", "--data.path", "other.csv", "--out", "p"], trained)
    rows = pq.read_table(trained / "p/forecast.parquet").to_pylist()
    assert rows[0]["timestamp"] == later + timedelta(hours=100)


def test_the_forecast_of_one_checkpoint_does_not_take_the_place_of_the_runs_own(trained: Path) -> None:
    own = trained / "runs/r/predictions/forecast.csv"
    run([*PREDICT, "--checkpoint", "runs/r"], trained)
    before = own.read_bytes()
    [checkpoint, *_] = sorted((trained / "runs/r/checkpoints").glob("step-*"))
    done = run([*PREDICT, "--checkpoint", str(checkpoint)], trained)
    assert f"weights: {checkpoint}" in done.stdout
    assert (own.parent / checkpoint.name / "forecast.csv").is_file()
    assert own.read_bytes() == before


def test_a_file_just_long_enough_for_one_forecast(trained: Path) -> None:
    write_csv(trained / "short.csv", 48, SENSORS)
    run([*PREDICT, "--checkpoint", "runs/r", "--data.path", "short.csv", "--out", "s"], trained)
    assert (trained / "s/forecast.csv").is_file()
    write_csv(trained / "shorter.csv", 47, SENSORS)
    done = run([*PREDICT, "--checkpoint", "runs/r", "--data.path", "shorter.csv", "--out", "s2"], trained, code=2)
    assert "47 rows" in done.stderr
    assert not (trained / "s2").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["--checkpoint"]),
        (["--checkpoint", "runs/x"], ["runs/x", "did you mean 'runs/r'"]),
        (["--checkpoint", "runs"], ["runs", "no model and no checkpoint"]),
        (["--checkpoint", "runs/r", "--data.path", "missing.csv"], ["missing.csv", "no such file"]),
        (["--checkpoint", "runs/r", "--data.path", "without.csv"], ["'strain'"]),
        (["--checkpoint", "runs/r", "--data.path", "slower.csv"], ["7200 s", "3600 s"]),
        (["--checkpoint", "runs/r", "--data.horizon", "5"], ["data.horizon", "trained model"]),
        (["--checkpoint", "runs/r", "--optimizer.lr", "5"], ["optimizer.lr", "unknown option"]),
    ],
)
@pytest.mark.parametrize("program", [EVALUATE, PREDICT], ids=["evaluate", "predict"])
def test_mistakes(trained: Path, program: list[str], words: list[str], said: list[str]) -> None:
    write_csv(trained / "without.csv", 100, {"deflection [mm]": 500.0, "temp [°C]": 15.0})
    write_csv(trained / "slower.csv", 100, SENSORS, period=7200.0)
    done = run([*program, *words], trained, code=2)
    for text in said:
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_model_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs/r/model", tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    done = run([*EVALUATE, "--checkpoint", str(tmp_path / "model")], trained, code=4)
    assert "model.safetensors" in done.stderr


def test_interrupted_runs_can_be_evaluated(trained: Path, tmp_path: Path) -> None:
    run(command(tmp_path, "half", training__epochs=1))
    shutil.rmtree(tmp_path / "half/model")
    (tmp_path / "half/summary.json").unlink()
    done = run([*EVALUATE, "--checkpoint", str(tmp_path / "half")])
    assert "checkpoints/step-" in done.stdout


def test_reading_a_model_of_ones_own_runs_no_code_unless_trusted(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from torch import nn\n"
        "Path('ran').touch()\n"
        "class Mine(nn.Linear):\n"
        "    def __init__(self, shape):\n"
        "        super().__init__(shape.context, shape.horizon)\n"
        "    def forward(self, past_values):\n"
        "        return super().forward(past_values.transpose(1, 2)).transpose(1, 2)\n"
    )
    run(command(tmp_path, "own", training__max_steps=3, model__name="mine:Mine"), tmp_path)
    for words in ([*EVALUATE, "--checkpoint", "own"], [*PREDICT, "--checkpoint", "own"]):
        (tmp_path / "ran").unlink()
        refused = run(words, tmp_path, code=2)
        assert "--trust mine:Mine" in refused.stderr
        assert not (tmp_path / "ran").exists()
        run([*words, "--trust", "mine:Mine"], tmp_path)
        assert (tmp_path / "ran").exists()
