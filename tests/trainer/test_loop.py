"""What a step computes, what leaves it untouched, and in which order things happen."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from accel_trainer.checkpoints.rotation import Keep
from accel_trainer.checkpoints.store import Store
from accel_trainer.config import EarlyStoppingOptions
from accel_trainer.data.windows import Series
from accel_trainer.errors import ConfigError, UserError
from accel_trainer.hooks.early_stopping import EarlyStopping
from accel_trainer.metrics.losses import loss_sum
from accel_trainer.trainer.hooks import Hook, Request
from accel_trainer.trainer.state import Stop
from tests.helpers.training import (
    CONTEXT,
    HORIZON,
    TARGETS,
    TRAIN,
    VALIDATION,
    Recorder,
    model,
    same,
    series,
    trainer,
    weights,
    windows,
)

# ---- what a step computes


@pytest.mark.parametrize("micro", [1, 3, 16, 100])
@pytest.mark.parametrize("name", ["nlinear", "dlinear"])
def test_micro_batches_change_memory_not_the_result(name, micro):
    data = windows(series(observed=0.5))
    whole, cut = Recorder(), Recorder()
    options = {"training__max_steps": 20, "optimizer__name": "sgd", "training__clip_norm": 1.0}
    one = trainer(model(name), data, hooks=[whole], **options)
    one.fit()
    other = trainer(model(name), data, hooks=[cut], training__micro_batch_size=micro, **options)
    other.fit()
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(other)[key], value, atol=1e-6, rtol=0)
    assert [row["train/loss"] for row in cut.rows] == pytest.approx([row["train/loss"] for row in whole.rows], rel=1e-5)


@pytest.mark.parametrize(("loss", "delta"), [("mse", 1.0), ("mae", 1.0), ("huber", 0.2), ("smooth_l1", 0.2)])
@pytest.mark.parametrize("micro", [None, 5])
def test_a_step_is_the_gradient_of_the_mean_over_observed_targets(loss, delta, micro):
    data, recorder = windows(series(observed=0.6)), Recorder()
    made = trainer(
        model(),
        data,
        hooks=[recorder],
        optimizer__name="sgd",
        optimizer__lr=0.1,
        training__max_steps=1,
        training__loss=loss,
        training__loss_delta=delta,
        training__micro_batch_size=micro,
    )
    chosen = made.plan.indices(0)
    made.fit()

    reference = model()
    observed, values = data.series.observed, data.series.values
    assert observed is not None
    total, count = torch.zeros(()), 0
    for start in chosen:
        past, future = slice(start, start + CONTEXT), slice(start + CONTEXT, start + CONTEXT + HORIZON)
        forecast = reference(past_values=values[None, past], past_observed_mask=observed[None, past])[0]
        for row, column in observed[future, :TARGETS].nonzero().tolist():
            error = forecast[row, column] - values[future][row, column]
            if loss == "mse":
                total = total + error**2
            elif loss == "mae":
                total = total + error.abs()
            elif error.abs() < delta:
                total = total + error**2 / 2 / (1 if loss == "huber" else delta)
            else:
                total = total + (error.abs() - delta / 2) * (delta if loss == "huber" else 1)
            count += 1
    mean = total / count
    mean.backward()

    (row,) = recorder.rows
    assert row["train/loss"] == pytest.approx(mean.item(), rel=1e-5)
    gradients = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None])
    assert row["train/grad_norm"] == pytest.approx(gradients.norm().item(), rel=1e-5)
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(weights(made)[name], parameter.detach() - 0.1 * parameter.grad)


def test_clipping_scales_the_gradient_down_to_the_norm():
    plain, clipped = Recorder(), Recorder()
    options = {"optimizer__name": "sgd", "optimizer__lr": 1.0, "training__max_steps": 1}
    trainer(model(), windows(series()), hooks=[plain], **options).fit()
    trainer(model(), windows(series()), hooks=[clipped], training__clip_norm=1e-3, **options).fit()
    norm = plain.rows[0]["train/grad_norm"]
    assert clipped.rows[0]["train/grad_norm"] == norm, "the norm is told as it was before"
    for name, start in plain.weights[0].items():
        step, cut = plain.weights[1][name] - start, clipped.weights[1][name] - start
        torch.testing.assert_close(cut, step * 1e-3 / norm, atol=1e-8, rtol=1e-2)


def test_rates_follow_the_schedule_by_update():
    recorder = Recorder()
    options = {"training__epochs": 4, "schedule__name": "halving", "optimizer__lr": 0.08, "optimizer__name": "sgd"}
    made = trainer(model(), windows(series()), hooks=[recorder], **options)
    assert made.plan.steps_per_epoch == 6
    made.fit()
    assert [row["lr"] for row in recorder.rows] == pytest.approx([0.08] * 12 + [0.04] * 6 + [0.02] * 6)
    assert [row["epoch"] for row in recorder.rows] == pytest.approx([step / 6 for step in range(1, 25)], abs=1e-6)


# ---- what leaves the weights alone


def test_a_step_without_an_observed_target_changes_nothing_but_counts():
    whole = series(observed=None)
    observed = torch.ones_like(whole.values, dtype=torch.bool)
    observed[40:60, :TARGETS] = False
    recorder = Recorder()
    made = trainer(
        model(),
        windows(Series(whole.values, observed, None, TARGETS)),
        hooks=[recorder],
        training__batch_size=1,
        training__epochs=1,
        optimizer__weight_decay=0.1,  # a step with a gradient of zeros would move the weights all the same
    )
    state = made.fit()
    empty = [not observed[start + CONTEXT : start + CONTEXT + HORIZON, :TARGETS].any() for start in range(90)]
    assert sum(empty) == 17
    for step, (before, after) in enumerate(pairwise(recorder.weights)):
        (window,) = made.plan.indices(step)
        assert same(before, after) == empty[window]
        assert math.isnan(recorder.rows[step]["train/loss"]) == empty[window]
        assert ("train/grad_norm" in recorder.rows[step]) != empty[window]
    assert (state.step, state.windows, state.updates, state.nonfinite) == (90, 90, 90 - 17, 0)
    assert state.stop is not None
    assert state.stop.kind == "completed"


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("micro", [None, 3])
def test_a_gradient_that_is_no_number_leaves_the_update_out(bad, micro):
    whole = series(observed=None)
    whole.values[50] = bad
    recorder = Recorder()
    options = {"training__epochs": 1, "training__batch_size": 4, "training__max_nonfinite_steps": 100}
    made = trainer(
        model(),
        windows(whole),
        hooks=[recorder],
        training__micro_batch_size=micro,
        optimizer__weight_decay=0.1,
        **options,
    )
    state = made.fit()
    poisoned = [any(start <= 50 < start + CONTEXT + HORIZON for start in made.plan.indices(step)) for step in range(23)]
    assert 5 < sum(poisoned) < 20
    for step, (before, after) in enumerate(pairwise(recorder.weights)):
        assert same(before, after) == poisoned[step]
        assert math.isfinite(recorder.rows[step]["train/grad_norm"]) != poisoned[step]
    assert state.updates == 23 - sum(poisoned)
    assert all(value.isfinite().all() for value in weights(made).values())
    assert state.nonfinite == (poisoned[::-1].index(False))


def test_a_run_of_such_steps_ends_as_diverged(tmp_path):
    whole = series(observed=None)
    whole.values[:] = math.nan
    made = trainer(model(), windows(whole), store=Store(tmp_path), training__max_nonfinite_steps=3)
    before = weights(made)
    state = made.fit()
    assert state.stop is not None
    assert state.stop.kind == "diverged"
    assert "3 steps in a row" in state.stop.reason
    assert (state.step, state.updates) == (3, 0)
    assert same(weights(made), before)
    assert not list(tmp_path.iterdir())  # nothing to go on from, and no healthy checkpoint makes room for it


def test_one_good_step_starts_the_count_anew():
    whole = series(observed=None)
    whole.values[50] = math.nan
    options = {"training__epochs": 1, "training__batch_size": 4, "training__max_nonfinite_steps": 20}
    made = trainer(model(), windows(whole), **options)
    state = made.fit()
    assert state.stop is not None
    assert state.stop.kind == "completed"


# ---- what happens beside training does not change it


class Busy(Hook):
    """Draws random numbers wherever it can, as a plot or a sampler would."""

    name = "busy"

    def on_step_end(self, trainer):
        torch.rand(7)
        np.random.rand(3)
        random.random()
        torch.manual_seed(trainer.state.step)

    def on_evaluation_end(self, trainer, metrics):
        torch.rand(5)
        trainer.evaluate()


@pytest.mark.parametrize("micro", [None, 5])
def test_evaluations_and_hooks_do_not_change_the_result(micro):
    options = {"training__epochs": 2, "training__micro_batch_size": micro, "optimizer__weight_decay": 0.1}
    data = series()
    results = []
    for extra in (
        {},
        {"evaluation__every_steps": 1},
        {"evaluation__every_steps": 5, "evaluation__batch_size": 1},
        {"evaluation__every_steps": 2, "hooks": [Busy()]},
    ):
        validation = windows(data, VALIDATION) if extra else None
        made = trainer(model("dropout"), windows(data), validation, **extra, **options)
        torch.manual_seed(len(results))  # what was drawn before does not matter either
        made.fit()
        results.append(weights(made))
    assert all(same(result, results[0]) for result in results)
    other = trainer(model("dropout"), windows(data), run__seed=1, **options)
    other.fit()
    assert not same(weights(other), results[0])


def test_an_evaluation_covers_every_window_and_leaves_dropout_on():
    data = series(observed=0.7)
    validation = windows(data, VALIDATION)
    made = trainer(model("dropout"), windows(data), validation, evaluation__batch_size=5)
    made.bare_model.train()
    metrics = made.evaluate()
    assert made.bare_model.training
    batch = validation.batch(np.arange(len(validation)))
    with torch.no_grad():
        forecast = made.bare_model.eval()(batch["past_values"])
    total, count = loss_sum("mse", forecast, batch["future_values"], batch["future_observed_mask"])
    assert metrics["mse"] == pytest.approx((total / count).item(), rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["mse"], rel=1e-5)
    assert made.evaluate(windows(data, TRAIN))["mse"] != pytest.approx(metrics["mse"])
    with pytest.raises(ValueError, match="no validation samples"):
        trainer(model("dropout"), windows(data)).evaluate()


# ---- order


def test_the_order_of_events(tmp_path):
    recorder = Recorder(save_at=[2, 3])
    data = series()
    options = {"training__epochs": 1, "evaluation__every_steps": 3, "tracking__log_every": 50}
    made = trainer(
        model(), windows(data), windows(data, VALIDATION), hooks=[recorder], store=Store(tmp_path), **options
    )
    made.fit()
    events = recorder.events
    assert [event for event in events if event[0] != "rows"] == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("checkpoint", "step-00000002"),
        ("step", 3),
        ("evaluation", 3),
        ("checkpoint", "step-00000003"),
        ("step", 4),
        ("step", 5),
        ("step", 6),
        ("evaluation", 6),
        ("checkpoint", "step-00000006"),
        ("end", 6),
    ]
    assert [row["step"] for row in recorder.rows] == [1, 2, 3, 4, 5, 6], "every step's row comes once, in order"
    for number, (kind, what) in enumerate(events):
        if kind == "rows":
            before = [event for event in events[:number] if event[0] == "step"]
            assert what[-1] <= before[-1][1]
            if ("evaluation", what[-1]) in events:
                assert ("evaluation", what[-1]) in events[:number], "the row of an evaluated step holds its metrics"
        if kind == "checkpoint":
            told = [step for name, steps in events[:number] if name == "rows" for step in steps]
            assert told[-1] == int(what.removeprefix("step-")), "rows are on the disk before their checkpoint"
    assert {step for step, row in enumerate(recorder.rows, 1) if "val/mse" in row} == {3, 6}


def test_rows_are_told_at_the_latest_after_so_many_steps():
    recorder = Recorder()
    trainer(model(), windows(series()), hooks=[recorder], training__max_steps=7, tracking__log_every=3).fit()
    assert [steps for kind, steps in recorder.events if kind == "rows"] == [[1, 2, 3], [4, 5, 6], [7]]


def test_hooks_are_called_in_their_order():
    called: list[str] = []

    class Named(Hook):
        def __init__(self, name):
            self.name = name

        def on_step_end(self, trainer):
            called.append(self.name)

    trainer(model(), windows(series()), hooks=[Named("b"), Named("a")], training__max_steps=2).fit()
    assert called == ["b", "a", "b", "a"]
    with pytest.raises(ValueError, match=r"hook names repeat: \['a', 'a'\]"):
        trainer(model(), windows(series()), hooks=[Named("a"), Named("a")])


def test_a_request_to_stop_ends_training_with_a_checkpoint(tmp_path):
    recorder = Recorder(stop_at=(4, Stop("preempted", "asked for")))
    state = trainer(model(), windows(series()), hooks=[recorder], store=Store(tmp_path)).fit()
    assert state.stop == Stop("preempted", "asked for")
    assert state.step == 4
    assert recorder.events[-2:] == [("checkpoint", "step-00000004"), ("end", 4)]


def test_a_request_to_stop_at_the_start_trains_nothing():
    class Refuses(Hook):
        def on_train_start(self, trainer):
            return Request(stop=Stop("early_stopping", "enough"))

    state = trainer(model(), windows(series()), hooks=[Refuses()]).fit()
    assert (state.step, state.stop) == (0, Stop("early_stopping", "enough"))


def test_the_end_is_told_after_an_error_too():
    recorder = Recorder()

    class Breaks(Hook):
        def on_step_end(self, trainer):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        trainer(model(), windows(series()), hooks=[recorder, Breaks()]).fit()
    assert recorder.events[-1] == ("end", 1)


def test_early_stopping_ends_a_run_and_the_best_stays(tmp_path):
    data = series()
    options = {"optimizer__lr": 1e-9, "training__epochs": 9, "checkpoint__keep_last": 1}
    stopping = EarlyStopping(EarlyStoppingOptions(patience=2, min_delta=0.1))
    store = Store(tmp_path, Keep(last=1))
    recorder = Recorder(save_at=range(1, 100))
    made = trainer(
        model(), windows(data), windows(data, VALIDATION), hooks=[stopping, recorder], store=store, **options
    )
    state = made.fit()
    assert state.stop is not None
    assert state.stop.kind == "early_stopping"
    assert "val/mse has not improved on" in state.stop.reason
    assert state.step == 3 * made.plan.steps_per_epoch
    assert state.best is not None
    assert store.at(state.best.step).own_state()["trainer"]["best"]["step"] == state.best.step


# ---- what cannot be trained


def test_what_cannot_be_trained_is_refused_at_once():
    frozen = model()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    data = series()
    with pytest.raises(ConfigError, match=r"model\.name: NLinear has no weights to train"):
        trainer(frozen, windows(data))
    with pytest.raises(ConfigError, match=r"early_stopping\.monitor: 'val/msee' is not logged; did you mean 'val/mse'"):
        trainer(model(), windows(data), windows(data, VALIDATION), early_stopping__monitor="val/msee")
    trainer(model(), windows(data), early_stopping__monitor="val/msee")  # nobody looks at it


def test_a_model_with_another_shape_of_forecast_is_told():
    class Short(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(CONTEXT, HORIZON - 1)

        def forward(self, past_values):
            return self.linear(past_values.transpose(1, 2)).transpose(1, 2)

    with pytest.raises(UserError, match=r"Short returned a forecast of shape \(16, 3, 3\); expected \(16, 4, 2\)"):
        trainer(Short(), windows(series())).fit()
