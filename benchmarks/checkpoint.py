"""What a checkpoint costs a training: `python benchmarks/checkpoint.py [--parameters 50] [--rounds 7] [--folder DIR]`.

A model with Adam's state is saved in several ways, one after the other in every round, and each is timed as the
training thread feels it. Printed are medians over the rounds, with the least and the largest, and two ratios that are
promised: asynchronous saving over one copy of the state in memory, and over `save_state` with fsync.

While an asynchronous save is written behind training, the writer takes processor time and memory bandwidth from the
steps. The last table tells how much: steps are timed alone and while a save is under way.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from accelerate import Accelerator
from torch import nn

from accel_trainer.checkpoints.files import sync_tree
from accel_trainer.checkpoints.rotation import Keep
from accel_trainer.checkpoints.store import Store
from accel_trainer.checkpoints.writer import Saved, Writer

WIDTH = 2048


class Subject:
    """A model that has taken a step, so that its optimizer has a state, and the ways to save it."""

    def __init__(self, millions: float, folder: Path) -> None:
        layers = max(1, round(millions * 1e6 / (WIDTH * WIDTH)))
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.batch = torch.randn(8, WIDTH, device=self.accelerator.device)
        self.folder = folder
        self.step()
        self.number = 0
        self.waiting = self.writer("waiting", behind=False)
        self.behind = self.writer("behind", behind=True)
        self.buffers = [torch.empty_like(tensor, device="cpu") for tensor in self.tensors()]

    def writer(self, name: str, *, behind: bool) -> Writer:
        store = Store(self.folder / name, Keep(last=1))
        return Writer(store, self.accelerator, self.model, self.optimizer, behind=behind)

    def tensors(self) -> list[torch.Tensor]:
        states = self.optimizer.state_dict()["state"].values()
        return [*self.model.state_dict().values(), *(t for state in states for t in state.values())]

    def step(self) -> None:
        self.accelerator.backward(self.model(self.batch).square().mean())
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    def memcpy(self) -> None:
        for buffer, tensor in zip(self.buffers, self.tensors(), strict=True):
            buffer.copy_(tensor)

    def torch_save(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.folder / "torch.pt")

    def save_state(self) -> None:
        self.accelerator.save_state(str(self.folder / "save_state"))
        sync_tree(self.folder / "save_state")

    def save_waiting(self) -> None:
        self.number += 1
        self._told(self.waiting.save(self.number, {}))

    def save_behind(self) -> None:
        self.number += 1
        self._told(self.behind.save(self.number, {}))

    def settle(self) -> None:
        self._told(self.behind.settle())

    @staticmethod
    def _told(outcome: Saved | None) -> None:
        assert outcome is None or not outcome.problem, outcome


def timed(action: Callable[[], None]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def figures(values: list[float]) -> str:
    return f"{statistics.median(values):8.3f} s   {min(values):7.3f} to {max(values):.3f}"


def saves(subject: Subject, rounds: int) -> dict[str, list[float]]:
    ways: dict[str, Callable[[], None]] = {
        "memcpy of the state": subject.memcpy,
        "torch.save, no fsync": subject.torch_save,
        "accelerator.save_state + fsync": subject.save_state,
        "checkpoint, training waits": subject.save_waiting,
        "checkpoint, asynchronous": subject.save_behind,
    }
    print(f"first asynchronous save, which allocates its buffers: {timed(subject.save_behind):.3f} s\n")
    subject.settle()
    for way in ways.values():  # the first time of everything is another matter
        way()
    subject.settle()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            os.sync()  # nobody pays for what another left in the cache
            times[name].append(timed(way))
            subject.settle()
    print("time the training thread waits, median   least to largest")
    for name, values in times.items():
        print(f"  {name:32} {figures(values)}")
    return times


def steps(subject: Subject, rounds: int) -> None:
    alone, along, stolen = [], [], []
    for _ in range(rounds):
        quiet = [timed(subject.step) for _ in range(3)]
        alone += quiet
        subject.save_behind()
        busy = []
        while not subject.behind.news:
            busy.append(timed(subject.step))
        subject.settle()
        along += busy
        stolen.append(sum(busy) - len(busy) * statistics.median(quiet))
    print("\na training step, median                  least to largest")
    print(f"  {'alone':32} {figures(alone)}")
    print(f"  {'while a save is written behind':32} {figures(along)}")
    print(f"  {'lost to the writer, per save':32} {figures(stolen)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=50, help="millions")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the system's temporary folder")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        subject = Subject(options.parameters, folder)
        size = sum(t.numel() * t.element_size() for t in subject.tensors())
        threads = torch.get_num_threads()
        print(f"{size / 1e6:.0f} MB of weights and Adam state on {subject.accelerator.device}, {threads} CPU threads")
        times = saves(subject, options.rounds)
        ours = statistics.median(times["checkpoint, asynchronous"])
        for name, limit in (("memcpy of the state", 1.5), ("accelerator.save_state + fsync", 0.15)):
            print(f"asynchronous / {name}: {ours / statistics.median(times[name]):.2f} (promised: at most {limit})")
        steps(subject, max(1, options.rounds // 2))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
