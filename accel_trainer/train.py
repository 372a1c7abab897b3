"""Train, test and write down a run: ``accelerate launch -m accel_trainer.train --config configs/bhm.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.checks import check_config
from accel_trainer.command import Outcome, command_began, leave, run_command
from accel_trainer.errors import ExitCode
from accel_trainer.help_text import print_help
from accel_trainer.launching import check_launch, rank
from accel_trainer.run.folder import RunFolder
from accel_trainer.settings import read_settings, run_name, to_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accel_trainer.config import RunConfig

_DESCRIPTION = "Train a forecaster on sensor data, test it against baselines and leave a run folder."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (see :class:`accel_trainer.errors.ExitCode`)."""
    arguments = sys.argv[1:] if argv is None else argv

    def body(outcome: Outcome) -> ExitCode:
        settings = read_settings(arguments)
        if settings.help_only:
            print_help("python -m accel_trainer.train", _DESCRIPTION)
            return ExitCode.OK
        if settings.print_only:
            if rank() == 0:
                print(to_yaml(settings.config), end="")
            return ExitCode.OK
        return train(settings.config, outcome)

    return run_command(body)


def train(config: RunConfig, outcome: Outcome | None = None) -> ExitCode:
    """Do a whole run in this process, as one of as many processes as were launched.

    Raises:
        UserError: options, data, launch or run folder do not fit.
    """
    folder = RunFolder(Path(config.run.dir) / run_name(config))
    if outcome is not None:
        outcome.folder = folder
    check_launch(config.run.expect_processes)
    check_config(config)
    # Only the main process writes, and it locks before the slow imports, so that a second start hears of it at once.
    notes = []
    if rank() == 0:
        folder.lock()
        if config.run.resume == "never" and folder.has_run():
            notes = [f"the earlier run was set aside in {folder.set_aside()}"]
            folder.unlock()
            folder.lock()
    from accel_trainer.run.session import Session

    try:
        session = Session(config, folder, notes, began=command_began())
        if outcome is not None:
            outcome.follows = not session.main
        return session.run()
    finally:
        if outcome is None:
            folder.unlock()


if __name__ == "__main__":
    leave(main())
