"""The ``--help`` of the commands, written from the docstrings of the options."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from accel_trainer.config import RunConfig
from accel_trainer.options import leaves


def print_help(prog: str, description: str) -> None:
    """Print every option with its type, default and meaning."""
    parser = _help_parser(prog, "--config FILE [--section.option VALUE ...]", description)
    parser.add_argument("--config", metavar="FILE", help="YAML file of options; later flags win.")
    parser.add_argument("--print_config", action="store_true", help="Print the resolved options and exit.")
    parser.add_argument("--do_predict", action="store_true", help="Same as --predict.enabled true.")
    _print_options(parser, [f.name for f in dataclasses.fields(RunConfig)])


def print_command_help(prog: str, description: str, sections: Sequence[str]) -> None:
    """Print the help of a command that reads a checkpoint and lets some sections be changed."""
    flags = "--checkpoint FOLDER [...] [--section.option VALUE ...]"
    _print_options(_help_parser(prog, flags, description), sections)


def _help_parser(prog: str, flags: str, description: str) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return ArgumentParser(
        prog=prog,
        usage=f"{prog} {flags}",
        description=description,
        formatter_class=type("Plain", (DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter), {}),
    )


def _print_options(parser: ArgumentParser, sections: Sequence[str]) -> None:
    for section in sections:
        parser.add_class_arguments(_section(section), section)
    whole = {key.rsplit(".", depth)[0] for key, _ in leaves(RunConfig) for depth in range(1, key.count(".") + 1)}
    for action in parser._actions:
        # "--name+ VALUE" would append to a list; lists are given whole here.
        action.option_strings = [flag for flag in action.option_strings if not flag.endswith("+")]
        if action.option_strings and action.option_strings[0].removeprefix("--") in whole:
            action.help = argparse.SUPPRESS  # sections from files of their own: --config does that
    parser.print_help(sys.stdout)


def _section(name: str) -> type:
    return type(getattr(RunConfig(), name))
