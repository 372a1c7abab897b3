"""A whole run on all its processes: data, training, test, forecast, report."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed

from accel_trainer.checkpoints.files import write_json
from accel_trainer.checkpoints.manifest import problem
from accel_trainer.checkpoints.rotation import Keep
from accel_trainer.checkpoints.store import EXPERIMENT, Store
from accel_trainer.checkpoints.weights import load_weights, load_what_fits
from accel_trainer.errors import CheckpointError, ExitCode
from accel_trainer.hooks.checkpointing import Checkpointing
from accel_trainer.hooks.early_stopping import EarlyStopping
from accel_trainer.hooks.metrics_file import MetricsFile, read_rows
from accel_trainer.hooks.progress import ProgressBar
from accel_trainer.hooks.signals import Signals
from accel_trainer.hooks.time_limit import TimeLimit
from accel_trainer.hooks.tracking import Tracking
from accel_trainer.launching import check_processes, micro_batches_from_environment
from accel_trainer.models.registry import MODELS, create_model
from accel_trainer.run.changes import experiment_digest
from accel_trainer.run.forecast_data import ForecastData
from accel_trainer.run.lines import data_line, machine_line, model_line, rate_line
from accel_trainer.run.prediction import forecast_table, write_forecast
from accel_trainer.run.resume import find_start
from accel_trainer.run.scoring import Baselines, report
from accel_trainer.run.summary import model_card, summarise
from accel_trainer.run.trained import Trained, describe, export, find
from accel_trainer.settings import digest as config_digest
from accel_trainer.settings import to_dict, to_yaml
from accel_trainer.tasks.forecasting import ForecastingTask
from accel_trainer.terminal import Terminal, results_table, sensors_table
from accel_trainer.trainer.loop import Trainer
from accel_trainer.trainer.precision import create_accelerator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from accel_trainer.checkpoints.writer import Saved
    from accel_trainer.config import RunConfig
    from accel_trainer.data.windows import Windows
    from accel_trainer.run.folder import RunFolder
    from accel_trainer.trainer.hooks import Hook
    from accel_trainer.trainer.state import TrainState


class Session:
    """One start of a run.

    Args:
        config: the resolved options.
        folder: of the run, locked by the main process.
        notes: what people should know about this start, one line each.
        began: when the process began, by ``time.monotonic()``; None: now.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, notes: Sequence[str] = (), began: float | None = None
    ) -> None:
        self.config, self.folder = config, folder
        self._began = time.monotonic() if began is None else began
        self.accelerator = create_accelerator(config.training)
        check_processes(self.accelerator.num_processes, config.run.expect_processes)
        self.main = self.accelerator.is_main_process
        self.terminal = Terminal(enabled=self.main)
        self.timings: dict[str, float] = {}
        if config.training.threads is not None:
            torch.set_num_threads(config.training.threads)
        for line in (machine_line(self.accelerator), *notes):
            self.terminal.say(line)

    def run(self) -> ExitCode:
        """Train, test and write everything down.

        Raises:
            UserError: the data, the folder or the options do not fit; nothing saved before is lost.
        """
        code = self._run()
        # A launcher ends all processes when the first one leaves with an error; the main one must be done by then.
        self.accelerator.wait_for_everyone()
        # Left to the interpreter's exit, gloo's threads now and then abort it.
        self.accelerator.free_memory()
        self.accelerator.state.destroy_process_group()
        return code

    def _run(self) -> ExitCode:
        config, terminal = self.config, self.terminal
        with self._timed("data"):
            data = ForecastData.from_options(config.data, self.accelerator.device)
            set_seed(config.run.seed)
            model = create_model(config.model.name, data.shape, config.model.options)
            task = ForecastingTask(model, data.shape, config.training.loss, config.training.loss_delta)
            train, validation, test = data.windows(time_features=task.wants_time_features)
        terminal.say(data_line(data, train, validation, test))
        for note in (*data.table.notes, *data.scaler_notes()):
            terminal.say(f"data: {note}")

        start = find_start(self.accelerator, config, self.folder, data.table.digest)
        for note in start.notes:
            terminal.say(note)
        if start.finished is not None:
            return self._finished_before(start.finished, data)
        if start.recorded is not None and config.model.init_from != (begun_from := start.recorded.model.init_from):
            terminal.say(f"model.init_from has no effect on a run that goes on; it stays {begun_from or 'unset'}")
            config.model.init_from = begun_from  # what config.yaml tells is how the run was begun
        if threads := start.use_threads(config.training.threads):
            terminal.say(threads)
        if start.checkpoint is None and config.model.init_from is not None:
            self._start_from(config.model.init_from, model)

        store = self._store(data)
        if self.main:
            store.clear_staging()
            self.folder.clear_leftovers()
            if start.checkpoint is not None:
                store.set_aside_after(start.checkpoint.step)
            self.folder.write_status("running")
        tracking = Tracking(config.tracking, self.folder.metrics, to_dict(config), terminal.say)
        trainer = Trainer(
            model,
            task,
            train,
            validation,
            config,
            hooks=self._hooks(tracking),
            store=store,
            accelerator=self.accelerator,
            micro_batches=micro_batches_from_environment() or start.micro_batches(self.accelerator.num_processes),
        )
        terminal.say(model_line(config, trainer))
        if data.targets < len(data.table.sensors) and config.model.name in MODELS:
            terminal.say(f"{config.model.name} does not look at covariates: the forecasts are those without them")
        if start.checkpoint is not None:
            trainer.resume(start.checkpoint, fresh_optimizer=start.fresh_optimizer)
            if start.lost_best:
                trainer.state.best = None
            if start.foreign:
                trainer.state.tracker_run_id = None
            for note in start.exactness(trainer.environment, deterministic=config.training.deterministic):
                terminal.say(note)
            if start.recorded is not None and (line := rate_line(start.recorded, config, trainer)) is not None:
                terminal.say(line)
        if self.main:
            self.folder.write_config(to_yaml(config))
        code = ExitCode.DEFECT
        try:
            code = self._train_and_test(trainer, store, data, train, test, tracking)
        finally:
            tracking.finish(int(code))
        return code

    def _train_and_test(
        self, trainer: Trainer, store: Store, data: ForecastData, train: Windows, test: Windows, tracking: Tracking
    ) -> ExitCode:
        with self._timed("training"):
            state = trainer.fit()
        assert state.stop is not None
        self.terminal.say(f"training ended at step {state.step}: {state.stop.reason}")
        if trainer.unsaved is not None and state.stop.kind != "diverged":
            return self._unsaved(trainer.unsaved, state)
        if state.stop.kind == "preempted":
            self._status("preempted", ExitCode.PREEMPTED, state.stop.reason, state.step)
            self.terminal.say("saved; the same command goes on from here")
            return ExitCode.PREEMPTED

        if state.best is None and state.stop.kind != "diverged":
            trainer.evaluate_and_note()  # the run was cut short before its first evaluation
        if state.best is None:
            self.terminal.say("no evaluation gave a number: there are no weights worth testing")
            return self._ended("diverged", state.stop.reason, state.step)
        chosen = store.at(state.best.step)
        with self._timed("test"):
            load_weights(chosen.path, trainer.bare_model)
            scores = report(trainer.evaluator.measure(trainer.bare_model, test), data)
            baselines = Baselines(self.config.evaluation.baselines, data.shape, train, trainer.evaluator)
            others = baselines.score(test)
        if self.main:
            task: Any = trainer.task
            self.folder.check()
            if self.config.predict.enabled:
                self._predict(trainer.bare_model, task, data)
            summary = summarise(self.folder.path.name, self.config, trainer, data, scores, baselines, others)
            summary["timings"] = self.timings
            export(chosen.path, self.folder.model, store.files, model_card(summary))
            self._report(trainer, summary, data, test)
            tracking.summarise(
                {f"test/{name}": scores[name] for name in ("mse", "mae", "rmse", "r2") if name in scores}
            )
            write_json(self.folder.summary, summary)  # last: what it stands for is all there
            self._show(summary)
        return self._ended(state.stop.kind, state.stop.reason, state.step)

    def _unsaved(self, saved: Saved, state: TrainState) -> ExitCode:
        """End without a test: what would be tested is not on the disk, and the same command can mend that."""
        assert state.stop is not None
        reason = f"{state.stop.reason}, but the last checkpoint could not be written: {saved.problem}"
        here = sorted(Store(self.folder.checkpoints).folders())
        then = f"goes on from the checkpoint of step {here[-1]}" if here else "begins anew, since none is there"
        self.terminal.say(
            f"not tested: the last checkpoint, of step {saved.step}, could not be written ({saved.problem}). Once this "
            f"is mended the same command {then}; python -m accel_trainer.checkpoints prune and a smaller "
            "--checkpoint.keep_last make room"
        )
        self._status("failed", ExitCode.CHECKPOINT, reason, state.step)
        return ExitCode.CHECKPOINT

    def _store(self, data: ForecastData) -> Store:
        config, digest = self.config, data.table.digest
        options, stopping = config.checkpoint, config.early_stopping
        keep = Keep(options.keep_last, options.keep_best, options.keep_every, stopping.monitor, stopping.mode)
        told = (digest, config.training.batch_size, experiment_digest(config, digest))
        experiment = dict(zip(EXPERIMENT, told, strict=True))
        facts = {"config_digest": config_digest(config)}
        return Store(
            self.folder.checkpoints,
            keep,
            experiment=experiment,
            facts=facts,
            files=describe(config, data),
            guard=self.folder.check,
        )

    def _start_from(self, path: str, model: nn.Module) -> None:
        # Not earlier: a run that goes on needs it no more.
        source = find(Path(path), "model.init_from")
        if trouble := problem(source):
            raise CheckpointError(f"model.init_from: {source}: {trouble}")
        taken = load_what_fits(source, model)
        self.terminal.say(f"weights from {source}: {len(taken.fitting)} of {len(model.state_dict())} tensors fit")
        if differences := taken.differences():
            self.terminal.say(f"weights from {source}, not taken: {differences}; these start as new")

    def _predict(self, model: nn.Module, task: ForecastingTask, data: ForecastData) -> None:
        for path in write_forecast(forecast_table(model, task, data), self.folder.predictions):
            self.terminal.say(f"forecast of the {data.options.horizon} rows after the end of the data: {path}")

    def _report(self, trainer: Trainer, summary: dict[str, Any], data: ForecastData, test: Windows) -> None:
        from accel_trainer.reporting.examples import example_forecasts
        from accel_trainer.reporting.page import write_report

        task: Any = trainer.task
        examples = example_forecasts(trainer.bare_model, task, data, test)
        page = write_report(self.folder, summary, read_rows(self.folder.metrics), examples)
        self.terminal.say(f"report: {page}")

    def _show(self, summary: dict[str, Any]) -> None:
        windows = summary["protocol"]["test_windows"]
        title = f"Test ({windows:,} windows, z units)"
        results_table(self.terminal, title, summary["model"], summary["test"], summary["baselines"])
        sensors_table(self.terminal, summary["test"])
        for name, reason in summary["left_out"].items():
            self.terminal.say(f"{name} was left out: {reason}")
        for name, note in summary["notes"].items():
            self.terminal.say(f"{name}: {note}")
        self.terminal.say(summary["verdict"])

    def _finished_before(self, summary: dict[str, Any], data: ForecastData) -> ExitCode:
        step = summary["training"]["step"]
        self.terminal.say(
            f"this run is finished ({summary['stop_reason']}; step {step}). A higher --training.epochs or "
            "--early_stopping.patience continues it; --run.resume never or another --run.name starts anew"
        )
        self._show(summary)
        if self.config.predict.enabled and self.main and not self.folder.predictions.exists():
            trained = Trained.from_pretrained(self.folder.path)
            model = trained.load_model(trust=self.config.model.name).to(self.accelerator.device)
            self._predict(model, ForecastingTask(model, trained.shape), data)
        return self._ended(summary["stop_kind"], summary["stop_reason"], step)

    def _ended(self, kind: str, reason: str, step: int) -> ExitCode:
        diverged = kind == "diverged"
        code = ExitCode.DIVERGED if diverged else ExitCode.OK
        self._status("failed" if diverged else "finished", code, reason, step)
        return code

    def _status(self, status: str, code: ExitCode, reason: str, step: int) -> None:
        if self.main:
            self.folder.write_status(status, code, reason, step=step)

    def _hooks(self, tracking: Tracking) -> list[Hook]:
        config = self.config
        limit, stopping = config.training.max_time, config.early_stopping
        return [
            Signals(),
            *([TimeLimit(limit, self._began)] if limit is not None else []),
            *([EarlyStopping(stopping)] if stopping.enabled else []),
            MetricsFile(self.folder.metrics, self.terminal.say, self.folder.check),
            tracking,  # reads the metrics file as it stands after being cut back
            ProgressBar(self.terminal),
            Checkpointing(config.checkpoint, self.terminal.say, self.folder.mark_saved),
        ]

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.timings[name] = round(time.perf_counter() - begin, 3)
