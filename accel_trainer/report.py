"""Write a run's page again, or one picture of it: ``python -m accel_trainer.report runs/bhm [--figure FILE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from accel_trainer.command import Outcome, leave, run_command
from accel_trainer.errors import ExitCode, UserError, nearest
from accel_trainer.run.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accel_trainer.reporting.examples import Examples
    from accel_trainer.run.forecast_data import ForecastData

_ON_A_PICTURE = 4
"""Sensors of --figure."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m accel_trainer.report --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def body(_: Outcome) -> ExitCode:
        parser = _Parser(
            prog="python -m accel_trainer.report",
            add_help=False,
            description="Write a run's report.html from what its folder holds, also while it trains or after a crash.",
        )
        parser.add_argument("run", nargs="?", help="folder of the run, such as runs/bhm")
        parser.add_argument(
            "--figure",
            metavar="FILE",
            help="write one picture of a few forecasts (.png, .svg, .pdf) instead of the page",
        )
        parser.add_argument("--trust", metavar="MODULE:CLASS", help="load a model of your own; its code runs")
        parser.add_argument("-h", "--help", action="store_true", help="print this and exit")
        options = parser.parse_args(sys.argv[1:] if argv is None else argv)
        if options.help:
            parser.print_help()
            return ExitCode.OK
        if options.run is None:
            parser.error("the run's folder is missing, such as runs/bhm")
        folder = run_folder(Path(options.run))
        figure, trust = options.figure, options.trust
        print(f"written: {write_figure(folder, Path(figure), trust) if figure else write_page(folder, trust)}")
        return ExitCode.OK

    return run_command(body)


def run_folder(path: Path) -> RunFolder:
    """Return the run in a folder.

    Raises:
        UserError: there is no such folder, or it holds no run.
    """
    if not path.is_dir():
        beside = [str(entry) for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such folder{nearest(str(path), beside)}")
    folder = RunFolder(path)
    if not folder.has_run() and not folder.status.exists():
        inside = [str(entry) for entry in sorted(path.iterdir()) if entry.is_dir() and RunFolder(entry).has_run()]
        hint = f"; there are {', '.join(inside[:8])}" if inside else ""
        raise UserError(f"{path}: holds no run, which would have config.yaml and metrics.jsonl{hint}")
    return folder


def write_page(folder: RunFolder, trust: str | None = None) -> Path:
    """Write ``report.html`` and return its path; what keeps the pictures from being drawn is said on the page.

    Raises:
        UserError: the page cannot be written, or a file that it is made of is damaged.
    """
    from accel_trainer.hooks.metrics_file import read_rows
    from accel_trainer.reporting.page import write_report

    examples, remarks = None, []
    try:
        summary: dict[str, Any] = folder.read_summary() or {}
        rows = read_rows(folder.metrics)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.path}: summary.json or metrics.jsonl cannot be read: {error}") from None
    try:
        examples, data = forecast_again(folder, 6, trust)
        trained_on = summary.setdefault("data", data.facts())["digest"]
        if trained_on != data.table.digest:
            remarks.append(
                f"{data.options.path} no longer holds the rows of this run; the forecasts show it as it is now."
            )
    except UserError as error:
        remarks.append(f"There are no pictures of forecasts: {error}")
    return write_report(folder, summary, rows, examples, remarks)


def write_figure(folder: RunFolder, target: Path, trust: str | None = None) -> Path:
    """Write one picture of a few forecasts and return its path.

    Raises:
        UserError: there are no weights or no data to forecast with, or the file cannot be written.
    """
    from accel_trainer.reporting.figures import write_forecast_picture

    examples, _ = forecast_again(folder, _ON_A_PICTURE, trust)
    write_forecast_picture(target, examples)
    return target


def forecast_again(folder: RunFolder, sensors: int, trust: str | None = None) -> tuple[Examples, ForecastData]:
    """Forecast the end of the test rows with the best weights of a run.

    Raises:
        UserError: there are no weights, or the data cannot be read any more.
    """
    from accel_trainer.checks import check_path
    from accel_trainer.reporting.examples import example_forecasts
    from accel_trainer.run.trained import Trained
    from accel_trainer.tasks.forecasting import ForecastingTask

    trained = Trained.from_pretrained(folder.path)
    check_path(trained.config.data.path)
    data = trained.read_data(trained.config.data)
    task = ForecastingTask(model := trained.load_model(trust), trained.shape)
    _, _, test = data.windows(time_features=task.wants_time_features)
    return example_forecasts(model, task, data, test, sensors), data


if __name__ == "__main__":
    leave(main())
