"""The training loop, from the first step to the last.

One step: gather, forward and backward for each pass, clip and check, update, schedule, count, hooks, evaluation if
due, decision, checkpoint last. Every random draw and every position in the data is keyed by the step, so the loop
can start anywhere and nothing that happens beside it can change what it computes.
"""

from __future__ import annotations

import inspect
import math
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from accel_trainer.checkpoints.weights import bare
from accel_trainer.config import RunConfig
from accel_trainer.data.permutation import key
from accel_trainer.errors import CheckpointError, ConfigError
from accel_trainer.optim.registry import create_optimizer
from accel_trainer.optim.schedules import Schedule, rate
from accel_trainer.trainer.agreement import agree, sum_over_processes
from accel_trainer.trainer.environment import Environment
from accel_trainer.trainer.evaluation import Evaluator
from accel_trainer.trainer.hooks import Request
from accel_trainer.trainer.plan import StepPlan, share
from accel_trainer.trainer.precision import Stepper, create_accelerator, on_device, seed_draws
from accel_trainer.trainer.saving import Saving
from accel_trainer.trainer.state import Best, Stop, TrainState, better
from accel_trainer.trainer.warmup import settle_buckets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from accelerate import Accelerator
    from torch import nn

    from accel_trainer.checkpoints.checkpoint import Checkpoint
    from accel_trainer.checkpoints.store import Store
    from accel_trainer.checkpoints.writer import Saved
    from accel_trainer.data.samples import Samples
    from accel_trainer.tasks.base import Task
    from accel_trainer.trainer.hooks import Hook, Row


class Trainer:
    """Trains a model on a task.

    Args:
        model: any module the task can call.
        task: turns batches into losses and metrics.
        train: training samples.
        validation: samples of the evaluations during training; None: no evaluation, no best weights.
        config: the sections optimizer, schedule, training, evaluation, early_stopping (monitor and mode decide what
            "best" means), checkpoint.asynchronous, tracking.log_every and run.seed are used.
        hooks: called in this order at every event.
        store: where checkpoints go; None: none are written.
        accelerator: an Accelerator of one's own; by default one is made from ``config.training``.
        micro_batches: passes per step and process when ``training.micro_batch_size`` is not set.

    Attributes:
        state: the counters of the run.
        plan: which windows each step consumes.
        evaluator: measures models on samples.
        evaluated: metrics of the evaluation after the present step; empty when there was none.
        environment: what the result depends on to the last bit besides the configuration.

    Raises:
        ConfigError: an option does not fit the model, the task or the machine.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        train: Samples,
        validation: Samples | None = None,
        config: RunConfig | None = None,
        *,
        hooks: Iterable[Hook] = (),
        store: Store | None = None,
        accelerator: Accelerator | None = None,
        micro_batches: int | None = None,
    ) -> None:
        self.config = config or RunConfig()
        self.task, self.train, self.validation = task, train, validation
        self.hooks = list(hooks)
        self.state = TrainState()
        self.accelerator = accelerator or create_accelerator(self.config.training)
        self._micro_batches = micro_batches or 1
        self._check(model)

        training = self.config.training
        self.plan = StepPlan(len(train), training.batch_size, training.epochs, training.max_steps, self.config.run.seed)
        optimizer = create_optimizer(self.config.optimizer, model)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        # Not prepared: Accelerate would step it once for every process.
        share_of_rate = rate(self.config.schedule, self.plan.total_steps, self.plan.steps_per_epoch)
        self.schedule = Schedule(self.optimizer, share_of_rate)
        self._stepper = Stepper(self.accelerator, self.model, self.optimizer, training.clip_norm)
        self.evaluator = Evaluator(self.accelerator, task, self.config.evaluation.batch_size)
        self.environment = Environment.of(self.accelerator, self._micro_batches, training.micro_batch_size)
        self.evaluated: dict[str, float] = {}
        self._saving = Saving(self, store) if store is not None else None
        self._rows: list[Row] = []
        self._losses: list[torch.Tensor] = []  # one for each row, on the device, of this process alone

    @property
    def epoch(self) -> float:
        """Passes over the data so far, with the fraction of the present one."""
        return self.state.step / self.plan.steps_per_epoch

    # ---- the loop -------------------------------------------------------------------------------------------------

    def fit(self) -> TrainState:
        """Train until the plan ends or a hook stops it; return the final state.

        Ends with a checkpoint if there is a store. After :meth:`resume` it goes on from there.
        """
        with ExitStack() as ends:
            for hook in reversed(self.hooks):  # the first one ends first, and none is left out when another fails
                ends.callback(hook.on_train_end, self)
            if self._saving is not None:
                ends.push(self._close_saving)
                self._saving.begin()
            requests = [request for hook in self.hooks if (request := hook.on_train_start(self))]
            self.state.stop = agree(self.accelerator, requests).stop
            if self.state.stop is None and self.state.step < self.plan.total_steps:
                settle_buckets(self.model, self.accelerator.num_processes, self._pass_without_effect)
            self._loop()
            if self._saving is not None:
                self._saving.settle()
        return self.state

    def _close_saving(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._saving is not None:
            self._saving.close(at_once=kind is KeyboardInterrupt)

    def _loop(self) -> None:
        state, plan = self.state, self.plan
        if state.pending is not None:
            self._take_up_pending_row(state.pending)
            if state.stop is None:
                self._end_step([], evaluation=True)
            else:
                self._drain()  # nobody waits for that evaluation any more
        while state.stop is None and state.step < plan.total_steps:
            self._step()
            requests = [request for hook in self.hooks if (request := hook.on_step_end(self))]
            self._end_step(requests, evaluation=self._evaluation_due(state.step == plan.total_steps))
        state.stop = state.stop or Stop("completed", f"all {plan.total_steps} steps done")

    def _end_step(self, requests: list[Request], *, evaluation: bool) -> None:
        """Evaluate if due, decide together with the other processes, save if due."""
        state, last = self.state, self.state.step == self.plan.total_steps
        self.evaluated, state.pending = {}, None
        if evaluation:
            requests = [*requests, *self._evaluate_step()]
        decision = agree(self.accelerator, [*self._own_requests(), *requests], news=self._has_news)
        if decision.news and self._saving is not None:
            self._saving.settle()
        state.stop = decision.stop
        # A diverged run keeps its last healthy checkpoints: what it is now is worth nothing to go on from.
        diverged = state.stop is not None and state.stop.kind == "diverged"
        save = (decision.save or last or state.stop is not None) and not diverged
        if save:
            self.save_checkpoint()
        elif diverged:
            self._end_diverged()
        elif len(self._rows) >= self.config.tracking.log_every:
            self._drain()

    def _end_diverged(self) -> None:
        """Leave the log whole and the best at what is on the disk; the present state is not saved."""
        if self.state.pending is not None:
            self._take_up_pending_row(self.state.pending)
        self._drain()
        if self._saving is not None:
            self._saving.settle()
            self._saving.fall_back()

    def _step(self) -> None:
        state, rank, world = self.state, self.accelerator.process_index, self.accelerator.num_processes
        windows = self.plan.indices(state.step)
        weight = self.train.weight(windows)
        parts = share(windows, rank, world, self.config.training.micro_batch_size, self._micro_batches)
        row: Row = {"step": state.step + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        self.model.train()
        total = torch.zeros((), device=self.accelerator.device)
        # A step in which no target was observed has nothing to learn from; its windows are consumed all the same.
        for number, part in enumerate(parts if weight else []):
            batch = on_device(self.train.batch(part.indices), self.accelerator.device)
            seed_draws(self.accelerator.device, key(self.config.run.seed, state.step, number, rank) >> 1)
            with self._stepper.synchronised(last=number == len(parts) - 1):
                loss, _ = self.task.loss(self.model, batch)
                # DDP and FSDP average over processes; for a sum over all of them each scales by their number.
                self._stepper.backward(loss * (world / weight if part.counts else 0.0))
            if part.counts:
                total += loss.detach()
        if weight:
            result = self._stepper.apply()
            row["train/grad_norm"] = result.norm
            if result.updated:
                state.updates += 1
                self.schedule.set(state.updates)
            state.nonfinite = state.nonfinite + 1 if result.hopeless else 0
        state.step += 1
        state.epoch = state.step // self.plan.steps_per_epoch
        state.windows += len(windows)
        row["epoch"] = round(self.epoch, 6)
        self._rows.append(row)
        self._losses.append(total / weight if weight else total * math.nan)

    def _pass_without_effect(self) -> None:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        [part, *_] = share(self.plan.indices(self.state.step), rank, world, None)
        batch = on_device(self.train.batch(part.indices), self.accelerator.device)
        loss, _ = self.task.loss(self.model, batch)
        self._stepper.backward(loss * 0.0)

    def _drain(self, keep: int = 0) -> None:
        """Give the finished rows but the last ``keep`` to the hooks.

        The losses of all processes come together here, in one all-reduce for many steps.
        """
        count = len(self._rows) - keep
        if count <= 0:
            return
        rows = self._finished_rows(count)
        for hook in self.hooks:
            hook.on_rows(self, rows)

    def _finished_rows(self, count: int) -> list[Row]:
        """Take the first rows out of those that wait, complete with the loss."""
        losses = sum_over_processes(self.accelerator, torch.stack(self._losses[:count])).tolist()
        rows, self._rows, self._losses = self._rows[:count], self._rows[count:], self._losses[count:]
        for row, loss in zip(rows, losses, strict=True):
            row["train/loss"] = loss
        return rows

    def _take_up_pending_row(self, pending: Mapping[str, float | int | None]) -> None:
        """Take up the row of a step whose evaluation was broken off."""
        self.state.pending = None
        row = {name: math.nan if value is None else value for name, value in pending.items()}
        # The losses of all processes are in it already: it counts once when they are added up.
        loss = row.pop("train/loss") if self.accelerator.is_main_process else 0.0
        row.pop("train/loss", None)
        self._rows.append(row)
        self._losses.append(torch.tensor(loss, device=self.accelerator.device))

    # ---- evaluation -----------------------------------------------------------------------------------------------

    def evaluate(self, samples: Samples | None = None) -> dict[str, float]:
        """Return the metrics of one pass over ``samples``, by default the validation samples."""
        chosen = samples if samples is not None else self.validation
        if chosen is None:
            raise ValueError("no validation samples were given")
        return self.evaluator.measure(self.bare_model, chosen).overall()

    def evaluate_and_note(self) -> dict[str, float]:
        """Evaluate on the validation samples, remember whether it is the best, return the metrics after ``val/``."""
        metrics = {f"val/{name}": value for name, value in self.evaluate().items()}
        self.note_best(metrics)
        return metrics

    def _evaluate_step(self) -> list[Request]:
        """Evaluate after a step and complete its row, or set the row aside when a hook asks to stop meanwhile."""
        assert self.validation is not None
        asked: list[Request] = []

        def given_up() -> bool:
            asked.extend(request for hook in self.hooks if (request := hook.on_evaluation_batch(self)))
            return any(r.stop for r in asked if r.any_process or self.accelerator.is_main_process)

        self._drain(keep=1)  # the row of this step gets the metrics first
        meter = self.evaluator.measure_unless(self.bare_model, self.validation, given_up)
        if meter is None:
            [row] = self._finished_rows(1)
            self.state.pending = dict(row)
            return asked
        self.evaluated = {f"val/{name}": value for name, value in meter.overall().items()}
        self.note_best(self.evaluated)
        if self._saving is not None:
            self._saving.evaluated()
        self._rows[-1].update(self.evaluated)
        asked += [r for hook in self.hooks if (r := hook.on_evaluation_end(self, self.evaluated))]
        return [*asked, *(r for hook in self.hooks if (r := hook.on_evaluation_batch(self)))]

    @property
    def bare_model(self) -> nn.Module:
        """The model without what Accelerate wraps around it."""
        return bare(self.accelerator, self.model)

    def _evaluation_due(self, last: bool) -> bool:
        if self.validation is None:
            return False
        every = self.config.evaluation.every_steps or self.plan.steps_per_epoch
        return last or self.state.step % every == 0

    def note_best(self, metrics: Mapping[str, float]) -> None:
        """Remember the best evaluation; NaN is never better, and neither is a metric that is absent."""
        options, best = self.config.early_stopping, self.state.best
        value = metrics.get(options.monitor, math.nan)
        if math.isfinite(value) and (best is None or better(value, best.value, options.mode)):
            self.state.best = Best(options.monitor, value, self.state.step)

    # ---- decisions ------------------------------------------------------------------------------------------------

    def _own_requests(self) -> list[Request]:
        limit, step = self.config.training.max_nonfinite_steps, self.state.step
        if self.state.nonfinite < limit:
            return []
        reason = f"NaN or infinite gradients in {limit} steps in a row, the last at step {step}"
        return [Request(stop=Stop("diverged", reason))]

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the present state, or begin to; nothing without a store.

        A failure does not raise: ``unsaved`` tells of it, and so does :meth:`Hook.on_saved`.
        """
        self._drain()
        if self._saving is not None:
            self._saving.save()

    @property
    def unsaved(self) -> Saved | None:
        """The latest save, when it failed: what was trained since the one before it is in memory only."""
        return self._saving.unsaved if self._saving is not None else None

    @property
    def _has_news(self) -> bool:
        return self._saving is not None and self._saving.news

    def resume(self, checkpoint: Checkpoint, *, fresh_optimizer: bool = False) -> None:
        """Go on from a checkpoint; call before :meth:`fit`.

        What the configuration says now about rates and options beats what the checkpoint remembers.

        Args:
            checkpoint: where to go on from.
            fresh_optimizer: take the weights and counters but not the optimizer's state, which another optimizer or
                another grouping of parameters could not use.

        Raises:
            CheckpointError: it belongs to something else, or would run code when read.
        """
        # Options only: some optimizers keep what they have gathered in their groups.
        bare_optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        options = inspect.signature(type(bare_optimizer)).parameters.keys() - {"params"}
        configured = [{k: v for k, v in group.items() if k in options} for group in self.optimizer.param_groups]
        if fresh_optimizer:
            checkpoint.load_weights(self.bare_model)
        else:
            checkpoint.restore(self.accelerator, trust=self.config.checkpoint.trust)
        own_state = checkpoint.own_state()
        for group, wanted in zip(self.optimizer.param_groups, configured, strict=True):
            group.update(wanted)
        try:
            self.state = TrainState.from_dict(own_state["trainer"])
            hooks = {hook.name: own_state["hooks"].get(hook.name, {}) for hook in self.hooks}
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{checkpoint.path}: its state cannot be read: {error!r}") from None
        # Whether the reason to stop still holds is for the plan and the hooks of now to say.
        self.state.stop = None
        if self.state.best is not None and self.state.best.metric != self.config.early_stopping.monitor:
            self.state.best = None  # a value of another metric is no mark for this one
        self.schedule.set(self.state.updates)
        if self._saving is not None:
            self._saving.resumed(checkpoint)
        for hook in self.hooks:
            hook.load_state_dict(hooks[hook.name])

    def _check(self, model: nn.Module) -> None:
        if not any(p.requires_grad for p in model.parameters()):
            raise ConfigError("model.name", f"{type(model).__name__} has no weights to train")
        names = [hook.name for hook in self.hooks]
        if len(set(names)) != len(names):
            raise ValueError(f"hook names repeat: {names}")
        if self.validation is not None:
            self.config.early_stopping.check_logged(self.task.metrics)
