"""A run that was interrupted anywhere ends as if it had not been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from accel_trainer.checkpoints.checkpoint import Checkpoint
from accel_trainer.checkpoints.store import Store
from accel_trainer.config import EarlyStoppingOptions
from accel_trainer.hooks.early_stopping import EarlyStopping
from accel_trainer.trainer.hooks import Hook
from accel_trainer.trainer.state import Stop, TrainState
from tests.helpers.training import VALIDATION, Recorder, model, same, series, trainer, weights, windows

OPTIONS: dict[str, Any] = {
    "training__epochs": 3,
    "training__micro_batch_size": 5,
    "training__clip_norm": 0.5,
    "optimizer__weight_decay": 0.1,
    "schedule__name": "cosine",
    "schedule__warmup": 4,
    "evaluation__every_steps": 4,
}
TOTAL = 18


def interrupted(root, stop: int, **options: Any):
    """Train until a step, and leave a checkpoint there."""
    data, asks = series(), Recorder(stop_at=(stop, Stop("preempted", "asked for")))
    made = trainer(
        model("dropout"), windows(data), windows(data, VALIDATION), hooks=[asks], store=Store(root), **options
    )
    made.fit()
    return made, asks


def newest(root) -> Checkpoint:
    checkpoint, _ = Store(root).newest()
    assert checkpoint is not None
    return checkpoint


@pytest.fixture(scope="module")
def whole():
    """A run that nobody interrupted."""
    data, recorder = series(), Recorder()
    made = trainer(model("dropout"), windows(data), windows(data, VALIDATION), hooks=[recorder], **OPTIONS)
    made.fit()
    return made, recorder


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 11, 17])
def test_the_final_weights_are_equal_to_the_last_bit(tmp_path, whole, stop):
    uninterrupted, all_rows = whole
    _, before = interrupted(tmp_path, stop, **OPTIONS)

    data, after = series(), Recorder()
    torch.manual_seed(99)  # a new process begins with other draws
    made = trainer(
        model("dropout", seed=5),
        windows(data),
        windows(data, VALIDATION),
        hooks=[after],
        store=Store(tmp_path),
        **OPTIONS,
    )
    made.resume(newest(tmp_path))
    assert made.state.step == stop
    assert made.state.stop is None
    state = made.fit()
    assert same(weights(made), weights(uninterrupted))
    assert state == uninterrupted.state
    assert [*before.rows, *after.rows] == all_rows.rows
    assert [row["step"] for row in after.rows] == list(range(stop + 1, TOTAL + 1))
    assert after.events[0] == ("start", stop)


def test_a_run_interrupted_after_every_step(tmp_path, whole):
    uninterrupted, _ = whole
    interrupted(tmp_path, 1, **OPTIONS)
    data = series()
    for step in range(2, TOTAL + 1):
        asks = Recorder(stop_at=(step, Stop("preempted", "asked for")))
        made = trainer(
            model("dropout", seed=step),
            windows(data),
            windows(data, VALIDATION),
            hooks=[asks],
            store=Store(tmp_path),
            **OPTIONS,
        )
        made.resume(newest(tmp_path))
        made.fit()
    assert same(weights(made), weights(uninterrupted))
    assert made.state.best == uninterrupted.state.best


def test_going_on_after_the_end_needs_more_epochs(tmp_path):
    options = {"training__epochs": 1}
    data = series()
    first = trainer(model(), windows(data), store=Store(tmp_path), **options)
    first.fit()
    again = trainer(model(seed=1), windows(data), store=Store(tmp_path), **options)
    again.resume(newest(tmp_path))
    assert again.fit().step == 6
    assert same(weights(again), weights(first))
    longer = trainer(model(seed=1), windows(data), store=Store(tmp_path), training__epochs=2)
    longer.resume(newest(tmp_path))
    assert longer.fit().step == 12


def test_options_of_now_beat_those_of_the_checkpoint(tmp_path):
    interrupted(tmp_path, 3, optimizer__lr=0.5, optimizer__weight_decay=0.2, optimizer__options={"eps": 1e-6})
    data, recorder = series(), Recorder()
    made = trainer(model("dropout"), windows(data), hooks=[recorder], optimizer__lr=0.25, training__max_steps=4)
    made.resume(newest(tmp_path))
    groups = made.optimizer.param_groups
    assert {(group["lr"], group["eps"]) for group in groups} == {(0.25, 1e-8)}
    assert {group["weight_decay"] for group in groups} == {0.0}
    made.fit()
    assert [row["lr"] for row in recorder.rows] == [0.25]


def test_another_monitor_has_a_best_of_its_own(tmp_path):
    first, _ = interrupted(tmp_path, 6, evaluation__every_steps=3)
    assert first.state.best is not None
    assert first.state.best.metric == "val/mse"
    data = series()
    same_metric = trainer(model("dropout"), windows(data), windows(data, VALIDATION))
    same_metric.resume(newest(tmp_path))
    assert same_metric.state.best == first.state.best
    # An MAE is never comparable with an MSE.
    other = trainer(model("dropout"), windows(data), windows(data, VALIDATION), early_stopping__monitor="val/mae")
    other.resume(newest(tmp_path))
    assert other.state.best is None
    assert other.fit().best is not None
    assert other.state.best is not None
    assert other.state.best.metric == "val/mae"


class Counter(Hook):
    """Counts steps over restarts."""

    def __init__(self, name: str) -> None:
        self.name, self.steps, self.loaded = name, 0, 0

    def on_step_end(self, trainer):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.loaded += 1
        self.steps = state.get("steps", 0)


def test_the_state_of_hooks_comes_back_by_name(tmp_path):
    data = series()
    first = [Counter("a"), Counter("b")]
    first[1].steps = 100
    trainer(model(), windows(data), hooks=first, store=Store(tmp_path), training__max_steps=4).fit()
    assert newest(tmp_path).own_state()["hooks"] == {"a": {"steps": 4}, "b": {"steps": 104}}
    later = {name: Counter(name) for name in ("new", "b", "a")}
    made = trainer(model(), windows(data), hooks=list(later.values()), store=Store(tmp_path), training__max_steps=6)
    made.resume(newest(tmp_path))
    assert {name: hook.steps for name, hook in later.items()} == {"new": 0, "b": 104, "a": 4}
    assert all(hook.loaded == 1 for hook in later.values())
    made.fit()
    assert {name: hook.steps for name, hook in later.items()} == {"new": 2, "b": 106, "a": 6}


def stopping(**options: Any) -> EarlyStopping:
    return EarlyStopping(EarlyStoppingOptions(min_delta=10.0, **options))


def test_patience_goes_on_counting_and_may_be_raised(tmp_path):
    data = series()
    validation = windows(data, VALIDATION)
    options = {"training__epochs": 9, "optimizer__lr": 1e-6}

    def start(hook: EarlyStopping):
        made = trainer(model(), windows(data), validation, hooks=[hook], store=Store(tmp_path), **options)
        if any(tmp_path.iterdir()):
            made.resume(newest(tmp_path))
        return made.fit()

    first = start(stopping(patience=2))
    assert (first.step, first.stop and first.stop.kind) == (18, "early_stopping")
    again = start(stopping(patience=2))
    assert (again.step, again.stop and again.stop.kind) == (18, "early_stopping"), "it stays stopped"
    raised = start(stopping(patience=4))
    assert (raised.step, raised.stop and raised.stop.kind) == (30, "early_stopping"), "two more evaluations"
    other = start(stopping(patience=2, monitor="val/mae"))
    assert other.step == 30 + 18, "another metric is waited for anew"


def test_a_diverged_run_leaves_what_was_healthy_to_go_on_from(tmp_path):
    data = series(observed=None)
    values = data.values.clone()
    trainer(model(), windows(data), store=Store(tmp_path), training__max_steps=1).fit()
    data.values[:] = np.nan
    options = {"training__max_nonfinite_steps": 2, "training__max_steps": 4}
    lost = trainer(model(), windows(data), store=Store(tmp_path), **options)
    lost.resume(newest(tmp_path))
    stop = lost.fit().stop
    assert stop is not None
    assert (stop.kind, lost.state.step) == ("diverged", 3)
    data.values[:] = values
    made = trainer(model(), windows(data), store=Store(tmp_path), **options)
    made.resume(newest(tmp_path))
    state = made.fit()
    assert state.stop is not None
    assert (state.stop.kind, state.step, state.updates) == ("completed", 4, 4)


def test_a_state_is_its_dictionary():
    assert TrainState.from_dict(TrainState().to_dict()) == TrainState()
    state = TrainState(step=3, stop=Stop("diverged", "why"))
    assert TrainState.from_dict(state.to_dict()) == state
