"""Forecast the rows after the end of the data: ``python -m accel_trainer.predict --checkpoint runs/bhm``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.checks import check_fixed, check_path
from accel_trainer.command import Outcome, leave, run_command
from accel_trainer.errors import ExitCode, UserError
from accel_trainer.evaluate import configuration_of
from accel_trainer.help_text import print_command_help
from accel_trainer.launching import rank
from accel_trainer.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accel_trainer.run.trained import Trained
    from accel_trainer.settings import Settings

_HELP = """Forecast the rows that follow the last row of the data, in physical units.

  --checkpoint FOLDER   a run (its best weights), a checkpoint or an exported model folder
  --out FOLDER          where forecast.parquet and forecast.csv go; by default predictions/ of the run, and for
                        one of its checkpoints predictions/step-…
  --trust MODULE:CLASS  load a model of your own; its code runs"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv

    def body(_: Outcome) -> ExitCode:
        settings = read_settings(arguments, ("data",), ("checkpoint", "out", "trust"), base=configuration_of)
        if settings.help_only:
            print_command_help("python -m accel_trainer.predict", _HELP, ("data",))
            return ExitCode.OK
        check_fixed(settings.source)
        check_path(settings.config.data.path)
        if "out" in settings.extras and Path(settings.extras["out"]).is_file():
            raise UserError(f"--out {settings.extras['out']}: is a file; a folder is written")
        if rank() == 0:  # one forecast, however many processes were started
            predict(settings)
        return ExitCode.OK

    return run_command(body)


def predict(settings: Settings) -> list[Path]:
    """Write the forecast of a checkpoint; return the files' paths.

    Raises:
        UserError: checkpoint and data do not fit together, or the folder cannot be written.
    """
    from accel_trainer.run.prediction import coarsest, forecast_table, write_forecast
    from accel_trainer.run.trained import Trained
    from accel_trainer.tasks.forecasting import ForecastingTask
    from accel_trainer.terminal import Terminal

    terminal = Terminal()
    trained = Trained.from_pretrained(settings.extras["checkpoint"])
    terminal.say(f"weights: {trained.folder}")
    model = trained.load_model(settings.extras.get("trust"))
    data = trained.read_data(settings.config.data, "cpu", whole=True)
    for note in data.table.notes:
        terminal.say(f"data: {note}")
    table = forecast_table(model, ForecastingTask(model, trained.shape), data)
    paths = write_forecast(table, _target(settings, trained))
    rows, horizon = len(data.table), data.options.horizon
    first, last = coarsest(data.table.clock.labels(rows, rows + horizon))[[0, -1]]
    terminal.say(f"forecast of {data.targets} sensors from {first} to {last} ({horizon} rows): {paths[0]}, {paths[1]}")
    return paths


def _target(settings: Settings, trained: Trained) -> Path:
    if "out" in settings.extras:
        return Path(settings.extras["out"])
    predictions = trained.run_folder / "predictions"
    # The forecast of one checkpoint out of many must not take the place of the run's own.
    chosen = Path(settings.extras["checkpoint"]).resolve() == trained.folder.resolve()
    return predictions / trained.folder.name if chosen and trained.folder.parent.name == "checkpoints" else predictions


if __name__ == "__main__":
    leave(main())
