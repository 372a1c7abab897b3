"""See, verify and thin out the checkpoints of a run: ``python -m accel_trainer.checkpoints list runs/bhm``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from accel_trainer.checkpoints.files import finite
from accel_trainer.checkpoints.manifest import problem
from accel_trainer.checkpoints.store import Store
from accel_trainer.command import Outcome, leave, run_command
from accel_trainer.errors import CheckpointError, ConfigError, ExitCode, UserError, nearest
from accel_trainer.options import convert
from accel_trainer.report import run_folder
from accel_trainer.run.checkpoint_tools import best_checkpoint, list_checkpoints, list_others, prune, size_of
from accel_trainer.run.folder import RunFolder
from accel_trainer.terminal import Terminal, figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accel_trainer.run.checkpoint_tools import Listed, Others

_PROGRAM = "python -m accel_trainer.checkpoints"
_COMMANDS = {
    "list": "show the checkpoints, oldest first, and what lies beside them; large files are not read",
    "verify": "read every byte of every checkpoint; exit code 4 if one is damaged or there is none",
    "best": "print the path of the best checkpoint, and nothing else; exit code 4 if there is none",
    "prune": "remove all but the newest and the best checkpoint, and what killed processes left",
}
_FLAGS = {"list": " [--json]", "prune": " [--keep_last N] [--dry_run]"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv

    def body(_: Outcome) -> ExitCode:
        options = _read(arguments)
        if options is None:
            return ExitCode.OK
        folder = run_folder(_run_path(Path(options.run)))
        try:
            if options.command == "list":
                return _list(folder, as_json=options.json)
            if options.command == "verify":
                return _verify(folder)
            if options.command == "best":
                return _best(folder)
            return _prune(folder, options.keep_last, dry_run=options.dry_run)
        except PermissionError as error:
            raise UserError(f"{folder.path}: cannot be read: {error}") from None

    return run_command(body)


# ---- the command line ------------------------------------------------------------------------------------------------


def _read(arguments: Sequence[str]) -> argparse.Namespace | None:
    """Return what was asked for; None when help was, and was printed.

    Raises:
        UserError: a command, option or value that is missing or unknown.
    """
    parser = _Parser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} COMMAND RUN [...]",
        add_help=False,
        description="See, verify and thin out the checkpoints of a run.",
    )
    parser.add_argument("-h", "--help", action="store_true", help="print this and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    parsers = {"": parser}
    for name, text in _COMMANDS.items():
        usage = f"{_PROGRAM} {name} RUN{_FLAGS.get(name, '')}"
        about = f"{text[0].upper()}{text[1:]}."
        one = commands.add_parser(name, usage=usage, help=text, description=about, add_help=False)
        one.add_argument(
            "run", metavar="RUN", nargs="?", help="folder of the run, such as runs/bhm, or its checkpoints folder"
        )
        one.add_argument("-h", "--help", action="store_true", help="print this and exit")
        parsers[name] = one
    parsers["list"].add_argument("--json", action="store_true", help="print it for programs")
    parsers["prune"].add_argument(
        "--keep_last", metavar="N", type=_count, default=1, help="newest checkpoints to keep; default 1"
    )
    parsers["prune"].add_argument(
        "--dry_run", metavar="true|false", nargs="?", type=_boolean, const=True, default=False, help="only show it"
    )
    words = _with_values(arguments)
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in _COMMANDS:
        raise UserError(f"{command!r} is none of {', '.join(_COMMANDS)}{nearest(command, _COMMANDS)}")
    options, unknown = parser.parse_known_args(words)
    chosen = parsers[options.command or ""]
    if options.help:
        chosen.print_help()
        return None
    if unknown:
        known = [flag for action in chosen._actions for flag in action.option_strings]
        chosen.error(f"{unknown[0]!r} is unknown{nearest(unknown[0].partition('=')[0], known)}")
    if options.command is None:
        parser.error(f"a command is missing: {', '.join(_COMMANDS)}")
    if options.run is None:
        chosen.error("the run's folder is missing, such as runs/bhm")
    return options


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Give a flag that may stand alone its value, so that the word after it is not taken for one."""
    return [
        f"{word}=true" if word == "--dry_run" and after.lower() not in ("true", "false") else word
        for word, after in pairwise([*arguments, ""])
    ]


def _count(text: str) -> int:
    value = convert("keep_last", text, int, from_text=True)
    if value < 1:
        raise ConfigError("keep_last", f"{text} is not allowed; expected 1 or more")
    return int(value)


def _boolean(text: str) -> bool:
    return bool(convert("dry_run", text, bool, from_text=True))


def _run_path(path: Path) -> Path:
    """Return the run that a path stands for: itself, or what its checkpoints folder lies in."""
    inside = path.resolve()
    if inside.name != "checkpoints" or (path / "checkpoints").is_dir() or not path.is_dir():
        return path
    return path.parent if path.name == inside.name else inside.parent


# ---- the commands ----------------------------------------------------------------------------------------------------


def _list(folder: RunFolder, *, as_json: bool) -> ExitCode:
    store = Store(folder.checkpoints)
    checkpoints, others = list_checkpoints(store), list_others(store)
    if as_json:
        print(json.dumps(_for_programs(folder, checkpoints, others), indent=2, ensure_ascii=False))
        return ExitCode.OK
    terminal = Terminal()
    if checkpoints:
        columns = ["checkpoint", "step", "epoch", "metric", "written", "size", "processes", ""]
        terminal.table(str(store.root), columns, [_row(checkpoint) for checkpoint in checkpoints])
    else:
        terminal.say(f"{store.root}: no checkpoints")
    for checkpoint in checkpoints:
        if checkpoint.trouble is not None:
            terminal.say(f"damaged: {checkpoint.path.name}: {checkpoint.trouble}")
    for what, paths in (
        ("half written or half removed", others.leftovers),
        ("set aside", others.set_aside),
        ("no checkpoint", others.foreign),
    ):
        for path in paths:
            terminal.say(f"{what}: {path.name} ({_amount(size_of(path))})")
    if checkpoints:
        terminal.say(f"sizes and manifests were looked at; {_PROGRAM} verify {folder.path} reads every byte")
    return ExitCode.OK


def _row(checkpoint: Listed) -> list[Any]:
    metric, epoch = checkpoint.metric, checkpoint.epoch
    marks = {"damaged": checkpoint.trouble is not None, "newest": checkpoint.newest, "best": checkpoint.best}
    return [
        checkpoint.path.name,
        checkpoint.step,
        "–" if epoch is None else f"{epoch:.2f}",
        "–" if metric is None else f"{metric[0]} {figure(metric[1])}",
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checkpoint.time)),
        _amount(checkpoint.size),
        checkpoint.processes,
        ", ".join(mark for mark, holds in marks.items() if holds),
    ]


def _for_programs(folder: RunFolder, checkpoints: Sequence[Listed], others: Others) -> Any:
    def plain(paths: Sequence[Path]) -> list[dict[str, Any]]:
        return [{"path": str(path), "bytes": size_of(path)} for path in paths]

    return finite(
        {
            "run": str(folder.path),
            "checkpoints": [
                {
                    "path": str(each.path),
                    "step": each.step,
                    "epoch": each.epoch,
                    "metric": None if each.metric is None else {"name": each.metric[0], "value": each.metric[1]},
                    "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(each.time)),
                    "bytes": each.size,
                    "processes": each.processes,
                    "newest": each.newest,
                    "best": each.best,
                    "problem": each.trouble,
                }
                for each in checkpoints
            ],
            "leftovers": plain(others.leftovers),
            "set_aside": plain(others.set_aside),
            "foreign": plain(others.foreign),
        }
    )


def _verify(folder: RunFolder) -> ExitCode:
    store, terminal = Store(folder.checkpoints), Terminal()
    found = sorted(store.folders().items())
    if not found:
        raise CheckpointError(f"{store.root}: no checkpoints")
    damaged = 0
    for _, path in found:
        trouble = problem(path)
        damaged += trouble is not None
        terminal.say(f"{path}: {trouble or 'ok'}")
    return ExitCode.CHECKPOINT if damaged else ExitCode.OK


def _best(folder: RunFolder) -> ExitCode:
    print(best_checkpoint(Store(folder.checkpoints)).path)
    return ExitCode.OK


def _prune(folder: RunFolder, keep_last: int, *, dry_run: bool) -> ExitCode:
    terminal = Terminal()
    if not dry_run:
        folder.lock()
    try:
        pruning = prune(folder, keep_last, dry_run=dry_run)
    finally:
        folder.unlock()
    for path in pruning.kept:
        terminal.say(f"kept: {path}")
    for path, why in pruning.left.items():
        terminal.say(f"left alone, {why}: {path}")
    for path, size in pruning.removed.items():
        terminal.say(f"{'would be removed' if dry_run else 'removed'}: {path} ({_amount(size)})")
    terminal.say(f"{_amount(sum(pruning.removed.values()))} {'would be freed' if dry_run else 'freed'}")
    return ExitCode.OK


def _amount(size: int) -> str:
    """Return bytes as people say them."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


if __name__ == "__main__":
    leave(main())
