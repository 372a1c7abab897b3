"""Checkpoints while training goes on: when they come, what happens when one cannot be written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from accel_trainer.checkpoints.rotation import Keep
from accel_trainer.checkpoints.store import Store
from accel_trainer.checkpoints.weights import WEIGHTS, load_weights
from accel_trainer.config import CheckpointOptions
from accel_trainer.hooks.checkpointing import Checkpointing
from accel_trainer.hooks.metrics_file import MetricsFile, read_rows
from accel_trainer.hooks.time_limit import TimeLimit
from accel_trainer.trainer.hooks import Hook, Request
from accel_trainer.trainer.state import Stop
from tests.helpers.training import VALIDATION, Recorder, model, same, series, trainer, weights, windows

SIX = {"training__epochs": 1}
"""Six steps."""


class Full(Store):
    """A store whose disk is full while some steps are saved."""

    def __init__(self, root: Path, at: set[int]) -> None:
        super().__init__(root)
        self._at = at

    def commit(self, step, own_state, facts):
        if step in self._at:
            raise OSError(28, "No space left on device")
        super().commit(step, own_state, facts)


def steps(root: Path) -> list[int]:
    return sorted(Store(root).folders())


def saved(recorder: Recorder) -> list[tuple[str, int]]:
    named = [event for event in recorder.events if event[0] in ("checkpoint", "failed")]
    return [(kind, int(name.removeprefix("step-"))) for kind, name in named]


# ---- when


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [18]),
        ({"every_steps": 5}, [5, 10, 15, 18]),
        ({"every_epochs": 2}, [12, 18]),
        ({"every_epochs": 2, "every_steps": 9}, [9, 12, 18]),
        ({"every_minutes": 1e-9}, list(range(1, 19))),
        ({"every_minutes": 60.0}, [18]),
    ],
)
def test_intervals(tmp_path, options, expected):
    recorder = Recorder()
    hooks = [Checkpointing(CheckpointOptions(**options)), recorder]
    trainer(model(), windows(series()), hooks=hooks, store=Store(tmp_path), training__epochs=3).fit()
    assert [step for _, step in saved(recorder)] == expected


# ---- behind training


@pytest.mark.parametrize("kind", ["dropout", "nlinear"])
def test_what_is_written_behind_is_what_is_written_in_front(tmp_path, kind):
    data = series()
    for behind in (False, True):
        hooks = [Recorder(save_at=[2, 3])]
        store = Store(tmp_path / str(behind))
        made = trainer(
            model(kind),
            windows(data),
            windows(data, VALIDATION),
            hooks=hooks,
            store=store,
            checkpoint__asynchronous=behind,
            **SIX,
        )
        made.fit()
        assert saved(hooks[0]) == [("checkpoint", 2), ("checkpoint", 3), ("checkpoint", 6)]
    for step in steps(tmp_path / "True"):
        one, other = (Store(tmp_path / str(behind)).at(step) for behind in (False, True))
        assert one.own_state() == other.own_state()
        names = {path.name for path in one.path.iterdir()}
        assert names == {path.name for path in other.path.iterdir()}
        assert (one.path / WEIGHTS).read_bytes() == (other.path / WEIGHTS).read_bytes()
        first, second = (torch.load(at.path / "optimizer.bin", weights_only=True) for at in (one, other))
        assert first["param_groups"] == second["param_groups"]
        assert first["state"].keys() == second["state"].keys()
        for key, state in first["state"].items():
            assert same(state, second["state"][key])


def test_a_copy_is_of_its_moment_and_training_does_not_wait(tmp_path):
    class Slow(Store):
        def commit(self, step, own_state, facts):
            time.sleep(0.5)
            super().commit(step, own_state, facts)

    recorder = Recorder(save_at=[2])
    made = trainer(
        model("dropout"),
        windows(series()),
        hooks=[recorder],
        store=Slow(tmp_path),
        checkpoint__asynchronous=True,
        **SIX,
    )
    made.fit()
    written, last = recorder.events.index(("checkpoint", "step-00000002")), recorder.events.index(("step", 6))
    assert written > last
    loaded = model("dropout", seed=7)
    load_weights(tmp_path / "step-00000002", loaded)
    assert same(loaded.state_dict(), recorder.weights[2])
    assert steps(tmp_path) == [2, 6]


@pytest.mark.parametrize("behind", [False, True])
def test_going_on_from_a_checkpoint_written_behind(tmp_path, behind):
    data = series()
    whole = trainer(model("dropout"), windows(data), **SIX)
    whole.fit()
    stops = Recorder(stop_at=(4, Stop("preempted", "asked for")), save_at=[3])
    options = {"checkpoint__asynchronous": behind, **SIX}
    trainer(model("dropout"), windows(data), hooks=[stops], store=Store(tmp_path), **options).fit()
    checkpoint, _ = Store(tmp_path).newest()
    assert checkpoint is not None
    assert checkpoint.step == 4
    again = trainer(model("dropout", seed=3), windows(data), store=Store(tmp_path), **options)
    again.resume(checkpoint)
    again.fit()
    assert same(weights(again), weights(whole))


# ---- when one cannot be written


@pytest.mark.parametrize("behind", [False, True])
def test_a_failed_save_is_told_and_the_next_one_tried(tmp_path, behind):
    recorder, said = Recorder(save_at=[1, 2, 3, 4]), []
    made = trainer(
        model(),
        windows(series()),
        hooks=[recorder, Checkpointing(CheckpointOptions(), said.append)],
        store=Full(tmp_path, {2, 3}),
        checkpoint__asynchronous=behind,
        **SIX,
    )
    state = made.fit()
    assert state.stop is not None
    assert state.stop.kind == "completed"
    assert made.unsaved is None
    assert saved(recorder) == [
        ("checkpoint", 1),
        ("failed", 2),
        ("failed", 3),
        ("checkpoint", 4),
        ("checkpoint", 6),
    ]
    assert [line.split(":")[0] for line in said] == [
        "checkpoint of step 2 NOT written",
        "checkpoint of step 3 NOT written",
        "checkpoints are written again, from step 4 on",
    ]
    assert "No space left on device" in said[0]
    assert steps(tmp_path) == [4, 6]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("behind", [False, True])
def test_a_last_save_that_failed_is_known(tmp_path, behind):
    made = trainer(model(), windows(series()), store=Full(tmp_path, {6}), checkpoint__asynchronous=behind, **SIX)
    made.fit()
    assert made.unsaved is not None
    assert made.unsaved.step == 6
    assert "No space left on device" in made.unsaved.problem


@pytest.mark.parametrize("behind", [False, True])
def test_a_best_that_is_not_on_the_disk_gives_way_to_one_that_is(tmp_path, behind):
    """It could be neither tested nor exported: the best of those that are there takes its place."""
    data = series()
    options = {"training__epochs": 4, "checkpoint__asynchronous": behind}
    free = trainer(
        model(),
        windows(data),
        windows(data, VALIDATION),
        hooks=[Recorder(save_at=range(6, 25, 6))],
        store=Store(tmp_path / "free"),
        **options,
    )
    values = {}

    class Values(Hook):
        name = "values"

        def on_evaluation_end(self, trainer, metrics):
            values[trainer.state.step] = metrics["val/mse"]

    free.hooks.append(Values())
    best = free.fit().best
    assert best is not None
    assert best.step == 24, "every evaluation is the best so far"
    made = trainer(
        model(),
        windows(data),
        windows(data, VALIDATION),
        hooks=[Recorder(save_at=range(6, 25, 6))],
        store=Full(tmp_path / "full", {12, 24}),
        **options,
    )
    best = made.fit().best
    assert best is not None
    assert (best.step, best.value) == (18, values[18])
    Store(tmp_path / "full").at(18)


def test_rows_that_cannot_be_written_wait_and_hold_checkpoints_back(tmp_path, monkeypatch):
    """A checkpoint beyond the rows on the disk would lose them when the process is killed."""
    import os

    full = []
    real = os.pwrite

    def pwrite(descriptor, content, offset):
        if full:
            real(descriptor, content[: len(content) // 2], offset)  # a disk fills in mid-row
            raise OSError(28, "No space left on device")
        return real(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)

    class Disk(Hook):
        name = "disk"

        def on_step_end(self, trainer):
            if trainer.state.step in (2, 4):
                full.clear() if full else full.append(True)
            return Request(save=trainer.state.step in (1, 3, 5))

    path, recorder, said = tmp_path / "metrics.jsonl", Recorder(), []
    hooks = [Disk(), MetricsFile(path, said.append), recorder]
    trainer(model(), windows(series()), hooks=hooks, store=Store(tmp_path / "c"), tracking__log_every=1, **SIX).fit()
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5, 6]
    assert [row["train/loss"] for row in read_rows(path)] == [row["train/loss"] for row in recorder.rows]
    assert saved(recorder) == [("checkpoint", 1), ("failed", 3), ("checkpoint", 5), ("checkpoint", 6)]
    assert len(said) == 2
    assert "rows wait in memory" in said[0]
    assert "nothing is missing" in said[1]


# ---- an evaluation that is broken off


class Impatient(Hook):
    """Asks to stop in the evaluation after a step, at a batch of it."""

    name = "impatient"

    def __init__(self, step: int, batch: int) -> None:
        self._step, self._wait = step, batch

    def on_evaluation_batch(self, trainer):
        if trainer.state.step != self._step:
            return None
        self._wait -= 1
        return Request(stop=Stop("preempted", "asked for"), any_process=True) if self._wait < 0 else None


@pytest.mark.parametrize("batch", [0, 2, 7])
@pytest.mark.parametrize("step", [6, 12])
def test_an_evaluation_that_was_broken_off_is_made_when_the_run_goes_on(tmp_path, step, batch):
    """32 windows in batches of 4: eight, and after the last one the evaluation is whole."""
    data, options = series(), {"training__epochs": 2, "evaluation__batch_size": 4}
    path = tmp_path / "whole.jsonl"
    whole = trainer(model("dropout"), windows(data), windows(data, VALIDATION), hooks=[MetricsFile(path)], **options)
    whole.fit()

    cut = tmp_path / "cut.jsonl"
    hooks = [Impatient(step, batch), MetricsFile(cut)]
    first = trainer(
        model("dropout"), windows(data), windows(data, VALIDATION), hooks=hooks, store=Store(tmp_path), **options
    )
    stop = first.fit().stop
    assert stop is not None
    assert stop.kind == "preempted"
    assert (first.state.pending is None) == (batch == 7)
    for _ in range(2):  # also when it is broken off a second time
        checkpoint, _ = Store(tmp_path).newest()
        assert checkpoint is not None
        assert checkpoint.step == step
        again = trainer(
            model("dropout", seed=4),
            windows(data),
            windows(data, VALIDATION),
            hooks=[Impatient(step, 1), MetricsFile(cut)],
            store=Store(tmp_path),
            **options,
        )
        again.resume(checkpoint)
        again.fit()
        if batch == 7:
            break
    if batch < 7:
        checkpoint, _ = Store(tmp_path).newest()
        assert checkpoint is not None
        again = trainer(
            model("dropout", seed=4),
            windows(data),
            windows(data, VALIDATION),
            hooks=[MetricsFile(cut)],
            store=Store(tmp_path),
            **options,
        )
        again.resume(checkpoint)
        again.fit()
    assert cut.read_text() == path.read_text()
    assert same(weights(again), weights(whole))
    assert again.state == whole.state


def test_going_on_does_not_replace_the_checkpoint_it_began_from(tmp_path):
    data = series()
    trainer(model(), windows(data), store=Store(tmp_path), training__max_steps=3).fit()
    before = (tmp_path / "step-00000003").stat().st_ino
    again = trainer(model(), windows(data), store=Store(tmp_path), training__max_steps=3)
    checkpoint, _ = Store(tmp_path).newest()
    assert checkpoint is not None
    again.resume(checkpoint)
    again.save_checkpoint()
    assert (tmp_path / "step-00000003").stat().st_ino == before
    assert steps(tmp_path) == [3]


# ---- one more failure after going on


def test_a_best_that_was_found_on_going_on_outlives_a_failed_save(tmp_path):
    """The evaluation at 12 is made after the restart; it is the best, its weights are on the disk, and it stays so."""
    data = series()
    options = {"training__epochs": 4, "evaluation__batch_size": 4, "checkpoint__keep_last": 1}

    def made(hooks, at=()):
        store = Full(tmp_path, set(at))
        store.keep = Keep(last=1)
        return trainer(model(), windows(data), windows(data, VALIDATION), hooks=hooks, store=store, **options)

    made([Impatient(12, 1), Recorder(save_at=[6])]).fit()
    checkpoint, _ = Store(tmp_path).newest()
    assert checkpoint is not None
    assert checkpoint.step == 12
    again = made([Recorder(save_at=[18, 19], stop_at=(19, Stop("preempted", "asked for")))], at=[18])
    again.resume(checkpoint)
    state = again.fit()
    assert state.best is not None
    assert state.best.step == 12
    assert steps(tmp_path) == [6, 12, 19], "12 was written when 6 was the best, and keeps it"
    assert Store(tmp_path).own()[12]["metric"] == {"name": "val/mse", "value": state.best.value}


def test_a_state_never_names_a_best_that_is_not_there(tmp_path):
    """The save of step 12 fails behind training while step 13 is already asking for the next."""

    class Late(Full):
        def commit(self, step, own_state, facts):
            time.sleep(0.3)
            super().commit(step, own_state, facts)

    data = series()
    made = trainer(
        model(),
        windows(data),
        windows(data, VALIDATION),
        hooks=[Recorder(save_at=[6, 12, 13], stop_at=(13, Stop("preempted", "asked for")))],
        store=Late(tmp_path, {12}),
        training__epochs=4,
        checkpoint__asynchronous=True,
    )
    state = made.fit()
    assert state.best is not None
    assert state.best.step == 6
    assert Store(tmp_path).at(13).best_step() == 6
    assert steps(tmp_path) == [6, 13]


@pytest.mark.parametrize("asked", [False, True])
def test_a_diverged_state_is_not_saved_whoever_asks(tmp_path, asked):
    """Its evaluation may look fine: the weights are still those of before. The best stays one that is on the disk."""
    data = series(observed=None)

    class Spoil(Hook):
        name = "spoil"

        def on_step_end(self, trainer):
            if trainer.state.step == 9:
                data.values[:40] = torch.nan
            stop = Stop("preempted", "a signal") if asked and trainer.state.step == 12 else None
            return Request(save=trainer.state.step == 6 or stop is not None, stop=stop, any_process=True)

    validation = series(observed=None)
    made = trainer(
        model(),
        windows(data),
        windows(validation, VALIDATION),
        hooks=[Spoil()],
        store=Store(tmp_path),
        training__epochs=4,
        training__max_nonfinite_steps=3,
    )
    state = made.fit()
    assert state.stop is not None
    assert (state.stop.kind, state.step) == ("diverged", 12)
    assert steps(tmp_path) == [6]
    assert state.best is not None
    assert state.best.step == 6


def test_nothing_is_written_after_an_error(tmp_path):
    class Slow(Store):
        def commit(self, step, own_state, facts):
            time.sleep(0.5)
            super().commit(step, own_state, facts)

    class Interrupt(Hook):
        name = "interrupt"

        def __init__(self, error):
            self._error = error

        def on_step_end(self, trainer):
            if trainer.state.step == 3:
                raise self._error
            return Request(save=trainer.state.step == 2)

    for error, expected in ((KeyboardInterrupt(), []), (RuntimeError("broken"), [2])):
        root = tmp_path / type(error).__name__
        made = trainer(
            model(), windows(series()), hooks=[Interrupt(error)], store=Slow(root), checkpoint__asynchronous=True
        )
        with pytest.raises(type(error)):
            made.fit()
        assert steps(root) == expected
        time.sleep(0.7)
        assert steps(root) == expected


def test_every_hook_hears_the_end_though_one_fails():
    class Fails(Hook):
        name = "fails"

        def on_train_end(self, trainer):
            raise OSError("gone")

    recorder = Recorder()
    with pytest.raises(OSError, match="gone"):
        trainer(model(), windows(series()), hooks=[Fails(), recorder], **SIX).fit()
    assert recorder.events[-1] == ("end", 6)


def test_every_start_with_a_time_limit_comes_further(tmp_path):
    """Also where an evaluation alone takes longer than the limit."""
    data = series()
    options = {"training__epochs": 2, "evaluation__batch_size": 4}
    starts = 0
    while True:
        made = trainer(
            model(),
            windows(data),
            windows(data, VALIDATION),
            hooks=[TimeLimit(1e-9, time.monotonic())],
            store=Store(tmp_path),
            **options,
        )
        checkpoint, _ = Store(tmp_path).newest()
        if checkpoint is not None:
            made.resume(checkpoint)
        stop = made.fit().stop
        starts += 1
        assert starts < 30
        assert stop is not None
        if stop.kind == "completed":
            break
    assert made.state.best is not None
