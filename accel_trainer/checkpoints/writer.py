"""Saving what Accelerate prepared, on all processes together, while training waits or behind its back.

A failed save is no reason to end a training: it comes back as a value, the same on all processes, older checkpoints
are as they were, and the next save tries again.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate.checkpointing import save_accelerator_state
from accelerate.utils import OPTIMIZER_NAME, SAFE_WEIGHTS_NAME, SCALER_NAME, gather_object, save
from safetensors import SafetensorError

from accel_trainer.checkpoints.snapshot import Snapshot
from accel_trainer.checkpoints.weights import bare
from accel_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from accelerate import Accelerator
    from torch import Tensor, nn

    from accel_trainer.checkpoints.store import Store

T = TypeVar("T")

_RANDOM_STATES = 1 << 15
"""Bytes for a process's random states, generously."""


@dataclass(frozen=True)
class Saved:
    """What became of a save.

    Attributes:
        step: of the checkpoint.
        path: where it is, or would be.
        problem: why it could not be written; empty when it is there, whole.
        note: what people should know although it is there.
    """

    step: int
    path: Path
    problem: str = ""
    note: str = ""


class Writer:
    """Writes the state of one model and one optimizer into a store.

    Args:
        store: the folder.
        accelerator: prepared with both.
        model: as ``accelerator.prepare`` returned it.
        optimizer: as ``accelerator.prepare`` returned it.
        behind: copy the state and let training go on while a thread writes the copy; at most one is on its way.
    """

    def __init__(
        self,
        store: Store,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        behind: bool = False,
    ) -> None:
        self._store, self._accelerator = store, accelerator
        self._model, self._optimizer = model, optimizer
        self._behind = behind
        self._snapshot = Snapshot()
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: int | None = None  # step of the save that the thread is busy with, on every process
        self._outcome: Future[Saved] | None = None  # of it, on the main process
        # A word that all processes share and that no other start of the run has.
        [store.token, *_] = self._from_all(secrets.token_hex(4))

    def save(
        self,
        step: int,
        own_state: dict[str, Any],
        *,
        facts: dict[str, Any] | None = None,
        protect: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> Saved | None:
        """Write a checkpoint; called on all processes together.

        Args:
            step: steps done.
            own_state: JSON-ready values of the trainer and its hooks; the main process's are kept.
            facts: what the manifest says about this moment.
            protect: step of a checkpoint that rotation must not take.
            before: called on every process first; an OSError or CheckpointError of it fails the save.

        Returns:
            What became of it; None when it goes on behind, for :meth:`settle` to tell.
        """
        if self._under_way is not None:
            raise RuntimeError("the save before this one was not settled")
        path, main = self._store.path(step), self._accelerator.is_main_process

        def begin() -> None:
            if before is not None:
                before()
            if main:
                self._store.stage(step, self._size(own_state))

        problem = self._everywhere(begin)
        if self._behind and not problem:
            copy: list[Any] = []
            problem = self._everywhere(lambda: copy.extend(self._copy(step)))
            if not problem:
                self._under_way = step
                if main:
                    self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
                    self._outcome = self._thread.submit(self._write_copy, copy, step, own_state, facts or {}, protect)
                return None
        if not problem:
            problem = self._everywhere(lambda: self._save_state(step))
        outcome = Saved(step, path, problem)
        if main and not problem:
            outcome = self._finish(step, own_state, facts or {}, protect)
        [outcome, *_] = self._from_all(outcome)
        if outcome.problem and main:
            self._store.discard(step)
        return outcome

    @property
    def news(self) -> bool:
        """Whether a save that went on behind has ended and was not told yet; True on the main process only."""
        return self._outcome is not None and self._outcome.done()

    def settle(self) -> Saved | None:
        """Wait for the save that goes on behind; return what became of it. Called on all processes together."""
        if self._under_way is None:
            return None
        outcome = Saved(self._under_way, self._store.path(self._under_way))
        self._under_way = None
        if self._outcome is not None:
            future, self._outcome = self._outcome, None
            outcome = future.result()
        [outcome, *_] = self._from_all(outcome)
        return outcome

    def amend(self, step: int, facts: dict[str, Any]) -> None:
        """Let a manifest tell what was not known yet when its checkpoint was written; on the main process."""
        if self._accelerator.is_main_process:
            # Nothing depends on it but what rotation keeps and lists show.
            _trouble(lambda: self._store.amend(step, facts))

    def close(self, *, at_once: bool) -> None:
        """Let nothing be written any more; after an error, on this process alone.

        Args:
            at_once: give up what is under way at the next file rather than wait until it is whole.
        """
        if self._outcome is not None:
            if at_once:
                self._store.close()
            wait([self._outcome])
        self._store.close()

    # ---- what is saved --------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        """Return the weights under the model's own names.

        Accelerate keeps the "module." that DistributedDataParallel puts before every name; without it any number of
        processes reads the file.
        """
        return bare(self._accelerator, self._model).state_dict()

    def _size(self, own_state: dict[str, Any]) -> int:
        """Return the bytes that a checkpoint takes, rather too many."""
        states = self._optimizer.state_dict()["state"]
        tensors = [*self._weights().values(), *_tensors(states)]
        size: int = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        # Formats, names and the manifest; a file begins a new block of the disk.
        size += 512 * len(tensors) + 2 * len(json.dumps([own_state, self._store.files], default=str)) + (1 << 16)
        return size + _RANDOM_STATES * int(self._accelerator.num_processes)

    def _save_state(self, step: int) -> None:
        def bare_names(_models: list[nn.Module], weights: list[dict[str, Tensor]], _folder: str) -> None:
            weights[:] = [self._weights()]

        handle = self._accelerator.register_save_state_pre_hook(bare_names)
        try:
            self._accelerator.save_state(str(self._store.staging(step)), safe_serialization=True)
        finally:
            handle.remove()

    def _copy(self, step: int) -> list[Any]:
        """Write this process's random states, which are small, and return a copy of the rest on the main process."""
        accelerator = self._accelerator
        rank = accelerator.process_index
        save_accelerator_state(str(self._store.staging(step)), [], [], [], [], rank, accelerator.step)
        if not accelerator.is_main_process:
            return []
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
        weights, optimizer = self._snapshot.take([self._weights(), self._optimizer.state_dict()])
        return [weights, optimizer, scaler]

    def _write_copy(
        self, copy: list[Any], step: int, own_state: dict[str, Any], facts: dict[str, Any], protect: int | None
    ) -> Saved:
        """Write in the background what save_state would have written, under the same names."""
        weights, optimizer, scaler = copy
        folder = self._store.staging(step)

        def write() -> None:
            # Only of an OrderedDict does it leave out what tied weights would store twice.
            save(OrderedDict(weights), folder / SAFE_WEIGHTS_NAME, safe_serialization=True)
            save(optimizer, folder / f"{OPTIMIZER_NAME}.bin")
            if scaler is not None:
                save(scaler, folder / SCALER_NAME)

        if problem := _trouble(write):
            self._store.discard(step)
            return Saved(step, self._store.path(step), problem)
        return self._finish(step, own_state, facts, protect)

    def _finish(self, step: int, own_state: dict[str, Any], facts: dict[str, Any], protect: int | None) -> Saved:
        store, path = self._store, self._store.path(step)
        facts = {"processes": self._accelerator.num_processes, **facts}
        if problem := _trouble(lambda: store.commit(step, own_state, facts)):
            store.discard(step)
            return Saved(step, path, problem)
        left = _trouble(lambda: store.rotate(step, protect))
        return Saved(step, path, note=f"older checkpoints could not be removed: {left}" if left else "")

    # ---- together -------------------------------------------------------------------------------------------------

    def _everywhere(self, part: Callable[[], None]) -> str:
        """Do a part of a save on every process; return what went wrong on any of them.

        The processes tell each other: one that gave up alone would leave the others waiting for it.
        """
        return next(filter(None, self._from_all(_trouble(part))), "")

    def _from_all(self, said: T) -> list[T]:
        if self._accelerator.num_processes == 1:
            return [said]
        heard: list[T] = gather_object([said])
        return heard


def _trouble(part: Callable[[], object]) -> str:
    """Return why something could not be written, or nothing; a full disk is each of these, depending on who writes."""
    try:
        part()
    except OSError as error:
        return error.strerror or str(error)  # not its path, which is of a folder that nobody knows
    except (RuntimeError, SafetensorError, CheckpointError) as error:
        return str(error) or type(error).__name__
    return ""


def _tensors(tree: Any) -> Iterable[Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
