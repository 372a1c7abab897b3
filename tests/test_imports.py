"""Who may import whom, and what the first moment of a command must not cost."""

from __future__ import annotations

import ast
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import accel_trainer
from accel_trainer.config import RunConfig
from accel_trainer.options import leaves

ROOT = Path(accel_trainer.__file__).parent
HEAVY = {"torch", "accelerate", "wandb", "datasets", "matplotlib", "transformers", "pandas", "pyarrow", "safetensors"}

# A room is a subpackage or a single module of the package. A subpackage's __main__.py belongs to none: like the single
# modules that are commands, it is an entry point, which may import every room and which nobody imports.
ENTRY_POINTS = {"train", "evaluate", "predict", "report", "doctor"}
ABOVE_TRAINER = {*ENTRY_POINTS, "checks", "command", "hooks", "run", "tracking", "reporting", "terminal"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "options": {"errors"},
    "imports": {"errors"},
    "launching": {"errors"},
    "config": {"errors", "settings", "data"},  # the options of the built-in data; settings for RunConfig.from_yaml
    "yaml_files": {"errors"},
    "help_text": {"options", "config"},
    "settings": {"errors", "options", "config", "yaml_files"},
    "metrics": {"errors"},
    "checkpoints": {"errors", "__init__"},  # a manifest tells the version
    "data": {"errors", "options", "config"},
    "models": {"errors", "options", "imports", "config"},
    "optim": {"errors", "options", "imports", "config"},
    "tasks": {"errors", "config", "data", "models", "metrics"},
    "trainer": {"errors", "config", "data", "models", "metrics", "optim", "checkpoints", "tasks"},
}
WITHOUT_TORCH = ["errors", "options", "imports", "config", "yaml_files", "help_text", "settings", "launching"]


def files_of(room: str) -> list[Path]:
    single = ROOT / f"{room}.py"
    if single.exists():
        return [single]
    return sorted(path for path in (ROOT / room).rglob("*.py") if path.name != "__main__.py")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every module that a file imports, lazily and for types too, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield str(node.module), node.lineno
            # Names may be modules: `from accel_trainer import data`.
            yield from ((f"{node.module}.{name.name}", node.lineno) for name in node.names)


def rooms_imported(room: str) -> Iterator[tuple[str, str]]:
    """Yield the other rooms that a room imports, with the place."""
    for path in files_of(room):
        for module, line in imported(path):
            head, _, rest = module.partition(".")
            other = rest.split(".")[0] or "__init__"
            if head == "accel_trainer" and other != room and files_of(other):
                yield other, f"{path.relative_to(ROOT)}:{line} imports {module}"


def all_rooms() -> list[str]:
    return sorted({path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")})


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    assert files_of(room)
    wrong = [place for other, place in rooms_imported(room) if other not in MAY_IMPORT[room]]
    assert not wrong, "\n".join(wrong)


def test_the_lower_rooms_know_none_of_the_upper_ones():
    for room, others in MAY_IMPORT.items():
        assert not others & ABOVE_TRAINER, room
    assert "trainer" not in set().union(*MAY_IMPORT.values())


def test_nobody_imports_an_entry_point():
    for room in set(all_rooms()) - ENTRY_POINTS:
        wrong = [place for other, place in rooms_imported(room) if other in ENTRY_POINTS]
        assert not wrong, "\n".join(wrong)
    for path in ROOT.rglob("*.py"):
        assert not [module for module, _ in imported(path) if "__main__" in module.split(".")], path


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_options_are_read_without_torch(room):
    for path in files_of(room):
        heavy = [f"{path.name}:{line} imports {name}" for name, line in imported(path) if name.split(".")[0] in HEAVY]
        assert not heavy, "\n".join(heavy)


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), **variables}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".config",
        ".settings",
        ".checks",
        ".launching",
        ".command",
        ".train",
        ".evaluate",
        ".predict",
        ".report",
        ".checkpoints.__main__",
    ],
)
def test_a_command_starts_without_the_slow_imports(module):
    code = f"import sys, accel_trainer{module}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    ended = python("-c", code)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []


def test_help_and_mistakes_need_no_torch():
    """A module of that name that cannot be imported stands in the way."""
    for arguments in (["--help"], ["--print_config"], ["--optimizer.lrr", "1"], ["--optimizer.name", "adamz"]):
        code = (
            "import sys; sys.modules.update(dict.fromkeys(['torch', 'accelerate', 'pandas', 'wandb']))\n"
            f"from accel_trainer.train import main; sys.exit(main({arguments!r}))"
        )
        ended = python("-c", code)
        assert "Traceback" not in ended.stderr
        assert ended.returncode == (2 if len(arguments) == 2 else 0), ended.stderr


def test_help_tells_every_option_of_every_section():
    ended = python("-m", "accel_trainer.train", "--help", COLUMNS="200")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    for section in dataclasses.fields(RunConfig):
        assert f"--{section.name}." in ended.stdout, section.name
    for key, _ in leaves(RunConfig):
        assert f"--{key} " in ended.stdout, key
    for flag in ("--config", "--print_config", "--do_predict", "--help"):
        assert flag in ended.stdout


@pytest.mark.parametrize(("command", "sections"), [("evaluate", ["data", "evaluation"]), ("predict", ["data"])])
def test_the_other_commands_tell_what_may_be_changed(command, sections):
    ended = python("-m", f"accel_trainer.{command}", "--help", "--checkpoint", "x", COLUMNS="200")
    assert ended.returncode == 0, ended.stderr
    assert "--checkpoint FOLDER" in ended.stdout
    told = {key.split(".")[0] for key, _ in leaves(RunConfig) if f"--{key} " in ended.stdout}
    assert told == set(sections)


def test_the_public_names_are_there():
    for name in accel_trainer.__all__:
        assert getattr(accel_trainer, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Trainor'"):
        _ = accel_trainer.Trainor
