"""Real measurement files, trained on as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.runs import PYTHON, read, run

CONFIGS = Path(__file__).parents[2] / "configs"
DATA = Path(os.environ.get("ACCEL_TRAINER_DATA", "nowhere"))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="ACCEL_TRAINER_DATA names no folder of real data"),
]


def summary_of(config: str, file: str, where: Path) -> dict:
    words = ["--config", CONFIGS / config, "--data.path", DATA / file, "--run.dir", where, "--run.name", "r"]
    run([*PYTHON, "accel_trainer.train", *(str(word) for word in words), "--tracking.mode", "disabled"])
    return read(where / "r/summary.json")


def test_nlinear_on_etth1_under_the_exact_protocol(tmp_path: Path) -> None:
    summary = summary_of("ett/nlinear_h1_336_96.yaml", "ETT/ETTh1.csv", tmp_path)
    assert summary["protocol"]["test_windows"] == 2785
    assert summary["test"]["mse"] <= 0.376
    closed_form, persistence = (summary["baselines"][name] for name in ("closed_form_linear", "persistence"))
    assert (round(closed_form["mse"], 3), round(closed_form["mae"], 3)) == (0.370, 0.392)
    assert (round(persistence["mse"], 3), round(persistence["mae"], 3)) == (1.294, 0.713)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(
            "munich/UniBw_2022-04-11_ref_support_load_01AllM100.0Hz.csv", marks=pytest.mark.slow, id="munich-load"
        ),
        pytest.param("munich/ReferenceStateForceAt100Hz.csv", marks=pytest.mark.slow, id="munich-force"),
        pytest.param("nebraska/STEEL_50MPH_06_SHEET1.csv", id="nebraska-steel"),
        pytest.param("nebraska/CONC_15MPH_02_SHEET1.csv", id="nebraska-concrete"),
        pytest.param("nebraska/PonkaConcreteBridge_R11_07_25_2019_10_28_44_SHEET2.csv", id="nebraska-ponka"),
    ],
)
def test_load_tests_at_100_hz_beat_persistence(tmp_path: Path, file: str) -> None:
    summary = summary_of("load_test_100hz.yaml", file, tmp_path)
    assert summary["data"]["period_seconds"] == pytest.approx(0.01)
    assert summary["test"]["mse"] < summary["baselines"]["persistence"]["mse"]
