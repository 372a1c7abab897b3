"""What a run says to people: one line at a time, tables where they help, a bar only in a real terminal."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Terminal:
    """Standard output of the main process; silent on all others.

    Args:
        enabled: False on every process but the main one.

    Attributes:
        interactive: whether a person is watching: a bar is drawn, tables are coloured.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a unit that a terminal cannot show must not end a run
        # Into a file or a pipe lines keep their whole length: a wrapped line cannot be searched for.
        self.console = Console(quiet=not enabled, highlight=False, width=None if sys.stdout.isatty() else 200)
        self.interactive = enabled and self.console.is_terminal

    def say(self, line: str) -> None:
        """Print one line as it is: brackets and colours in names are text."""
        self.console.print(Text(line), soft_wrap=True)
        self.console.file.flush()

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table; the first column is text, the others are numbers."""
        table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if number == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell if isinstance(cell, str) else figure(cell)) for cell in row))
        self.console.print(table)


def figure(value: float | None) -> str:
    """Return a number as people compare them: four significant digits; a dash when there is none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def results_table(terminal: Terminal, title: str, model: str, test: dict[str, Any], baselines: dict[str, Any]) -> None:
    """Print a model's errors above those of its baselines, in z units."""
    names = ("mse", "mae", "rmse", "r2")
    rows = [[name, *(scores.get(key) for key in names)] for name, scores in {model: test, **baselines}.items()]
    terminal.table(title, ["", "MSE", "MAE", "RMSE", "R2"], rows)


def sensors_table(terminal: Terminal, test: dict[str, Any], most: int = 12) -> None:
    """Print the errors of each sensor, the worst of them when there are many."""
    entries = [entry for entry in test["per_sensor"] if "physical" in entry]
    # An error that is no number, null in a summary that was read back, is the worst of all.
    entries.sort(key=lambda entry: -math.inf if entry["mse"] is None else -float(entry["mse"]))
    shown = entries[:most]
    title = "Sensors" if len(shown) == len(entries) else f"The {most} hardest of {len(entries)} sensors"
    rows = [
        [e["sensor"], e["unit"] or "–", e["mse"], e["physical"]["mae"], e["physical"]["rmse"], e.get("r2")]
        for e in shown
    ]
    terminal.table(title, ["sensor", "unit", "MSE (z)", "MAE (unit)", "RMSE (unit)", "R2"], rows)
