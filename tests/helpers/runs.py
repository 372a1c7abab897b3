"""Real runs in real processes, small enough for a test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PYTHON = [sys.executable, "-m"]
TWO_PROCESSES = ["accelerate", "launch", "--multi_gpu", "--num_processes", "2", "-m"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"]

SMALL = {
    "data.path": "bhm",
    "data.bhm.days": "12",
    "data.bhm.sensors": "5",
    "data.context": "48",
    "data.horizon": "12",
    "training.epochs": "2",
    "training.batch_size": "32",
    "optimizer.lr": "1e-3",
    "tracking.mode": "disabled",
}
"""A run of about 60 steps."""


def environment(**more: str) -> dict[str, str]:
    """The environment of a machine without a launcher's or a tracker's variables."""
    foreign = ("ACCELERATE_", "WANDB_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**clean, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **more}


def flags(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def command(
    where: Path, name: str, launcher: Sequence[str] = PYTHON, module: str = "accel_trainer.train", **options: Any
) -> list[str]:
    """The command of a small run; option names may use __ for dots."""
    given = {key.replace("__", "."): value for key, value in options.items()}
    return [*launcher, module, *flags({**SMALL, "run.dir": where, "run.name": name, **given})]


def run(
    words: Sequence[str], cwd: Path | None = None, code: int | None = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    if code is not None:
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def rows(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def checkpoint_steps(run_folder: Path) -> list[int]:
    found = (run_folder / "checkpoints").glob("step-*/manifest.json")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


def kill_after_checkpoint(words: Sequence[str], run_folder: Path, step: int, wait: float = 0.0) -> int:
    """Start a run and SIGKILL it with all its processes once a checkpoint of ``step`` or later is there.

    Returns the newest checkpoint at that moment.
    """
    process = subprocess.Popen(
        words, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    try:
        while (checkpoint_steps(run_folder) or [0])[-1] < step:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.002)
        time.sleep(wait)
    finally:
        kill_family(process.pid)
        process.wait()
    return checkpoint_steps(run_folder)[-1]


def kill_family(pid: int) -> None:
    """SIGKILL a process and all its descendants; launchers put their workers into sessions of their own."""
    for child in children(pid):
        kill_family(child)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    return [pid, *(member for child in children(pid) for member in family(child))]


def alive(pid: int) -> bool:
    """Whether a process does anything yet; one that nobody has asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(happened: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def assert_same_run(first: Path, second: Path) -> None:
    """Two run folders hold the same numbers and, to the last bit, the same weights."""
    import torch
    from safetensors.torch import load_file

    assert (first / "metrics.jsonl").read_text() == (second / "metrics.jsonl").read_text()
    last = checkpoint_steps(first)[-1]
    assert checkpoint_steps(second)[-1] == last
    for name in (f"checkpoints/step-{last:08d}/model.safetensors", "model/model.safetensors"):
        one, other = load_file(first / name), load_file(second / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert read(first / "summary.json")["test"] == read(second / "summary.json")["test"]
