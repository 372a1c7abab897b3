"""How long going on takes, early and late in an epoch: `python benchmarks/resume.py [--windows 10] [--rounds 7]`.

A run over millions of windows is resumed after its first steps and near the end of its first epoch. Timed is what a
start does beyond reading data: verify the newest checkpoint, load it, do one step. Trainers that skip or replay
batches need longer the further they were; here the windows of a step are computed from its number.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from accelerate import Accelerator

from accel_trainer.checkpoints.store import Store
from accel_trainer.config import RunConfig
from accel_trainer.data.split import Rows
from accel_trainer.data.windows import Series, Windows
from accel_trainer.models.registry import ForecastShape, create_model
from accel_trainer.tasks.forecasting import ForecastingTask
from accel_trainer.trainer.loop import Trainer

SHAPE = ForecastShape(96, 24, 4, 4)


def trainer(train: Windows, store: Store | None, max_steps: int) -> Trainer:
    config = RunConfig()
    config.training.max_steps = max_steps
    model = create_model("nlinear", SHAPE, {})
    task = ForecastingTask(model, SHAPE, "mse", 1.0)
    return Trainer(model, task, train, None, config, store=store, accelerator=Accelerator(cpu=True))


def resumed(train: Windows, root: Path, step: int) -> float:
    begin = time.perf_counter()
    store = Store(root)
    checkpoint, _ = store.newest()
    assert checkpoint is not None
    assert checkpoint.step == step
    made = trainer(train, None, step + 1)
    made.resume(checkpoint)
    made.fit()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=float, default=10, help="millions")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = round(options.windows * 1e6)
    values = torch.randn(rows, SHAPE.channels)
    train = Windows(Series(values, None, None, SHAPE.targets), Rows(0, rows), SHAPE.context, SHAPE.horizon)
    with tempfile.TemporaryDirectory() as folder:
        first = trainer(train, Store(Path(folder) / "first"), 2)
        first.fit()
        early, late = 2, int(0.9 * first.plan.steps_per_epoch)
        # What a run that trained all the way would have saved, but for its weights.
        far = trainer(train, Store(Path(folder) / "late"), late + 1)
        far.state.step, far.state.updates = late, late
        far.save_checkpoint()
        times: dict[str, list[float]] = {"first": [], "late": []}
        for number in range(options.rounds + 1):
            for name, step in (("first", early), ("late", late)):
                taken = resumed(train, Path(folder) / name, step)
                if number:  # the first round warms up
                    times[name].append(taken)
    print(f"{len(train):,} windows, {first.plan.steps_per_epoch:,} steps an epoch")
    for name, step in (("first", early), ("late", late)):
        values_ms = [1000 * value for value in times[name]]
        middle, least, most = statistics.median(values_ms), min(values_ms), max(values_ms)
        print(f"  resumed at step {step:>9,}: {middle:6.1f} ms to the end of the next step ({least:.1f} to {most:.1f})")
    print(f"late / early: {statistics.median(times['late']) / statistics.median(times['first']):.2f}")


if __name__ == "__main__":
    main()
