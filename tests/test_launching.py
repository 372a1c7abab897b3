"""Launches by the real launchers, and the variants of their command lines by a stand-in that starts as fast as `sh`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel_trainer.errors import LaunchError
from accel_trainer.launching import (
    check_launch,
    check_processes,
    local_rank,
    micro_batches_from_environment,
    rank,
    world_size,
)

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES")

# Prints one JSON line: what the checks said, and which of them, on every process that gets to run.
PROBE = """
import json, os, sys
from accel_trainer import launching
from accel_trainer.errors import LaunchError

expect = int(os.environ["EXPECT"]) if "EXPECT" in os.environ else None
said = {"check": "launch", "refused": None, "world": launching.world_size(), "rank": launching.rank()}
try:
    launching.check_launch(expect)
    assert "torch" not in sys.modules
    if "--join" in sys.argv:
        from accelerate import PartialState
        state = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU") == "true")
        said |= {"check": "processes", "joined": state.num_processes}
        launching.check_processes(state.num_processes, expect)
        state.destroy_process_group()
except LaunchError as error:
    said["refused"] = str(error)
os.write(1, (json.dumps(said) + "\\n").encode())
"""

# Starts what follows its options as `accelerate launch` starts one process: as its own child, arguments unchanged.
STAND_IN = """
import subprocess, sys
words = sys.argv[1:]
start = next(i for i, word in enumerate(words) if word.endswith(("probe", "probe.py", "tool.py")))
module = words[start - 1] in ("-m", "--module")
sys.exit(subprocess.call([sys.executable, *(["-m"] if module else []), *words[start:]]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "tool.py").write_text(
        "import subprocess, sys\nsubprocess.call([sys.executable, '-m', 'probe', *sys.argv[1:]])\n"
    )
    for name in ("accelerate", "accelerate-launch"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN)
    return tmp_path


def start(command: str, folder: Path, **variables: str) -> list[dict[str, Any]]:
    """Run a command line in a folder; return what each process of the probe said."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), str(folder)])
    # An empty list of visible devices makes every machine one without GPUs.
    environment |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf"), "CUDA_VISIBLE_DEVICES": "", **variables}
    words = shlex.split(command)
    while "=" in words[0]:  # a variable before the command, as a shell takes it
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr
    return lines


def imitate(options: str, folder: Path, **variables: str) -> dict[str, Any]:
    """Start one process with a launcher's command line, through the stand-in."""
    (said,) = start(f"{sys.executable} bin/{options}", folder, **variables)
    return said


def suggested(said: dict[str, Any]) -> str:
    """Return the command that the refusal offers for several processes."""
    line = next(line for line in said["refused"].splitlines() if line.startswith("  for "))
    return line.split(": ", 1)[1]


def test_cpu_launch_that_starts_one_process_is_refused_and_the_offered_command_works(folder: Path) -> None:
    (said,) = start("accelerate launch --cpu --num_processes 2 -m probe --join 'a b'", folder)
    assert said["check"] == "launch"
    assert "asked for 2 processes but started one" in said["refused"]
    command = suggested(said)
    assert command == ("ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m probe --join 'a b'")
    assert "for one process: python -m probe --join 'a b'" in said["refused"]
    both = start(command, folder)
    assert [(s["refused"], s["world"], s["joined"]) for s in both] == [(None, 2, 2)] * 2
    assert {s["rank"] for s in both} == {0, 1}


@pytest.mark.slow
def test_processes_that_never_meet_are_refused_and_the_offered_command_works(folder: Path) -> None:
    for launch in (
        "accelerate launch --multi_gpu --num_processes 2 -m probe --join",
        "torchrun --nproc-per-node=2 probe.py --join",
    ):
        both = start(launch, folder)
        assert [s["check"] for s in both] == ["processes"] * 2
        assert all("each would train the whole run by itself" in s["refused"] for s in both)
        command = suggested(both[0])
        assert command.startswith(f"ACCELERATE_USE_CPU=true {launch.split()[0]}")
        assert [(s["refused"], s["joined"]) for s in start(command, folder)] == [(None, 2)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("default", [True, False])
def test_number_in_a_configuration_file_counts(folder: Path, default: bool) -> None:
    path = folder / ("hf/accelerate/default_config.yaml" if default else "cpu.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nmixed_precision: 'no'\n"
        "num_machines: 1\nnum_processes: 2\nuse_cpu: true\ndebug: false\n"
    )
    (said,) = start(f"accelerate launch {'' if default else '--config_file cpu.yaml'} probe.py --join", folder)
    assert "asked for 2 processes" in said["refused"]
    command = suggested(said)
    assert default or "--config_file cpu.yaml" in command
    assert [(s["refused"], s["joined"]) for s in start(command, folder)] == [(None, 2)] * 2


@pytest.mark.parametrize(
    "options",
    [
        "accelerate launch --num_processes 3 -m probe",
        "accelerate launch --num-processes=3 --cpu probe.py --lr 1",
        "accelerate launch --cpu --mixed_precision bf16 --num_processes=3 --module probe --num_processes 1",
        "accelerate-launch --num_processes 3 probe.py",
        "accelerate launch --num_machines 3 --machine_rank 0 --cpu --num-processes 3 -m probe",
    ],
)
def test_every_spelling_of_the_number_is_read(folder: Path, options: str) -> None:
    said = imitate(options, folder)
    assert "asked for 3 processes" in said["refused"]
    command = shlex.split(suggested(said))
    assert command[:6] == [*("ACCELERATE_USE_CPU=true", "accelerate", "launch", "--multi_gpu", "--num_processes"), "3"]
    assert "--cpu" not in command
    tail = shlex.split(options)
    assert command[-1] == tail[-1]
    assert ("--mixed_precision" in tail) == ("--mixed_precision" in command)


@pytest.mark.parametrize(
    "options",
    [
        "accelerate launch -m probe",
        "accelerate launch --num_processes 1 probe.py",
        "accelerate launch --cpu probe.py --num_processes 2",  # the probe's own option
        "accelerate launch --cpu --num_processes 2 tool.py --x",  # the launched tool starts us: its affair
        "accelerate launch --config_file gone.yaml probe.py",
        "accelerate config --num_processes 2 probe.py",
    ],
)
def test_no_false_alarm(folder: Path, options: str) -> None:
    assert imitate(options, folder)["refused"] is None


def test_default_configuration_is_not_read_where_accelerate_would_not(folder: Path) -> None:
    path = folder / "hf/accelerate/default_config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("num_processes: 2\n")
    assert "asked for 2" in imitate("accelerate launch probe.py", folder)["refused"]
    assert imitate("accelerate launch --cpu probe.py", folder)["refused"] is None
    assert imitate("accelerate launch --num_processes 1 probe.py", folder)["refused"] is None


def test_other_number_than_expected_is_refused(folder: Path) -> None:
    (said,) = start(f"{sys.executable} -m probe x", folder, EXPECT="2")
    assert said["refused"].startswith("run.expect_processes is 2 but 1 was started")
    assert suggested(said).endswith("accelerate launch --multi_gpu --num_processes 2 -m probe x")
    (said,) = start(f"{sys.executable} probe.py", folder, EXPECT="1")
    assert said["refused"] is None
    (said,) = start(f"{sys.executable} probe.py", folder, EXPECT="1", WORLD_SIZE="2", RANK="1")
    assert said["refused"] == ("run.expect_processes is 1 but 2 were started\n  for one process: python probe.py")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*NAMES, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_launcher_there_is_one_process(plain: pytest.MonkeyPatch) -> None:
    assert (rank(), local_rank(), world_size(), micro_batches_from_environment()) == (0, 0, 1, None)
    check_launch(None)
    check_processes(1, 1)
    check_processes(8, None)  # Accelerate may know more than the environment, as on TPUs


def test_numbers_of_torch_and_mpi_are_read(plain: pytest.MonkeyPatch) -> None:
    for name, value in {"PMI_RANK": "9", "OMPI_COMM_WORLD_SIZE": "12", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}.items():
        plain.setenv(name, value)
    plain.setenv("LOCAL_RANK", "-1")
    assert (rank(), local_rank(), world_size()) == (9, 1, 12)
    plain.setenv("RANK", "3")
    assert rank() == 3


@given(value=st.text(st.characters(exclude_characters="\0", codec="utf-8")).filter(lambda t: not t.isdecimal()))
def test_nonsense_names_variable_and_value(value: str) -> None:
    if value == "-1":
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", value)
        with pytest.raises(LaunchError, match="WORLD_SIZE is ") as caught:
            world_size()
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "0"), ("RANK", "-2"), ("LOCAL_RANK", "")])
def test_numbers_out_of_range_are_refused(plain: pytest.MonkeyPatch, name: str, value: str) -> None:
    plain.setenv(name, value)
    with pytest.raises(LaunchError, match=name):
        rank(), local_rank(), world_size()


def test_rank_outside_the_world_is_refused(plain: pytest.MonkeyPatch) -> None:
    plain.setenv("RANK", "2")
    plain.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="ranks run from 0 to 1"):
        check_launch(None)


def test_micro_batches_asked_of_accelerate(plain: pytest.MonkeyPatch) -> None:
    plain.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert micro_batches_from_environment() == 4
    plain.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "auto")
    with pytest.raises(LaunchError, match="ACCELERATE_GRADIENT_ACCUMULATION_STEPS"):
        micro_batches_from_environment()


# Says what it is told, and what ends it. With "late", its launcher ends in the moment it is found.
CHILD = """
import os, signal, sys, time
from accel_trainer import launching


def say(text):
    os.write(1, f"{text}\\n".encode())


def told(number, frame):
    say(f"told {signal.Signals(number).name}")
    os._exit(0)


signal.signal(signal.SIGTERM, told)
parent, find = os.getppid(), launching._launcher
if "late" in sys.argv:

    def find_late():
        launcher = find()
        os.kill(parent, signal.SIGKILL)
        while os.getppid() == parent:
            time.sleep(0.01)
        return launcher

    launching._launcher = find_late
launching.end_with_launcher()
say("ready")
while os.getppid() == parent:
    time.sleep(0.01)
time.sleep(0.5)
say("alone")
"""


def lines_after_the_parents_end(words: list[str], folder: Path, kill: bool = True) -> list[str]:
    """Start a parent of the child above, end it by SIGKILL once the child is ready, and return what the child said."""
    (folder / "probe.py").write_text(CHILD)
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(folder)])
    parent = subprocess.Popen(
        words, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    said = []
    if kill:
        said.append(parent.stdout.readline())
        parent.kill()
    parent.wait(timeout=30)
    said.append(parent.stdout.read())  # to the end: the child holds the other end of the pipe
    return "".join(said).split("\n")[:-1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
@pytest.mark.parametrize("launch", ["accelerate launch -m probe", "accelerate-launch probe.py --x 1"])
def test_a_process_ends_with_its_launcher(folder: Path, launch: str) -> None:
    words = [sys.executable, *shlex.split(f"bin/{launch}")]
    assert lines_after_the_parents_end(words, folder) == ["ready", "told SIGTERM"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_a_launcher_that_ends_too_early_to_be_told_of(folder: Path) -> None:
    words = [sys.executable, "bin/accelerate", "launch", "-m", "probe", "late"]
    assert lines_after_the_parents_end(words, folder, kill=False) == ["told SIGTERM"]


@pytest.mark.parametrize(
    "parent",
    [
        "sh -c '{python} -m probe; true'",
        "sh -c '{python} -m probe & wait'",
        "nohup sh -c '{python} -m probe; true'",
    ],
)
def test_a_process_outlives_any_other_parent(folder: Path, parent: str) -> None:
    words = shlex.split(parent.format(python=sys.executable))
    assert lines_after_the_parents_end(words, folder) == ["ready", "alone"]
