"""What has to hold of an interrupted run, at every interruption and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from accel_trainer.checkpoints.checkpoint import STATE
from accel_trainer.checkpoints.manifest import problem
from tests.faults.bench import KEEP_LAST
from tests.helpers.runs import read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.bench import Run


class Watch:
    """Keeps account of a run that is interrupted.

    Args:
        run: the run.
        undisturbed: the run it has to be equal to.
        saves_fail: whether some saves are made to fail. An evaluation whose weights could not be saved is not the best.
    """

    def __init__(self, run: Run, undisturbed: Run, *, saves_fail: bool = False) -> None:
        self._run, self._undisturbed, self._saves_fail = run, undisturbed, saves_fail
        self._verified: set[int] = set()
        self._damaged: set[int] = set()

    def damaged(self, *steps: int) -> None:
        """Take note of checkpoints that were damaged on purpose: nothing is asked of them any more."""
        self._verified -= set(steps)
        self._damaged |= set(steps)

    def interrupted(self) -> None:
        """Check what an interruption left; to be called while no process of the run is alive.

        Every checkpoint verifies and is equal to the undisturbed run's of that step. One that was there at the
        interruption before is still there, or made room for newer ones. Of these ``keep_last`` are there, and the
        best that any of them speaks of. The metrics reach up to the newest one.
        """
        before, now = self._verified, self._whole()
        self._verified = set(now)
        if not now:
            assert not before, f"checkpoints {sorted(before)} were lost"
            return
        newest = max(now)
        assert newest >= max(before, default=0), f"the newest checkpoint was {max(before)}, now it is {newest}"
        assert len(now) >= min(KEEP_LAST, len(before | set(now))), f"of {sorted(before)} only {sorted(now)} is left"
        for gone in before - set(now):
            assert len([step for step in now if step > gone]) >= KEEP_LAST, f"{gone} is gone, left: {sorted(now)}"
        for step in now:
            self._same_state(step)
        for step in sorted(now)[-KEEP_LAST:]:
            best = self._trainer_state(step)["best"]
            assert best is None or best["step"] in now, f"step {step} speaks of a best one that is gone: {best}"
        rows = self._undisturbed_rows(newest - (1 if self._trainer_state(newest)["pending"] else 0))
        metrics = (self._run.folder / "metrics.jsonl").read_bytes()
        assert metrics.startswith(rows), f"metrics.jsonl does not hold what was logged up to step {newest}"

    def finished(self) -> None:
        """Check that the run has ended like the undisturbed one: weights, optimizer, log and result."""
        run, other = self._run.folder, self._undisturbed.folder
        assert (run / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
        now = self._whole()
        assert max(now) == self._undisturbed.newest()
        results, others = (_result(folder) for folder in (run, other))
        assert results == others
        assert results["best"]["step"] in now
        assert len(now) >= KEEP_LAST
        for step in now:
            self._same_state(step)
        assert _equal(load_file(run / "model/model.safetensors"), load_file(other / "model/model.safetensors"))
        assert read(run / "status.json")["status"] == "finished"
        assert self._run.store.leftovers() == []
        names = {path.name for path in run.iterdir()} - {path.name for path in other.iterdir()}
        assert not {name for name in names if not name.startswith((".lock", ".lease."))}, f"left over: {names}"

    def _whole(self) -> dict[int, Path]:
        """Return the checkpoints by step; each has to verify."""
        found = self._run.store.folders()
        troubles = {step: trouble for step, path in found.items() if (trouble := problem(path)) is not None}
        assert not troubles.keys() - self._damaged, f"checkpoints that do not verify: {troubles}"
        return {step: path for step, path in found.items() if step not in troubles}

    def _same_state(self, step: int) -> None:
        """Check that a checkpoint is equal to the undisturbed run's of the same step."""
        one, other = self._run.store.path(step), self._undisturbed.store.path(step)
        if not other.exists():
            return  # a signal has a checkpoint written after any step
        weights = "model.safetensors"
        assert _equal(load_file(one / weights), load_file(other / weights)), f"step {step}: the weights differ"
        assert _equal(_optimizer(one), _optimizer(other)), f"step {step}: the optimizer's state differs"
        mine, theirs = read(one / STATE), read(other / STATE)
        if (mine["trainer"]["stop"] or {}).get("kind") == "preempted":
            mine["trainer"]["stop"] = None
        if self._saves_fail:
            mine["trainer"]["best"] = theirs["trainer"]["best"]
        # An evaluation that was broken off is still to be made: what it will find is not known yet.
        if mine["trainer"]["pending"] is None:
            assert mine == theirs, f"step {step}: the counters differ"

    def _trainer_state(self, step: int) -> dict[str, Any]:
        state: dict[str, Any] = read(self._run.store.path(step) / STATE)["trainer"]
        return state

    def _undisturbed_rows(self, number: int) -> bytes:
        lines = (self._undisturbed.folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        return b"".join(lines[:number])


def _result(run_folder: Path) -> dict[str, Any]:
    """Return all that summary.json says but the name of the run and how long it took."""
    return {name: value for name, value in read(run_folder / "summary.json").items() if name not in ("run", "timings")}


def _optimizer(checkpoint: Path) -> Any:
    return torch.load(checkpoint / "optimizer.bin", weights_only=True)


def _equal(one: Any, other: Any) -> bool:
    """Return whether two trees of tensors and values are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
