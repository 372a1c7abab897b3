"""Configuration files and command-line flags into a :class:`RunConfig`, without importing torch.

Every option is set by the last of: its default, the YAML files of ``--config`` in order, dotted flags. An error
names the file or flag that set the option.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from accel_trainer.config import RunConfig, RunOptions
from accel_trainer.errors import ConfigError, ExitCode, UserError, nearest
from accel_trainer.options import build_options, convert, leaves
from accel_trainer.yaml_files import dump_yaml, load_yaml, read_yaml

ALIASES = {"--do_predict": "--predict.enabled"}
"""Flags known from research code, and the options they stand for; given alone they mean true."""


@dataclass
class Settings:
    """A configuration and where each of its options was set.

    Attributes:
        config: the checked options.
        source: dotted key -> file or flag that set it; options left at their defaults are absent.
        extras: the command's own flags, such as ``--checkpoint``.
        print_only: ``--print_config`` was given.
        help_only: ``--help`` was given.
    """

    config: RunConfig
    source: dict[str, str] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)
    print_only: bool = False
    help_only: bool = False


class SettingsError(UserError):
    """An option that cannot be used, with the file or flag that set it.

    Attributes:
        run_folder: the folder of the run, where that much could be read from the settings.
    """

    def __init__(self, message: str, run_folder: Path | None, exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.run_folder, self.exit_code = run_folder, exit_code


class _Reader:
    """Collects options from files and flags, remembering who set what."""

    def __init__(self, sections: Sequence[str]) -> None:
        self.known = {key: kind for key, kind in leaves(RunConfig) if key.split(".")[0] in sections}
        self.mappings = [key for key, kind in self.known.items() if str(kind).startswith("dict")]
        self.values: dict[str, Any] = {}
        self.source: dict[str, str] = {}

    def file(self, path: Path) -> None:
        self._tree(read_yaml(path), "", str(path))

    def _tree(self, tree: Mapping[Any, Any], prefix: str, source: str) -> None:
        for name, value in tree.items():
            key = f"{prefix}{name}"
            if key in self.known:
                self._set(key, convert_from(source, key, value, self.known[key]), source)
            elif any(known.startswith(f"{key}.") for known in self.known):
                if value is None:
                    continue  # a section with every line commented out
                if not isinstance(value, Mapping):
                    raise ConfigError(key, f"{value!r} is not a section; expected options below {key}: [{source}]")
                self._tree(value, f"{key}.", source)
            else:
                raise ConfigError(key, f"unknown option{self._suggest(key)} [{source}]")

    def flag(self, key: str, text: str) -> None:
        source = f"--{key}"
        if any(known.startswith(f"{key}.") for known in self.known):
            raise ConfigError(key, f"is a section; set one of its options, --{key}.NAME VALUE [command line]")
        if key in self.mappings:
            self._set(key, convert_from("command line", key, self._yaml(key, text), self.known[key]), source)
            return
        if key in self.known:
            self._set(key, convert_from("command line", key, text, self.known[key], from_text=True), source)
            return
        for mapping in self.mappings:
            if key.startswith(f"{mapping}."):
                value = self._yaml(key, text)
                self.values.setdefault(mapping, {})
                # A copy: the mapping may belong to a default or to a file read before.
                self.values[mapping] = {**self.values[mapping], key[len(mapping) + 1 :]: value}
                self.source[key] = source
                return
        raise ConfigError(key, f"unknown option{self._suggest(key)} [command line]")

    @staticmethod
    def _yaml(key: str, text: str) -> Any:
        try:
            return load_yaml(text)
        except yaml.YAMLError:
            raise ConfigError(key, f"{text!r} is not a valid value [command line]") from None

    def _set(self, key: str, value: Any, source: str) -> None:
        if key in self.mappings and isinstance(value, dict):
            for name in value:
                self.source[f"{key}.{name}"] = source
        self.values[key] = value
        self.source[key] = source

    def _suggest(self, key: str) -> str:
        # A wrong section is more likely a slip in one part of the name than a new name altogether.
        last = key.rsplit(".", 1)[-1]
        same_leaf = [known for known in self.known if known.rsplit(".", 1)[-1] == last]
        if same_leaf:
            return f"; did you mean {same_leaf[0]!r}?"
        sections = {known.split(".")[0] for known in self.known}
        if "." not in key:
            return nearest(key, sections) or f"; sections: {', '.join(sorted(sections))}"
        section = key.rsplit(".", 1)[0]
        siblings = [k for k in self.known if k.rsplit(".", 1)[0] == section]
        names = [k.rsplit(".", 1)[1] for k in siblings]
        # The last part decides: whole names of one section always look alike.
        if siblings and not nearest(last, names):
            return f"; {section} has: {', '.join(names)}"
        return nearest(key, siblings or self.known)

    def tree(self) -> dict[str, Any]:
        root: dict[str, Any] = {}
        for key, value in self.values.items():
            *sections, leaf = key.split(".")
            branch = root
            for section in sections:
                branch = branch.setdefault(section, {})
            branch[leaf] = value
        return root


def _run_folder(argv: Sequence[str]) -> Path | None:
    """Return the folder of the run that a wrong command line was meant for, where that much can be read from it."""
    where: dict[str, Any] = {}
    try:
        flags = _flags(argv)
        for name, value in flags:
            if name == "config" and value is not None:
                section = read_yaml(Path(value)).get("run")
                where.update(section if isinstance(section, Mapping) else {})
    except UserError:
        flags = [(word, text) for word, text in pairwise(argv) if word.startswith("--run.")]
        flags = [(word.removeprefix("--"), text) for word, text in flags]
    where.update({name.removeprefix("run."): value for name, value in flags if name in ("run.name", "run.dir")})
    try:
        options = RunOptions(name=where.get("name"), dir=where.get("dir") or "runs")
        return Path(options.dir) / options.name if options.name else None
    except (ConfigError, TypeError):
        return None


def convert_from(source: str, key: str, value: Any, kind: Any, *, from_text: bool = False) -> Any:
    """Convert one option and name its source in the error."""
    try:
        return convert(key, value, kind, from_text=from_text)
    except ConfigError as error:
        raise ConfigError(key, f"{error.problem} [{source}]") from None


def _flags(argv: Sequence[str]) -> list[tuple[str, str | None]]:
    """Cut a command line into (name, value) pairs; the value of a flag alone is None."""
    pairs: list[tuple[str, str | None]] = []
    waiting = list(argv)
    while waiting:
        word = waiting.pop(0)
        if word in ("-h", "--help"):
            pairs.append(("help", None))
            continue
        if not word.startswith("--") or word == "--":
            raise UserError(f"{word!r} is not an option; options are written --section.name value, see --help")
        flag, equals, value = word.partition("=")
        name = ALIASES.get(flag, flag).removeprefix("--")
        if equals:
            pairs.append((name, value))
        elif waiting and not (waiting[0].startswith("--") and len(waiting[0]) > 2 and waiting[0][2].isalpha()):
            pairs.append((name, waiting.pop(0)))
        else:
            pairs.append((name, None))
    return pairs


def read_settings(
    argv: Sequence[str],
    sections: Sequence[str] | None = None,
    own_flags: Sequence[str] = (),
    base: Callable[[dict[str, str]], RunConfig] | None = None,
) -> Settings:
    """Read ``--config`` files and dotted flags.

    Args:
        argv: the command line without the program's name.
        sections: parts of the tree that may be set; all when left out.
        own_flags: further flags of the command, each with a value.
        base: given the command's own flags, returns the configuration that files and flags change; by default all
            options start at their defaults.

    Raises:
        SettingsError: an option is unknown, of the wrong type, out of range or contradicts another.
    """
    reader = _Reader(sections or [f.name for f in dataclasses.fields(RunConfig)])
    settings = Settings(RunConfig())
    try:
        flags = _flags(argv)
        for name, value in flags:
            if name == "config":
                if value is None:
                    raise UserError("--config needs a YAML file, such as --config configs/bhm.yaml")
                reader.file(Path(value))
        for name, value in flags:
            if name in ("help", "print_config"):
                if value is not None:
                    raise UserError(f"--{name} takes no value, but {value!r} was given")
                settings.help_only |= name == "help"
                settings.print_only |= name == "print_config"
            elif name in own_flags:
                if value is None:
                    raise UserError(f"--{name} needs a value")
                settings.extras[name] = value
            elif name != "config":
                takes_flag_alone = reader.known.get(name) is bool
                if value is None and name in reader.known and not takes_flag_alone:
                    raise ConfigError(name, "needs a value [command line]")
                reader.flag(name, "true" if value is None else value)
        if settings.help_only:
            return settings
        start = to_dict(base(settings.extras)) if base else {}
        settings.config = build_options(RunConfig, _merged(start, reader.tree()), "")
    except ConfigError as error:
        # The key of a contradiction may be a section: whoever set a part of it is named.
        sources = [s for key, s in reader.source.items() if key == error.key or key.startswith(f"{error.key}.")]
        named = not sources or error.problem.endswith("]")
        where = "" if named else f" [{', '.join(dict.fromkeys(sources))}]"
        raise SettingsError(f"{error}{where}", _run_folder(argv)) from None
    except UserError as error:
        raise SettingsError(str(error), _run_folder(argv), error.exit_code) from None
    settings.source = reader.source
    return settings


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the options of ``changes``; mappings of a component's options are replaced whole."""
    merged = dict(base)
    for name, value in changes.items():
        inner = merged.get(name)
        if isinstance(value, dict) and isinstance(inner, dict) and name != "options":
            merged[name] = _merged(inner, value)
        else:
            merged[name] = value
    return merged


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return the whole tree as plain mappings, ready for YAML, JSON or a tracker."""
    return dataclasses.asdict(config)


def from_dict(tree: Mapping[str, Any]) -> RunConfig:
    """Return the configuration that :func:`to_dict` made a mapping of."""
    return build_options(RunConfig, tree, "")


def to_yaml(config: RunConfig) -> str:
    """Return the resolved configuration as YAML that ``--config`` reads back unchanged."""
    return dump_yaml(to_dict(config))


def digest(config: RunConfig) -> str:
    """Return eight hexadecimal digits over every option except where the run lives and how it starts."""
    tree = to_dict(config)
    tree["run"] = {"seed": config.run.seed}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def run_name(config: RunConfig) -> str:
    """Return the name of the run's folder: ``run.name``, or one that no other configuration has."""
    if config.run.name is not None:
        return config.run.name
    source = Path(config.data.path or "data").stem or "data"
    model = config.model.name.rsplit(":", 1)[-1]
    return f"{model}-{source}-{config.data.context}x{config.data.horizon}-{digest(config)}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``{"optimizer.lr": 0.001, …}`` for a tree of mappings."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
