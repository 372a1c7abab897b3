"""Ranges and contradictions hold for Python callers too, and a digest tells configurations apart."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel_trainer.config import (
    CheckpointOptions,
    DataOptions,
    EarlyStoppingOptions,
    EvaluationOptions,
    ModelOptions,
    OptimizerOptions,
    RunConfig,
    RunOptions,
    ScheduleOptions,
    SplitOptions,
    TrackingOptions,
    TrainingOptions,
)
from accel_trainer.data.bhm_options import BridgeOptions
from accel_trainer.errors import ConfigError, UserError
from accel_trainer.options import leaves
from accel_trainer.settings import digest, run_name, to_dict

WRONG = [
    (
        RunOptions,
        "run",
        {"name": ["", ".", "..", "a/b", "a\\b", "a:b", " a", "a ", "a\0"], "dir": [""], "resume": [""]},
    ),
    (RunOptions, "run", {"seed": [-1, 2**32], "expect_processes": [0, -1]}),
    (SplitOptions, "data.split", {"train": [0, 1, -0.1, 1.5, math.nan], "test": [0, 1, math.nan]}),
    (DataOptions, "data", {"path": ["", "  "], "period": [0, -1, math.inf, math.nan], "season": [0, math.nan]}),
    (DataOptions, "data", {"context": [0, -1], "horizon": [0], "stride": [0]}),
    (BridgeOptions, "data.bhm", {"days": [0, -1, 40000, math.nan], "period": [0.5, 1e6], "sensors": [0, 1001]}),
    (BridgeOptions, "data.bhm", {"damage": [-0.1, 1], "damage_day": [-1, 366], "start": ["soon", "2025-13-01"]}),
    (ModelOptions, "model", {"name": [""]}),
    (OptimizerOptions, "optimizer", {"name": [""], "lr": [0, -1, math.inf, math.nan], "weight_decay": [-1, math.nan]}),
    (ScheduleOptions, "schedule", {"warmup": [-1], "min_ratio": [-0.1, 1.1, math.nan]}),
    (TrainingOptions, "training", {"epochs": [0], "max_steps": [0], "batch_size": [0], "micro_batch_size": [0]}),
    (TrainingOptions, "training", {"loss_delta": [0], "clip_norm": [0, math.inf], "max_nonfinite_steps": [0]}),
    (EarlyStoppingOptions, "early_stopping", {"monitor": [""], "patience": [0], "min_delta": [-1, math.inf]}),
    (TrainingOptions, "training", {"max_time": [0, -1, math.inf], "threads": [0], "process_timeout": [0]}),
    (CheckpointOptions, "checkpoint", {"every_steps": [0], "every_epochs": [0], "every_minutes": [0, math.nan]}),
    (CheckpointOptions, "checkpoint", {"keep_last": [0], "keep_best": [0], "keep_every": [0]}),
    (TrackingOptions, "tracking", {"project": [""], "log_every": [0]}),
    (EvaluationOptions, "evaluation", {"every_steps": [0], "batch_size": [0]}),
]


@pytest.mark.parametrize(
    ("record", "option", "value", "key"),
    [
        (record, option, value, f"{section}.{option}")
        for record, section, options in WRONG
        for option, values in options.items()
        for value in values
    ],
)
def test_values_out_of_range_are_refused_by_name(record, option, value, key):
    with pytest.raises(ConfigError) as caught:
        record(**{option: value})
    assert caught.value.key == key
    assert repr(value) in caught.value.problem


@pytest.mark.parametrize(
    ("record", "options", "key"),
    [
        (SplitOptions, {"train": 0.8, "test": 0.2}, "data.split"),
        (SplitOptions, {"kind": "date", "validation_start": "2025-01-01"}, "data.split"),
        (SplitOptions, {"test_start": "2025-01-01"}, "data.split.test_start"),
        (SplitOptions, {"kind": "ett", "end": "2025-01-01"}, "data.split.end"),
        (DataOptions, {"targets": ["a", "b"], "covariates": ["b"]}, "data.covariates"),
    ],
)
def test_contradictions_are_refused(record, options, key):
    with pytest.raises(ConfigError) as caught:
        record(**options)
    assert caught.value.key == key


def test_the_defaults_are_valid_and_not_shared():
    one, other = RunConfig(), RunConfig()
    one.optimizer.options["a"] = 1
    one.evaluation.baselines.append("x")
    assert other == RunConfig()


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=3))
def test_a_digest_is_the_same_for_equal_configurations(options):
    config = RunConfig(model=ModelOptions(options=options))
    other = RunConfig(model=ModelOptions(options=dict(reversed(list(options.items())))))
    assert digest(config) == digest(other)
    assert len(digest(config)) == 8
    assert int(digest(config), 16) >= 0


# One other valid value for every option that has an effect on the result, or on what the run is.
OTHER: dict[str, Any] = {
    "run.seed": 1,
    "data.path": "other.csv",
    "data.time_column": "t",
    "data.period": 2.0,
    "data.targets": ["a"],
    "data.covariates": ["a"],
    "data.missing": ["-99"],
    "data.context": 337,
    "data.horizon": 97,
    "data.stride": 2,
    "data.season": 2.0,
    "data.split.train": 0.6,
    "data.split.test": 0.1,
    "data.bhm.days": 364.0,
    "data.bhm.period": 601.0,
    "data.bhm.sensors": 25,
    "data.bhm.start": "2025-01-02",
    "data.bhm.seed": 1,
    "data.bhm.faults": False,
    "data.bhm.damage": 0.1,
    "data.bhm.damage_day": 1.0,
    "data.bhm.kind": "steel",
    "model.name": "dlinear",
    "model.options": {"a": 1},
    "model.init_from": "runs/another",
    "optimizer.name": "sgd",
    "optimizer.lr": 2e-3,
    "optimizer.weight_decay": 0.1,
    "optimizer.decay_all": True,
    "optimizer.options": {"eps": 1e-7},
    "schedule.name": "cosine",
    "schedule.warmup": 1,
    "schedule.min_ratio": 0.1,
    "training.epochs": 11,
    "training.max_steps": 1,
    "training.batch_size": 33,
    "training.micro_batch_size": 1,
    "training.loss": "mae",
    "training.loss_delta": 2.0,
    "training.clip_norm": 1.0,
    "training.mixed_precision": "bf16",
    "training.max_nonfinite_steps": 6,
    "training.deterministic": True,
    "training.max_time": 60.0,
    "training.process_timeout": 60.0,
    "training.threads": 1,
    "early_stopping.enabled": False,
    "early_stopping.monitor": "val/mae",
    "early_stopping.mode": "max",
    "early_stopping.patience": 4,
    "early_stopping.min_delta": 0.1,
    "checkpoint.every_steps": 1,
    "checkpoint.every_epochs": 2,
    "checkpoint.every_minutes": 0.5,
    "checkpoint.keep_last": 3,
    "checkpoint.keep_best": 2,
    "checkpoint.keep_every": 100,
    "checkpoint.asynchronous": True,
    "checkpoint.trust": True,
    "tracking.mode": "disabled",
    "tracking.trackers": [],
    "tracking.project": "p",
    "tracking.log_every": 51,
    "evaluation.every_steps": 1,
    "evaluation.batch_size": 257,
    "evaluation.baselines": [],
    "predict.enabled": True,
}
ELSEWHERE = {"run.name", "run.dir", "run.resume", "run.expect_processes", "run.allow_changes"}
DATES = {"data.split.kind", "data.split.validation_start", "data.split.test_start", "data.split.end"}


def changed(key: str, value: Any) -> RunConfig:
    """Return the default configuration with one option changed."""
    config = RunConfig()
    *sections, option = key.split(".")
    holder: Any = config
    for section in sections:
        holder = getattr(holder, section)
    assert getattr(holder, option) != value
    setattr(holder, option, value)
    return config


def test_every_option_is_accounted_for():
    assert OTHER.keys() | ELSEWHERE | DATES == {key for key, _ in leaves(RunConfig)}


@pytest.mark.parametrize("key", OTHER)
def test_a_changed_option_changes_digest_and_name(key):
    config = changed(key, OTHER[key])
    assert digest(config) != digest(RunConfig())
    assert run_name(config) != run_name(RunConfig())


def test_borders_change_digest_and_name():
    kinds = [
        SplitOptions(),
        SplitOptions(kind="ett"),
        SplitOptions(kind="date", validation_start="2025-01-01", test_start="2025-02-01"),
        SplitOptions(kind="date", validation_start="2025-01-02", test_start="2025-02-01"),
        SplitOptions(kind="date", validation_start="2025-01-01", test_start="2025-02-02"),
        SplitOptions(kind="date", validation_start="2025-01-01", test_start="2025-02-01", end="2025-03-01"),
    ]
    assert len({run_name(RunConfig(data=DataOptions(split=split))) for split in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("key", "value"),
    [("run.dir", "elsewhere"), ("run.resume", "never"), ("run.expect_processes", 2), ("run.allow_changes", ["model"])],
)
def test_where_a_run_lives_and_how_it_starts_change_neither(key, value):
    assert digest(changed(key, value)) == digest(RunConfig())
    assert run_name(changed(key, value)) == run_name(RunConfig())


def test_the_name_of_a_run():
    assert run_name(RunConfig(run=RunOptions(name="mine"))) == "mine"
    config = RunConfig(data=DataOptions(path="files/bridge.csv", context=4, horizon=2))
    assert run_name(config) == f"nlinear-bridge-4x2-{digest(config)}"
    config.model.name = "my_package.models:Mine"
    assert run_name(config) == f"Mine-bridge-4x2-{digest(config)}"
    for name in (run_name(config), run_name(RunConfig())):
        assert RunOptions(name=name).name == name  # an automatic name is a valid name


def test_the_whole_tree_is_ready_for_json():
    tree = to_dict(RunConfig())
    assert json.loads(json.dumps(tree)) == tree
    assert list(tree) == [field.name for field in dataclasses.fields(RunConfig)]


def test_a_file_with_options_from_python_over_it(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("training: {epochs: 3}\ndata: {path: a.csv}", encoding="utf-8")
    overrides = {"optimizer.lr": 1e-7, "data.targets": ["a", "b_*"], "run.name": "007", "model.options": {"x": None}}
    config = RunConfig.from_yaml(path, **overrides, **{"training.max_steps": None, "predict.enabled": True})
    assert (config.training.epochs, config.data.path, config.optimizer.lr) == (3, "a.csv", 1e-7)
    assert (config.data.targets, config.run.name, config.model.options) == (["a", "b_*"], "007", {"x": None})
    assert config.predict.enabled
    assert config.training.max_steps is None
    with pytest.raises(UserError, match=r"did you mean 'optimizer\.lr'"):
        RunConfig.from_yaml(path, **{"optimizer.lrr": 1})
