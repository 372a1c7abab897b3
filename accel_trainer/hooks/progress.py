"""How far a run is: a bar in a terminal, a table that grows by one line with each evaluation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from accel_trainer.terminal import figure
from accel_trainer.trainer.hooks import Hook, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.progress import TaskID

    from accel_trainer.terminal import Terminal
    from accel_trainer.trainer.hooks import Row
    from accel_trainer.trainer.loop import Trainer

_REFRESH = 0.1
"""Seconds between two looks at the bar; people see no more, and each costs a step of a small model."""


class ProgressBar(Hook):
    """Shows step, loss, rate, windows per second and time left."""

    name = "progress"

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last = (0.0, 0)  # time and windows at the last refresh
        self._evaluated = (0.0, 0)  # the same at the last evaluation
        self._loss = ""
        self._losses: list[float] = []  # of the steps since the last evaluation
        self._headed = False

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Draw the bar, at the step the run goes on from."""
        self._last = self._evaluated = (time.perf_counter(), trainer.state.windows)
        if self._terminal.interactive:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("loss {task.fields[loss]}  lr {task.fields[lr]}  {task.fields[speed]} windows/s"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._terminal.console,
                transient=True,
                auto_refresh=False,  # no thread of its own: it would take time from a training step at any moment
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=trainer.plan.total_steps, completed=trainer.state.step, epoch="1", loss="–", lr="–", speed="–"
            )
        return None

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Refresh the bar now and then."""
        if self._bar is None or self._task is None or time.perf_counter() - self._last[0] < _REFRESH:
            return None
        now, windows = time.perf_counter(), trainer.state.windows
        speed = (windows - self._last[1]) / (now - self._last[0])
        self._last = (now, windows)
        self._bar.update(
            self._task,
            completed=trainer.state.step,
            epoch=f"{min(int(trainer.epoch) + 1, trainer.config.training.epochs)}/{trainer.config.training.epochs}",
            loss=self._loss or "–",
            lr=f"{trainer.optimizer.param_groups[0]['lr']:.2e}",
            speed=f"{speed:,.0f}",
        )
        self._bar.refresh()
        return None

    def on_rows(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        """Note the losses."""
        losses = [float(row["train/loss"]) for row in rows]
        self._losses += losses
        self._loss = figure(sum(losses) / len(losses))

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> Request | None:
        """Print one line of a table: how training and validation stand, and whether this was the best."""
        now, windows = time.perf_counter(), trainer.state.windows
        speed = (windows - self._evaluated[1]) / max(now - self._evaluated[0], 1e-9)
        self._evaluated = self._last = (now, windows)
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        shown = {"train/loss": loss, **{name: value for name, value in metrics.items() if name != "val/loss"}}
        widths = {name: max(11, len(name) + 2) for name in shown}
        if not self._headed:
            self._headed = True
            names = "".join(f"{name:>{width}}" for name, width in widths.items())
            self._terminal.say(f"{'epoch':>7}{'step':>9}{names}{'windows/s':>11}")
        figures = "".join(f"{figure(value):>{widths[name]}}" for name, value in shown.items())
        best = trainer.state.best
        mark = "  best" if best is not None and best.step == trainer.state.step else ""
        self._terminal.say(f"{trainer.epoch:7.2f}{trainer.state.step:9,d}{figures}{speed:11,.0f}{mark}")
        self._losses.clear()
        return None

    def on_train_end(self, trainer: Trainer) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
