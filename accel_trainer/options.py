"""Plain mappings into typed option records, with errors that name the option, the value and what is allowed.

jsonargparse does the conversion of each value; this file gives it one option at a time, so that an error can say
which one it was, and turns its report into a sentence.
"""

from __future__ import annotations

import dataclasses
import re
import types
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from accel_trainer.errors import ConfigError, nearest

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def expected(annotation: Any) -> str:
    """Describe a type annotation the way a person would."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(str(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(expected(argument) for argument in arguments)
    if origin in (list, tuple):
        inner = expected(arguments[0]) if arguments else "values"
        return f"a list in brackets, of {inner.removeprefix('a ')}s" if inner.startswith("a ") else "a list"
    if origin is dict or annotation is dict or dataclasses.is_dataclass(annotation):
        return "a mapping of names to values"
    return _WORDS.get(annotation, str(annotation))


def leaves(record: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, type) of every option of a record and of the records in it."""
    for name, annotation in get_type_hints(record).items():
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, annotation


@cache
def _parser(annotation: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("--value", type=annotation)
    return parser


def convert(key: str, value: Any, annotation: Any, *, from_text: bool = False) -> Any:
    """Return ``value`` as the annotated type.

    Args:
        key: dotted name of the option, for the error.
        value: what YAML or Python gave, or the text of a command-line flag.
        annotation: type of the option.
        from_text: ``value`` is a flag's text, to be read as YAML would unless the option is a text itself.

    Raises:
        ConfigError: it is of another type, or not one of the allowed names.
    """
    arguments = get_args(annotation)
    if value is None and annotation is not Any and type(None) not in arguments:
        raise ConfigError(key, f"null is not allowed; expected {expected(annotation)}")
    # jsonargparse would read what these hold as YAML once more: a text "null" as nothing, "a: b" as a mapping.
    is_text = annotation is str or set(arguments) == {str, type(None)}
    if isinstance(value, str) and is_text:
        return None if from_text and value == "null" and arguments else value
    if annotation == dict[str, Any] and isinstance(value, Mapping):
        return dict(value)
    try:
        if from_text:
            return _parser(annotation).parse_args([f"--value={value}"])["value"]
        return _parser(annotation).parse_object({"value": value})["value"]
    except ArgumentError:
        allowed = expected(annotation)
        hint = ""
        if get_origin(annotation) is Literal:
            hint = nearest(str(value), [str(choice) for choice in arguments])
        elif allowed.startswith("a list") and isinstance(value, str) and not value.startswith("["):
            hint = f"; write [{value}]"
        elif is_text:
            hint = "; put it in quotes"
        elif annotation == list[str]:
            hint = "; put each of them in quotes"
        elif float in (annotation, *arguments) and re.fullmatch(r"[\d.]+ *[a-zA-Zµ]+", str(value)):
            hint = "; write the number alone, --help states its unit"
        raise ConfigError(key, f"{value!r} is not allowed; expected {allowed}{hint}") from None


def build_options(record: type[T], values: Mapping[str, Any], key: str) -> T:
    """Make an option record from a mapping.

    Args:
        record: a dataclass; its fields may be dataclasses themselves.
        values: what the user gave; options left out keep their defaults.
        key: dotted name of the mapping, ``""`` at the root of the tree.

    Raises:
        ConfigError: an unknown option, a wrong type, or a value the record refuses.
    """
    hints = get_type_hints(record)
    prefix = f"{key}." if key else ""
    if not isinstance(values, Mapping):
        raise ConfigError(key, f"{values!r} is not a mapping of names to values")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{prefix}{name}"
        if name not in hints:
            raise ConfigError(where, f"unknown option{nearest(str(name), hints)} (known: {', '.join(hints)})")
        if isinstance(hints[name], type) and dataclasses.is_dataclass(hints[name]):
            arguments[name] = build_options(hints[name], value, where)
        else:
            arguments[name] = convert(where, value, hints[name])
    return record(**arguments)
