"""Another task through the same trainer: a classifier on a ``datasets`` folder with all hooks, written outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from accel_trainer.checkpoints.rotation import Keep
from accel_trainer.checkpoints.store import Store
from accel_trainer.checkpoints.weights import load_weights
from accel_trainer.config import CheckpointOptions, EarlyStoppingOptions, RunConfig, TrackingOptions
from accel_trainer.data.samples import Batch, DatasetSamples
from accel_trainer.hooks.checkpointing import Checkpointing
from accel_trainer.hooks.early_stopping import EarlyStopping
from accel_trainer.hooks.metrics_file import MetricsFile, read_rows
from accel_trainer.hooks.progress import ProgressBar
from accel_trainer.hooks.signals import Signals
from accel_trainer.hooks.tracking import Tracking
from accel_trainer.terminal import Terminal
from accel_trainer.trainer.hooks import Hook
from accel_trainer.trainer.loop import Trainer
from tests.helpers.training import Recorder, same, weights

CLASSES = 3


class Hits:
    """Loss, hits and number of rows."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def tensor(self) -> torch.Tensor:
        return self.sums

    def load(self, sums: torch.Tensor) -> None:
        self.sums = sums

    def overall(self) -> dict[str, float]:
        loss, hits, rows = self.sums.tolist()
        return {"loss": loss / rows, "accuracy": hits / rows}


class Classification:
    """Cross-entropy over rows."""

    metrics = ("loss", "accuracy")

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        total = F.cross_entropy(model(batch["features"]), batch["label"], reduction="sum")
        return total, total.new_full((), len(batch["label"]))

    def meter(self, device: torch.device) -> Hits:
        return Hits(device)

    def evaluate(self, model: nn.Module, batch: Batch, meter: Any) -> None:
        scores = model(batch["features"])
        total = F.cross_entropy(scores, batch["label"], reduction="sum")
        hits = (scores.argmax(1) == batch["label"]).sum()
        meter.sums += torch.stack([total.double(), hits.double(), hits.new_full((), len(scores)).double()])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clouds of points, as save_to_disk writes them."""
    root = tmp_path_factory.mktemp("clouds")
    generator = np.random.default_rng(0)
    centres = np.array([[0.0, 2.0], [-1.8, -1.0], [1.8, -1.0]])
    for name, rows in (("train", 210), ("validation", 60)):
        label = np.arange(rows) % CLASSES
        features = centres[label] + generator.normal(size=(rows, 2))
        table = datasets.Dataset.from_dict({"features": features.tolist(), "label": label.tolist()})
        table.save_to_disk(root / name)
    return root


def samples(folders: Path, name: str) -> DatasetSamples:
    return DatasetSamples(datasets.load_from_disk(folders / name), ["features", "label"])


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES))


def options(**training: Any) -> RunConfig:
    made = RunConfig()
    made.training.batch_size, made.training.epochs, made.training.micro_batch_size = 20, 3, 7
    made.optimizer.lr = 0.02
    made.early_stopping = EarlyStoppingOptions(monitor="val/accuracy", mode="max", patience=2)
    made.checkpoint = CheckpointOptions(every_steps=4)
    made.tracking = TrackingOptions(mode="disabled")
    for name, value in training.items():
        setattr(made.training, name, value)
    return made


def classifier(folders: Path, run: Path, *more: Hook, seed: int = 0, config: RunConfig | None = None) -> Trainer:
    """Return a trainer with every hook that a run of the command line has."""
    config = config or options()
    metrics, terminal = run / "metrics.jsonl", Terminal()
    run.mkdir(exist_ok=True)
    hooks: list[Hook] = [
        Signals(),
        EarlyStopping(config.early_stopping),
        MetricsFile(metrics),
        Tracking(config.tracking, metrics, {}, terminal.say),
        ProgressBar(terminal),
        Checkpointing(config.checkpoint),
        *more,
    ]
    return Trainer(
        network(seed),
        Classification(),
        samples(folders, "train"),
        samples(folders, "validation"),
        config,
        hooks=hooks,
        store=Store(run / "checkpoints", Keep(config.checkpoint.keep_last)),
        accelerator=Accelerator(cpu=True),
    )


def test_it_learns_and_leaves_everything_behind(folders, tmp_path, capsys):
    made = classifier(folders, tmp_path)
    chance = made.evaluate()["accuracy"]
    state = made.fit()
    assert state.stop is not None
    assert state.stop.kind in ("completed", "early_stopping")
    assert state.best is not None
    assert (state.best.metric, state.windows) == ("val/accuracy", 210 * state.step // 11)
    assert state.best.value > max(0.75, chance)

    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, state.step + 1))
    assert {row["step"]: row["val/accuracy"] for row in rows if "val/accuracy" in row}[
        state.best.step
    ] == state.best.value
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["epoch", "step", "train/loss", "val/accuracy", "windows/s"]
    assert [line.split()[1] for line in lines] == ["11", "22", "33"]
    assert [line.endswith("best") for line in lines][state.best.step // 11 - 1]

    store = Store(tmp_path / "checkpoints")
    best = network(seed=3)
    load_weights(store.at(state.best.step).path, best)
    assert made.evaluator.measure(best, samples(folders, "validation")).overall()["accuracy"] == state.best.value
    assert len(list((tmp_path / "checkpoints").iterdir())) <= 3


@pytest.mark.parametrize("killed", [2, 8, 13, 22])
def test_interrupted_by_a_signal_it_goes_on_to_the_same_weights(folders, tmp_path, killed):
    class Kill(Hook):
        """Sends what a scheduler sends."""

        name = "kill"

        def on_rows(self, trainer, rows):
            if rows[-1]["step"] == killed - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    def config() -> RunConfig:
        made = options()
        made.tracking.log_every = 1
        made.early_stopping.patience = 9
        return made

    uninterrupted = classifier(folders, tmp_path / "whole", config=config())
    uninterrupted.fit()
    first = classifier(folders, tmp_path / "cut", Kill(), config=config())
    state = first.fit()
    assert state.stop is not None
    assert (state.stop.kind, state.step) == ("preempted", killed)
    assert "SIGTERM" in state.stop.reason

    second = classifier(folders, tmp_path / "cut", seed=7, config=config())
    checkpoint, passed_over = Store(tmp_path / "cut" / "checkpoints").newest()
    assert checkpoint is not None
    assert (checkpoint.step, passed_over) == (killed, [])
    second.resume(checkpoint)
    second.fit()
    assert same(weights(second), weights(uninterrupted))
    assert second.state == uninterrupted.state
    assert read_rows(tmp_path / "cut" / "metrics.jsonl") == read_rows(tmp_path / "whole" / "metrics.jsonl")


def test_it_stops_early_and_stays_stopped(folders, tmp_path):
    def config() -> RunConfig:
        made = options(epochs=20)
        made.early_stopping.min_delta = 1.0  # an accuracy never rises by more than that
        return made

    state = classifier(folders, tmp_path, config=config()).fit()
    assert state.stop is not None
    assert (state.stop.kind, state.step) == ("early_stopping", 3 * 11)
    again = classifier(folders, tmp_path, config=config())
    checkpoint, _ = Store(tmp_path / "checkpoints").newest()
    assert checkpoint is not None
    again.resume(checkpoint)
    assert again.fit().step == 3 * 11


def test_a_crash_costs_the_steps_since_the_last_checkpoint(folders, tmp_path):
    class Crash(Hook):
        name = "crash"

        def on_step_end(self, trainer):
            if trainer.state.step == 15:
                raise RuntimeError("power cut")

    uninterrupted = classifier(folders, tmp_path / "whole")
    uninterrupted.fit()
    with pytest.raises(RuntimeError, match="power cut"):
        classifier(folders, tmp_path / "cut", Crash()).fit()
    recorder = Recorder()
    again = classifier(folders, tmp_path / "cut", recorder, seed=7)
    checkpoint, _ = Store(tmp_path / "cut" / "checkpoints").newest()
    assert checkpoint is not None
    assert checkpoint.step == 12
    again.resume(checkpoint)
    again.fit()
    assert recorder.rows[0]["step"] == 13
    assert same(weights(again), weights(uninterrupted))
    rows = read_rows(tmp_path / "cut" / "metrics.jsonl")
    assert rows == read_rows(tmp_path / "whole" / "metrics.jsonl"), "every step stands in the file once"
