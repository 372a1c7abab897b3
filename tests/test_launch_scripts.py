"""launch/slurm.sh in a bash of its own; srun, scancel and scontrol behave as Slurm's, as far as they are used."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.runs import SMALL, alive, checkpoint_steps, environment, family, flags, kill_family, read, wait_until

LAUNCH = Path(__file__).parents[1] / "launch"

SLOW = """
import os, time
from torch import nn


class Slow(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.net = nn.Linear(shape.context, shape.horizon)
        self.targets = shape.targets

    def forward(self, past_values):
        if self.training:
            time.sleep(float(os.environ.get("STEP_TIME", "0")))
        return self.net(past_values.transpose(1, 2)).transpose(1, 2)[..., : self.targets]
"""

# One task on each node. SIGTERM kills what was started, at once.
SRUN = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.helpers.runs import kill_family

words = sys.argv[1:]
options = [word for word in words if word.startswith("--")]
options = options[: next(i for i, word in enumerate(words) if not word.startswith("--"))]
nodes = int(dict(option[2:].split("=") for option in options)["nodes"])
tasks = []


def kill(number, frame):
    for task in tasks:
        kill_family(task.pid)
    sys.exit(143)


signal.signal(signal.SIGTERM, kill)
for node in range(nodes):
    variables = {**os.environ, "SLURM_NODEID": str(node)}
    tasks.append(subprocess.Popen(words[len(options) :], env=variables, start_new_session=True))
Path("tasks").write_text(" ".join(str(task.pid) for task in tasks))
sys.exit(max(task.wait() for task in tasks))
"""

# A signal reaches every process of a step, in whatever session.
SCANCEL = """
import os, signal, sys
from pathlib import Path
from tests.helpers.runs import family

option, job = sys.argv[1:]
assert (option, job) == ("--signal=TERM", os.environ["SLURM_JOB_ID"])
with open("told", "a") as file:
    file.write("once\\n")
for task in Path("tasks").read_text().split():
    for member in family(int(task)):
        os.kill(member, signal.SIGTERM)
"""

SCONTROL = """
import os, sys

if sys.argv[1:] == ["show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]:
    print("localhost\\n" * int(os.environ["SLURM_JOB_NUM_NODES"]), end="")
else:
    assert sys.argv[1:] == ["requeue", "Incomplete", os.environ["SLURM_JOB_ID"]], sys.argv
    with open("requeued", "a") as file:
        file.write("once\\n")
"""


class Cluster:
    """A folder to submit from, and a queue of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "runs" / "bhm"
        self.jobs: list[subprocess.Popen[str]] = []
        (folder / "bin").mkdir()
        for name, text in {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL}.items():
            self.command(name, text)
        (folder / "slow.py").write_text(SLOW)
        (folder / "small.yaml").write_text("data: {path: bhm}\n")
        script = (LAUNCH / "slurm.sh").read_text()
        script = re.sub(r"^config=.*$", "config=small.yaml", script, count=1, flags=re.MULTILINE)
        (folder / "slurm.sh").write_text(script)

    def command(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)

    def start(self, *words: str, nodes: int = 1, **variables: str) -> subprocess.Popen[str]:
        """Give the job its turn."""
        path = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        slurm = {
            "SLURM_JOB_ID": str(os.getpid()),  # the port follows from it
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_JOB_NODELIST": f"node[1-{nodes}]",
            "PYTHONPATH": os.pathsep.join([str(LAUNCH.parent), str(self.folder)]),
            "PATH": os.pathsep.join(path),
        }
        job = subprocess.Popen(
            ["bash", "slurm.sh", *words],
            cwd=self.folder,
            env=environment(**{**slurm, **variables}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.jobs.append(job)
        return job

    def train(self, *more: str, **options: Any) -> subprocess.Popen[str]:
        small = flags({**SMALL, "model.name": "slow:Slow", "checkpoint.every_steps": 5})
        return self.start(*small, *more, **options)

    def end(self, job: subprocess.Popen[str], code: int) -> str:
        """Wait for the job's end; return what it wrote to standard error."""
        _, errors = job.communicate(timeout=120)
        assert job.returncode == code, errors
        return errors

    def count(self, name: str) -> int:
        """How often something was done."""
        path = self.folder / name
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    for job in made.jobs:
        kill_family(job.pid)
        job.wait()


def preempt(cluster: Cluster, job: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal the batch shell alone, once there is a checkpoint, and wait until nothing is left of the job."""
    wait_until(lambda: checkpoint_steps(cluster.run) or job.poll() is not None)
    assert job.poll() is None
    members = family(job.pid)
    job.send_signal(number)
    cluster.end(job, 75)
    assert not any(alive(member) for member in members)
    status = read(cluster.run / "status.json")
    assert (status["status"], status["exit_code"]) == ("preempted", 75)
    assert checkpoint_steps(cluster.run)[-1] == status["step"]
    assert cluster.count("told") == 1


def test_a_job_goes_back_into_the_queue_until_the_run_is_finished(cluster: Cluster) -> None:
    preempt(cluster, cluster.train(STEP_TIME="0.1"), signal.SIGUSR1)
    assert cluster.count("requeued") == 1
    cluster.end(cluster.train(), 0)
    assert read(cluster.run / "status.json")["status"] == "finished"
    assert cluster.count("requeued") == 1


@pytest.mark.slow
def test_a_job_on_two_nodes(cluster: Cluster) -> None:
    preempt(cluster, cluster.train(STEP_TIME="0.1", nodes=2), signal.SIGUSR1)
    assert cluster.count("requeued") == 1
    cluster.end(cluster.train(nodes=2), 0)
    last = checkpoint_steps(cluster.run)[-1]
    assert read(cluster.run / f"checkpoints/step-{last:08d}/manifest.json")["processes"] == 2
    assert cluster.count("requeued") == 1


@pytest.mark.slow
def test_a_job_that_is_to_end_saves_but_does_not_come_back(cluster: Cluster) -> None:
    preempt(cluster, cluster.train(STEP_TIME="0.1"), signal.SIGTERM)
    assert cluster.count("requeued") == 0


@pytest.mark.slow
def test_a_run_whose_time_is_over_goes_back_into_the_queue(cluster: Cluster) -> None:
    cluster.end(cluster.train("--training.max_time", "0.1"), 75)
    assert (cluster.count("told"), cluster.count("requeued")) == (0, 1)


def test_a_failing_run_does_not_come_back(cluster: Cluster) -> None:
    cluster.run.mkdir(parents=True)
    (cluster.run / "status.json").write_text(json.dumps({"status": "preempted", "exit_code": 75}))
    cluster.end(cluster.train("--optimizer.lrr", "1"), 2)
    assert read(cluster.run / "status.json")["status"] == "failed"
    assert cluster.count("requeued") == 0


# Stands for trainers that leave a status, or nothing at all.
SAYS = """
import json, os
from pathlib import Path

status, code = json.loads(os.environ["SAYS"])
if status:
    Path("runs/bhm").mkdir(parents=True, exist_ok=True)
    Path("runs/bhm/status.json").write_text(json.dumps({"status": status, "exit_code": code, "pid": os.getpid()}))
"""


@pytest.mark.parametrize(
    ("status", "code", "leaves", "comes_back"),
    [
        ("preempted", 75, 75, True),
        ("finished", 0, 0, False),
        ("failed", 3, 3, False),
        ("running", None, 1, False),  # killed
        (None, None, 1, False),  # never came so far
    ],
)
def test_what_the_run_says_now_counts_and_not_what_it_said(
    cluster: Cluster, status: str | None, code: int | None, leaves: int, comes_back: bool
) -> None:
    cluster.command("srun", SAYS)
    for earlier in (None, {"status": "preempted", "exit_code": 75}, {"status": "finished", "exit_code": 0}):
        shutil.rmtree(cluster.folder / "runs", ignore_errors=True)
        (cluster.folder / "requeued").unlink(missing_ok=True)
        if earlier is not None:
            cluster.run.mkdir(parents=True)
            (cluster.run / "status.json").write_text(json.dumps(earlier))
        errors = cluster.end(cluster.start(SAYS=json.dumps([status, code])), leaves)
        assert ("slurm.sh:" in errors) == (code is None)
        assert cluster.count("requeued") == comes_back


def test_a_run_that_is_interrupted_for_ever_does_not_come_back(cluster: Cluster) -> None:
    cluster.command("srun", SAYS)
    says = json.dumps(["preempted", 75])
    assert "interrupted 100 times" in cluster.end(cluster.start(SAYS=says, SLURM_RESTART_COUNT="100"), 75)
    assert cluster.count("requeued") == 0


def test_the_scripts_are_sound() -> None:
    for script in LAUNCH.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", str(script)], check=True)


def test_every_way_to_launch_is_in_the_table() -> None:
    said = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.iterdir():
        assert path.name == "README.md" or f"| `{path.name}` |" in said
