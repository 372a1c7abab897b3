"""What is refused before torch is imported and data is read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from accel_trainer.checks import check_baselines, check_config, check_fixed, check_path
from accel_trainer.config import RunConfig
from accel_trainer.errors import ConfigError


def config(**options: Any) -> RunConfig:
    """Return a valid configuration with some options changed, ``section__option=value``."""
    made = RunConfig()
    made.data.path = "bhm"
    for name, value in options.items():
        section, option = name.split("__")
        setattr(getattr(made, section), option, value)
    return made


def test_a_configuration_that_can_work():
    check_config(config())
    check_config(config(model__name="my.module:Model", optimizer__name="my.module:Optimizer"))
    check_config(config(model__name="dlinear", model__options={"kernel_size": 5}, tracking__trackers=[]))


@pytest.mark.parametrize(
    ("options", "key", "part"),
    [
        ({"model__name": "nliner"}, "model.name", "did you mean 'nlinear'?"),
        ({"model__name": "persistence"}, "model.name", "nothing to train"),
        ({"model__name": "my module:Model"}, "model.name", "module:Class"),
        ({"model__options": {"individua": True}}, "model.options.individua", "did you mean 'individual'?"),
        ({"model__options": {"individual": "maybe"}}, "model.options.individual", "true or false"),
        ({"model__name": "dlinear", "model__options": {"kernel_size": 4}}, "model.options.kernel_size", "odd"),
        ({"optimizer__name": "adamq"}, "optimizer.name", "did you mean 'adam'?"),
        ({"optimizer__options": {"beta": [0, 0]}}, "optimizer.options.beta", "did you mean 'betas'?"),
        ({"tracking__trackers": ["wandbb"]}, "tracking.trackers", "did you mean 'wandb'?"),
        ({"evaluation__baselines": ["persistance"]}, "evaluation.baselines", "did you mean 'persistence'?"),
        ({"evaluation__baselines": ["nlinear"]}, "evaluation.baselines", "'nlinear' is no baseline"),
        ({"early_stopping__monitor": "val/msee"}, "early_stopping.monitor", "did you mean 'val/mse'?"),
        ({"data__path": None}, "data.path", "is not set"),
        ({"run__resume": "runs/nowhere"}, "run.resume", "neither auto, never nor"),
    ],
)
def test_what_cannot_work_is_refused_by_name(options, key, part):
    with pytest.raises(ConfigError, match=re.escape(part)) as caught:
        check_config(config(**options))
    assert caught.value.key == key


def test_a_folder_to_go_on_from(tmp_path):
    check_config(config(run__resume=str(tmp_path)))


def test_paths(tmp_path):
    (tmp_path / "bridge.csv").write_text("")
    check_path("bhm")
    check_path(str(tmp_path / "bridge.csv"))
    check_path(str(tmp_path))
    with pytest.raises(ConfigError, match=r"no such file: .*brigde\.csv; did you mean '.*bridge\.csv'"):
        check_path(str(tmp_path / "brigde.csv"))
    with pytest.raises(ConfigError, match="no such file: bmh; did you mean 'bhm'"):
        check_path("bmh")
    with pytest.raises(ConfigError, match="no such file: nowhere/at/all"):
        check_path("nowhere/at/all")


def test_baselines():
    check_baselines([])
    check_baselines(["persistence", "seasonal_naive", "closed_form_linear"])


def test_what_belongs_to_a_trained_model_stays(tmp_path):
    check_fixed({"data.path": "--data.path", "evaluation.batch_size": "a.yaml"})
    with pytest.raises(ConfigError, match=r"data\.horizon: belongs to the trained model .*\[a\.yaml\]"):
        check_fixed({"data.path": "--data.path", "data.horizon": "a.yaml"})
