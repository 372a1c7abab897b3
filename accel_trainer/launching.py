"""How this process was started, and whether that trains what was asked for.

Two launches go wrong without a word. ``accelerate launch --cpu --num_processes 2`` starts one process, because only
``--multi_gpu`` makes it start several. ``accelerate launch --multi_gpu --num_processes 2`` on a machine without GPUs
starts two processes that never meet: each trains the whole run, in the same folder. Both are refused here, with the
command that does what was meant.

A launcher also stands between its processes and whoever wants to end them. ``accelerate launch`` of one process dies of
SIGTERM and its process trains on, an orphan; ``torchrun`` passes SIGTERM on but dies of SIGUSR1. So the processes ask
the system to be told of their launcher's end.

Nothing here imports torch: a wrong launch is refused before two seconds of imports.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.errors import LaunchError

# The names torch's launchers use come first, then those of mpirun, in the order in which Accelerate reads them.
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
_WORLD_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

_ACCELERATE = ("accelerate-launch", "accelerate.commands.launch")
_ACCELERATE_WITH_COMMAND = ("accelerate", "accelerate.commands.accelerate_cli")
_TORCHRUN = ("torchrun", "torch.distributed.run")

_CPU = "ACCELERATE_USE_CPU"

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def rank() -> int:
    """Return this process's number among all processes, 0 without a launcher.

    Raises:
        LaunchError: the environment holds something else than a number.
    """
    return _number(_RANK, 0, least=0)


def local_rank() -> int:
    """Return this process's number among those of its machine, 0 without a launcher.

    Raises:
        LaunchError: the environment holds something else than a number.
    """
    return _number(_LOCAL_RANK, 0, least=0)


def world_size() -> int:
    """Return how many processes were started over all machines, 1 without a launcher.

    Raises:
        LaunchError: the environment holds something else than a number above 0.
    """
    return _number(_WORLD_SIZE, 1, least=1)


def micro_batches_from_environment() -> int | None:
    """Return the number of micro-batches per step that was asked of Accelerate, or None when it is one.

    Raises:
        LaunchError: ``ACCELERATE_GRADIENT_ACCUMULATION_STEPS`` is not a number above 0.
    """
    count = _number(("ACCELERATE_GRADIENT_ACCUMULATION_STEPS",), 1, least=1)
    return count if count > 1 else None


def check_launch(expect_processes: int | None) -> None:
    """Refuse a launch that started another number of processes than it was asked for.

    The number asked for stands only in the launcher's command line or configuration file; a child's environment does
    not tell. It is read from ``/proc``, so on other systems than Linux only ``expect_processes`` is checked.

    Args:
        expect_processes: the option ``run.expect_processes``.

    Raises:
        LaunchError: the numbers differ, or the environment makes no sense.
    """
    started = world_size()
    if rank() >= started:
        raise LaunchError(f"RANK is {rank()} but WORLD_SIZE is {started}: ranks run from 0 to {started - 1}")
    launcher = _launcher()
    asked = launcher.processes_asked() if launcher else None
    # More than one process means that torch's elastic agent started them, and it starts what it is asked for.
    if asked is not None and asked > started == 1:
        raise LaunchError(
            f"accelerate launch was asked for {asked} processes but started one: it starts several only with "
            f"--multi_gpu, on CPUs too{_command(asked, launcher)}{_command(1, launcher)}"
        )
    _check_expected(started, expect_processes, launcher)


def check_processes(num_processes: int, expect_processes: int | None) -> None:
    """Refuse processes that were started together but did not find each other.

    Args:
        num_processes: processes that Accelerate joined, ``PartialState().num_processes``.
        expect_processes: the option ``run.expect_processes``.

    Raises:
        LaunchError: each process would train the whole run by itself, or the number is not the expected one.
    """
    started, launcher = world_size(), _launcher()
    if started > num_processes:
        raise LaunchError(
            f"{started} processes were started but each would train the whole run by itself: without a GPU Accelerate "
            f"joins them only when {_CPU}=true{_command(started, launcher, on_cpu=True)}{_command(1, launcher)}"
        )
    _check_expected(num_processes, expect_processes, launcher)


def end_with_launcher() -> None:
    """Have SIGTERM sent to this process when the launcher that started it ends, however that ends.

    Any other parent does not count: a shell, nohup or a scheduler's step may end before a run. Only Linux offers this;
    elsewhere nothing happens. To be called on the main thread, once SIGTERM is handled: it may come at once.

    Linux looks at the thread that started this process rather than at its process. Both launchers start theirs from the
    main thread, which lives as long as they do.
    """
    parent = os.getppid()
    if sys.platform != "linux" or _launcher() is None:
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0) != 0:
        problem = os.strerror(ctypes.get_errno())
        print(f"this process will not end with its launcher: prctl: {problem}", file=sys.stderr)
    elif os.getppid() != parent:
        signal.raise_signal(signal.SIGTERM)  # the launcher ended just before it was asked for


def _check_expected(started: int, expected: int | None, launcher: _Launcher | None) -> None:
    if expected is not None and started != expected:
        raise LaunchError(
            f"run.expect_processes is {expected} but {started} {'was' if started == 1 else 'were'} started"
            f"{_command(expected, launcher)}"
        )


def _number(names: tuple[str, ...], default: int, least: int) -> int:
    for name in names:
        text = os.environ.get(name)
        if text is None or text == "-1":  # -1: what older launchers set for "not distributed"
            continue
        if not text.isdecimal() or int(text) < least:
            raise LaunchError(f"the environment variable {name} is {text!r}; expected a whole number from {least} on")
        return int(text)
    return default


@dataclass(frozen=True)
class _Launcher:
    """The launcher that started this process: ``accelerate launch`` or ``torchrun``, and its options as typed."""

    command: tuple[str, ...]
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """Return the value of ``--name value`` or ``--name=value``, with hyphens or underscores."""
        for index, word in enumerate(self.options):
            flag, equals, value = word.partition("=")
            if flag.startswith("--") and flag[2:].replace("-", "_") == name:
                return value if equals else "".join(self.options[index + 1 : index + 2])
        return None

    def without(self, flags: tuple[str, ...], valued: tuple[str, ...] = ()) -> list[str]:
        """Return the options less some flags and some options that take a value."""
        kept, skip = [], False
        for word in self.options:
            flag, equals, _ = word.partition("=")
            name = flag.lstrip("-").replace("-", "_") if flag.startswith("-") else None
            if skip or name in flags or name in valued:
                skip = not skip and name in valued and not equals
            else:
                kept.append(word)
        return kept

    def processes_asked(self) -> int | None:
        """Return the number of processes over all machines that accelerate launch was asked for, if it was."""
        if self.command[0] != "accelerate":
            return None
        asked: object = self.option("num_processes")
        if asked is None and (path := self._config_file()) is not None:
            asked = _read_yaml(path).get("num_processes")
        return int(str(asked)) if str(asked).isdecimal() else None

    def _config_file(self) -> Path | None:
        """Return the configuration file that accelerate launch takes its defaults from."""
        if named := self.option("config_file"):
            return Path(named)
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
        default = Path(os.environ.get("HF_HOME", cache)).expanduser() / "accelerate" / "default_config.yaml"
        return default if default.is_file() and self.option("cpu") is None else None


def _launcher() -> _Launcher | None:
    """Return the launcher that started exactly this process, or None.

    Launchers start their children themselves, so only the parent is looked at, and its command line has to end with
    this process's own program and arguments: a tool that a launched script starts is nobody's rank.
    """
    try:
        words = os.fsdecode(Path(f"/proc/{os.getppid()}/cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return None
    program, arguments = _program()[-1], sys.argv[1:]
    end = len(words) - len(arguments) - 1
    if end < 1 or words[end + 1 :] != arguments or Path(words[end]).name != Path(program).name:
        return None
    for index, word in enumerate(words[:end]):
        name = Path(word).name
        if name in _ACCELERATE:
            return _Launcher(("accelerate", "launch"), tuple(words[index + 1 : end]))
        if name in _ACCELERATE_WITH_COMMAND and words[index + 1] == "launch":
            return _Launcher(("accelerate", "launch"), tuple(words[index + 2 : end]))
        if name in _TORCHRUN:
            return _Launcher(("torchrun",), tuple(words[index + 1 : end]))
    return None


def _program() -> list[str]:
    """Return ``["-m", module]`` or ``[script]``, as it was given to Python."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ["-m", spec.name.removesuffix(".__main__")] if spec is not None else [sys.argv[0]]


def _command(processes: int, launcher: _Launcher | None, *, on_cpu: bool | None = None) -> str:
    """Return the line that says how to start that many processes over all machines."""
    program = [*_program(), *sys.argv[1:]]
    if processes == 1:
        return f"\n  for one process: {shlex.join(['python', *program])}"
    if launcher is not None and launcher.command == ("torchrun",):
        here = _number(("LOCAL_WORLD_SIZE",), world_size(), least=1)
        count = ["--nproc_per_node", str(max(processes * here // world_size(), 1))]
        command = [*launcher.command, *count, *launcher.without(("m", "module"), ("nproc_per_node",))]
    else:
        typed = launcher.without(("cpu", "multi_gpu", "m", "module"), ("num_processes",)) if launcher else []
        command = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(processes), *typed]
    if on_cpu is None:
        on_cpu = _on_cpu(processes, launcher)
    prefix = f"{_CPU}=true " if on_cpu else ""
    return f"\n  for {processes} processes: {prefix}{shlex.join([*command, *program])}"


def _on_cpu(processes: int, launcher: _Launcher | None) -> bool:
    """Guess, without torch, whether that many processes have to run on CPUs: it was asked for, or GPUs are missing."""
    if os.environ.get(_CPU, "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return True
    if launcher is not None and launcher.option("cpu") is not None:
        return True
    if Path("/dev/kfd").exists():  # AMD; how many is not told there
        return False
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    nvidia = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return processes > (nvidia if visible is None else min(nvidia, len([d for d in visible.split(",") if d])))


def _read_yaml(path: Path) -> dict[str, object]:
    """Return a configuration of Accelerate; JSON is YAML too. A file that is gone asks for nothing."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return content if isinstance(content, dict) else {}
