"""Every option of a run: one tree of typed records, readable and checkable without torch.

Ranges and contradictions are checked when a record is made, so the Python API and the command line refuse the
same things. Files and flags are read in :mod:`accel_trainer.settings`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from accel_trainer.data.bhm_options import BridgeOptions
from accel_trainer.errors import ConfigError, nearest

BUILT_IN_DATA = "bhm"


def _check(valid: bool, key: str, value: object, allowed: str) -> None:
    if not valid:
        raise ConfigError(key, f"{value!r} is out of range; allowed: {allowed}")


def _at_least(minimum: float, key: str, value: float | None) -> None:
    """Refuse numbers below ``minimum``, NaN and infinity; None means "not set" and passes."""
    if value is not None:
        _check(math.isfinite(value) and value >= minimum, key, value, f"{minimum} or more")


def _above_zero(key: str, value: float | None) -> None:
    if value is not None:
        _check(math.isfinite(value) and value > 0, key, value, "a number above 0")


@dataclass
class RunOptions:
    """Where a run lives and how it starts."""

    name: str | None = None
    """Name of the run's folder; null: data, model, context, horizon and a digest of the whole config."""
    dir: str = "runs"
    """Folder that holds the runs; relative to the current folder."""
    resume: str = "auto"
    """auto: go on where the run of this name stopped; never: start anew (an existing folder is set aside, not
    deleted); or the path of a run or checkpoint folder to go on from."""
    seed: int = 0
    """Seed of the initial weights, the order of windows and dropout."""
    expect_processes: int | None = None
    """Refuse to train when another number of processes was started; null: no check."""
    allow_changes: list[str] = field(default_factory=list)
    """Options that may differ from those the run was started with although they change the experiment."""

    def __post_init__(self) -> None:
        if self.name is not None:
            plain = self.name not in ("", ".", "..") and not set(self.name) & set('/\\:*?"<>|\0')
            if not plain or self.name.strip() != self.name:
                raise ConfigError("run.name", f"{self.name!r} cannot be a folder's name")
        _check(bool(self.dir), "run.dir", self.dir, "a folder")
        _check(bool(self.resume), "run.resume", self.resume, "auto, never or a path")
        _check(0 <= self.seed < 2**32, "run.seed", self.seed, "0 to 2**32 - 1")
        _at_least(1, "run.expect_processes", self.expect_processes)


@dataclass
class SplitOptions:
    """How the rows are cut into training, validation and test, in order of time."""

    kind: Literal["ratio", "date", "ett"] = "ratio"
    """ratio: shares of the rows; date: borders in time; ett: 12, 4 and 4 months of 30 days from the first row, the
    protocol of the ETT benchmark, the rest unused."""
    train: float = 0.7
    """Share of the rows for training (kind ratio)."""
    test: float = 0.2
    """Share of the rows for the test, taken from the end (kind ratio); validation gets what lies between."""
    validation_start: str | None = None
    """First moment of the validation rows (kind date): an ISO date, or seconds for a plain numeric time column."""
    test_start: str | None = None
    """First moment of the test rows (kind date)."""
    end: str | None = None
    """First moment no longer used (kind date); null: the end of the file."""

    def __post_init__(self) -> None:
        for name, share in (("train", self.train), ("test", self.test)):
            _check(0 < share < 1, f"data.split.{name}", share, "a share above 0 and below 1")
        if self.kind == "ratio" and self.train + self.test >= 1:
            raise ConfigError("data.split", f"train {self.train} + test {self.test} leave no rows for validation")
        if self.kind == "date" and (self.validation_start is None or self.test_start is None):
            raise ConfigError("data.split", "kind date needs validation_start and test_start")
        if self.kind != "date":
            for name in ("validation_start", "test_start", "end"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"data.split.{name}", f"has no effect with kind {self.kind}; use kind: date")


@dataclass
class DataOptions:
    """Which rows and sensors are used, and how windows are cut from them."""

    path: str | None = None
    """A wide CSV or Parquet file, a folder written by datasets.save_to_disk, or "bhm" for the built-in generator."""
    time_column: str | None = None
    """Name of the time column; null: found by its name or as the only column of dates; "none": there is none."""
    period: float | None = None
    """Seconds between two rows; null: read from the time column. Needed only when there is none."""
    targets: list[str] = field(default_factory=list)
    """Sensors to forecast, names or patterns such as strain_*; empty: all that are not covariates."""
    covariates: list[str] = field(default_factory=list)
    """Sensors the model sees in the past but does not forecast; "*" means all the others."""
    missing: list[str] = field(default_factory=list)
    """Further texts that stand for "no reading", besides empty, NaN, NA, null, None, -, #NV, #N/A and inf."""
    context: int = 336
    """Rows the model sees (L)."""
    horizon: int = 96
    """Rows it forecasts (H)."""
    stride: int = 1
    """Rows between the starts of two training windows; validation and test always use every window."""
    season: float | None = None
    """Length of the season for the seasonal-naive baseline, in seconds; null: one day if the rows allow it."""
    split: SplitOptions = field(default_factory=SplitOptions)
    bhm: BridgeOptions = field(default_factory=BridgeOptions)

    def __post_init__(self) -> None:
        if self.path is not None:
            _check(bool(self.path.strip()), "data.path", self.path, "a file, a folder or bhm")
        _above_zero("data.period", self.period)
        _at_least(1, "data.context", self.context)
        _at_least(1, "data.horizon", self.horizon)
        _at_least(1, "data.stride", self.stride)
        _above_zero("data.season", self.season)
        both = set(self.targets) & set(self.covariates)
        if both:
            raise ConfigError("data.covariates", f"{sorted(both)[0]!r} is among data.targets as well")


@dataclass
class ModelOptions:
    """The forecaster."""

    name: str = "nlinear"
    """A built-in model (nlinear, dlinear, persistence, …) or module:Class of your own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of that model, checked against its own list."""
    init_from: str | None = None
    """Run, checkpoint or model folder whose weights a new run starts from, as far as names and shapes fit."""

    def __post_init__(self) -> None:
        _check(bool(self.name), "model.name", self.name, "a model's name or module:Class")


@dataclass
class OptimizerOptions:
    """How gradients become updates."""

    name: str = "adamw"
    """A class of torch.optim by its name (adamw, sgd, …) or module:Class."""
    lr: float = 1e-3
    """Learning rate before the schedule; never scaled by the number of processes."""
    weight_decay: float = 0.0
    """Decay per update; not applied to biases and norms unless decay_all is set."""
    decay_all: bool = False
    """Apply weight decay to biases and norms too."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of that optimizer, such as betas or momentum."""

    def __post_init__(self) -> None:
        _check(bool(self.name), "optimizer.name", self.name, "an optimizer's name or module:Class")
        _above_zero("optimizer.lr", self.lr)
        _at_least(0, "optimizer.weight_decay", self.weight_decay)


@dataclass
class ScheduleOptions:
    """How the learning rate changes over the run, counted in updates."""

    name: Literal["constant", "cosine", "halving"] = "constant"
    """constant; cosine: down to min_ratio after the last update; halving: lr, lr, lr/2, lr/4, … by epoch (the
    "type1" of Informer's scripts)."""
    warmup: int = 0
    """Updates over which the rate rises linearly from 0."""
    min_ratio: float = 0.0
    """Lowest share of optimizer.lr that cosine reaches."""

    def __post_init__(self) -> None:
        _at_least(0, "schedule.warmup", self.warmup)
        _check(0 <= self.min_ratio <= 1, "schedule.min_ratio", self.min_ratio, "0 to 1")


@dataclass
class TrainingOptions:
    """The loop."""

    epochs: int = 10
    """Passes over the training windows."""
    max_steps: int | None = None
    """Optimizer steps after which training ends even within an epoch; null: epochs decides."""
    batch_size: int = 32
    """Windows in one optimizer step, over all processes together: the experiment does not depend on the machine."""
    micro_batch_size: int | None = None
    """Most windows one process puts through the model at once; null: its whole share of batch_size (or the number
    of micro-batches that accelerate config states). Changes memory and speed, not the result."""
    loss: Literal["mse", "mae", "huber", "smooth_l1"] = "mse"
    """Loss over observed targets, in z units."""
    loss_delta: float = 1.0
    """Where huber and smooth_l1 turn from square to linear, in z units."""
    clip_norm: float | None = None
    """Largest gradient norm; larger gradients are scaled down to it. null: no clipping."""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """null: what accelerate config or accelerate launch says, else no. fp16 needs a GPU."""
    max_nonfinite_steps: int = 5
    """Steps in a row with a NaN or infinite gradient (their updates are left out) before the run stops; with fp16
    the loss scale falls during these."""
    max_time: float | None = None
    """Seconds from the start of the process after which it saves and ends with exit code 75, as a signal would make
    it; the same command goes on. null: no limit."""
    process_timeout: float = 1800.0
    """Seconds that a process waits for the others before it takes one of them for dead or hung and the run ends with
    exit code 5. Longer than anything one process does while the others wait."""
    threads: int | None = None
    """CPU threads of each process; null: as many as torch takes, and after that the number the run was begun with."""
    deterministic: bool = False
    """Use only deterministic kernels: bit-equal repeats on a GPU, at some cost in speed. A CPU needs it not."""

    def __post_init__(self) -> None:
        _at_least(1, "training.epochs", self.epochs)
        _at_least(1, "training.max_steps", self.max_steps)
        _at_least(1, "training.batch_size", self.batch_size)
        _at_least(1, "training.micro_batch_size", self.micro_batch_size)
        _above_zero("training.loss_delta", self.loss_delta)
        _above_zero("training.clip_norm", self.clip_norm)
        _at_least(1, "training.max_nonfinite_steps", self.max_nonfinite_steps)
        _above_zero("training.max_time", self.max_time)
        valid, month = 1 <= self.process_timeout <= 30 * 86400, "1 to 2592000, a month"
        _check(valid, "training.process_timeout", self.process_timeout, month)
        _at_least(1, "training.threads", self.threads)


@dataclass
class EarlyStoppingOptions:
    """When the validation result no longer improves."""

    enabled: bool = True
    """Stop early at all; without it every epoch is trained and the best weights are still kept."""
    monitor: str = "val/mse"
    """Logged metric that decides what "best" means: val/mse, val/mae, val/rmse, val/loss, …"""
    mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger value is better."""
    patience: int = 3
    """Evaluations without improvement before the run stops."""
    min_delta: float = 0.0
    """Least change against the last improvement that counts as one, in the metric's unit."""

    def __post_init__(self) -> None:
        _check(bool(self.monitor), "early_stopping.monitor", self.monitor, "a logged metric such as val/mse")
        _at_least(1, "early_stopping.patience", self.patience)
        _at_least(0, "early_stopping.min_delta", self.min_delta)
        better = {"val/r2": "max", **dict.fromkeys(("val/loss", "val/mse", "val/mae", "val/rmse"), "min")}
        if self.mode != better.get(self.monitor, self.mode):
            problem = f"{self.mode} would keep the worst {self.monitor}; it is better at its {better[self.monitor]}"
            raise ConfigError("early_stopping.mode", problem)

    def check_logged(self, metrics: Iterable[str]) -> None:
        """Check that ``monitor`` is among the metrics that evaluations will log, each after ``val/``.

        Raises:
            ConfigError: it is not; what will be logged is listed.
        """
        logged = [f"val/{name}" for name in metrics]
        if self.monitor not in logged:
            hint = nearest(self.monitor, logged)
            problem = f"{self.monitor!r} is not logged{hint} (logged: {', '.join(logged)})"
            raise ConfigError("early_stopping.monitor", problem)


@dataclass
class CheckpointOptions:
    """What is saved while training, for going on after a crash."""

    every_steps: int | None = None
    """Steps between checkpoints, besides those after evaluations and at the end; null: only these."""
    every_epochs: int | None = None
    """Epochs between checkpoints, besides the others."""
    every_minutes: float | None = None
    """Minutes between checkpoints, besides the others."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 1
    """Checkpoints kept that have the best values of early_stopping.monitor."""
    keep_every: int | None = None
    """Checkpoints kept whose step is a multiple of this, each with the best one of its time, for looking back; null:
    none for that reason."""
    asynchronous: bool = False
    """Let training wait only until its state is copied in memory; a thread writes the copy. Takes the memory of a
    second state."""
    trust: bool = False
    """Read checkpoint files that can run code when read: some optimizers from elsewhere need it. Only for files
    whose origin you know."""

    def __post_init__(self) -> None:
        _at_least(1, "checkpoint.every_steps", self.every_steps)
        _at_least(1, "checkpoint.every_epochs", self.every_epochs)
        _above_zero("checkpoint.every_minutes", self.every_minutes)
        _at_least(1, "checkpoint.keep_last", self.keep_last)
        _at_least(1, "checkpoint.keep_best", self.keep_best)
        _at_least(1, "checkpoint.keep_every", self.keep_every)


@dataclass
class TrackingOptions:
    """Where numbers go while training; metrics.jsonl in the run folder is always written."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: W&B online when a key is found, else offline into the run folder; disabled: no tracker at all."""
    trackers: list[str] = field(default_factory=lambda: ["wandb"])
    """Trackers of Accelerate by name: wandb, tensorboard, …"""
    project: str = "accel_trainer"
    """Project the runs appear under."""
    log_every: int = 50
    """Steps between two writes of metrics.jsonl; every step is in it whatever the number."""

    def __post_init__(self) -> None:
        _check(bool(self.project), "tracking.project", self.project, "a name")
        _at_least(1, "tracking.log_every", self.log_every)


@dataclass
class EvaluationOptions:
    """Passes over the validation split during training, and the test at the end."""

    every_steps: int | None = None
    """Steps between evaluations; null: after every epoch."""
    batch_size: int = 256
    """Windows per process put through the model at once; changes memory and speed, not the result."""
    baselines: list[str] = field(default_factory=lambda: ["persistence", "seasonal_naive", "closed_form_linear"])
    """Reference forecasts scored on the same test windows."""

    def __post_init__(self) -> None:
        _at_least(1, "evaluation.every_steps", self.every_steps)
        _at_least(1, "evaluation.batch_size", self.batch_size)


@dataclass
class PredictOptions:
    """Forecast of the rows after the end of the data."""

    enabled: bool = False
    """Write predictions/ when training has ended; --do_predict is the same."""


@dataclass
class RunConfig:
    """Everything that defines a run."""

    run: RunOptions = field(default_factory=RunOptions)
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    early_stopping: EarlyStoppingOptions = field(default_factory=EarlyStoppingOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    predict: PredictOptions = field(default_factory=PredictOptions)

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> RunConfig:
        """Read a YAML file as ``--config`` does.

        Args:
            path: the file.
            overrides: dotted options that win over it: ``RunConfig.from_yaml("a.yaml", **{"optimizer.lr": 1e-3})``.

        Raises:
            UserError: the file cannot be read, or an option in it or in ``overrides`` cannot be used.
        """
        from accel_trainer.settings import read_settings

        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
        return read_settings(["--config", str(path), *(f"--{key}={text}" for key, text in texts.items())]).config
