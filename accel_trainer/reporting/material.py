"""What the page is made of: the files of a run, whichever of them exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.files import read_json
from accel_trainer.config import RunConfig
from accel_trainer.errors import UserError
from accel_trainer.reporting.words import is_number
from accel_trainer.settings import flatten, from_dict, to_dict
from accel_trainer.yaml_files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from accel_trainer.reporting.examples import Examples
    from accel_trainer.run.folder import RunFolder

_ONLY_PLACES = ("run.name", "run.dir", "run.resume")
"""Options that say where a run lives, not what it is."""


@dataclass(frozen=True, eq=False)
class Material:
    """A run, finished or not.

    Attributes:
        name: of the run.
        place: its folder as the reader's commands name it.
        summary: content of ``summary.json``, or as much of it as is known; a section may be missing.
        rows: of ``metrics.jsonl``.
        examples: forecasts to draw, if any.
        config: its options; None when config.yaml is missing or cannot be read.
        status: content of ``status.json``, or empty.
        remarks: what a reader should know before anything else, one sentence each.
    """

    name: str
    place: Path
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    examples: Examples | None
    config: RunConfig | None
    status: Mapping[str, Any]
    remarks: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return "test" in self.summary

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.summary.get("model") or (self.config.model.name if self.config else "model"))

    @property
    def monitor(self) -> str:
        """The validation metric that decided what was best."""
        if self.config is not None:
            return self.config.early_stopping.monitor
        return str(self.summary.get("early_stopping", {}).get("monitor", "val/mse"))

    @property
    def maximised(self) -> bool:
        """Whether a larger value of that metric is the better one."""
        if self.config is not None:
            return self.config.early_stopping.mode == "max"
        return bool(self.summary.get("early_stopping", {}).get("mode") == "max")

    @property
    def scores(self) -> dict[str, Mapping[str, Any]]:
        """Test scores of the model and, after it, its baselines, by name; empty without a result."""
        return {self.model: self.summary["test"], **self.summary.get("baselines", {})} if self.finished else {}

    @property
    def strongest_baseline(self) -> str | None:
        """The baseline with the lowest test MSE."""
        scored = {name: s["mse"] for name, s in self.summary.get("baselines", {}).items() if is_number(s.get("mse"))}
        return min(scored, key=scored.__getitem__) if scored else None

    @property
    def timed(self) -> bool:
        """Whether rows have times: dates or seconds, not mere numbers."""
        first = str(self.summary.get("data", {}).get("first", ""))
        return "T" in first or "." in first

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows of context and horizon."""
        if "protocol" in self.summary:
            protocol = self.summary["protocol"]
            return int(protocol["context"]), int(protocol["horizon"])
        return (self.config.data.context, self.config.data.horizon) if self.config else None

    @property
    def last_step(self) -> int:
        """The last step that was logged; 0 before the first."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def changed_options(self) -> list[tuple[str, Any, Any]]:
        """Return name, value and default of the options that differ from their defaults."""
        if self.config is None:
            return []
        defaults, chosen = flatten(to_dict(RunConfig())), flatten(to_dict(self.config))
        return [
            (name, value, defaults.get(name))
            for name, value in chosen.items()
            if value != defaults.get(name) and name not in _ONLY_PLACES
        ]


def collect(
    folder: RunFolder,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    examples: Examples | None,
    remarks: Sequence[str] = (),
) -> Material:
    """Read what else the folder holds; a file that is missing or damaged becomes a remark."""
    said = list(remarks)
    config = None
    try:
        config = from_dict(read_yaml(folder.config))
    except UserError as error:
        said.append(f"The options of the run cannot be shown: {error}")
    status: dict[str, Any] = {}
    if folder.status.exists():
        try:
            status = dict(read_json(folder.status))
        except (OSError, ValueError, TypeError) as error:
            said.append(f"{folder.status.name} cannot be read: {error}")
    # Resolved, so that a report on "." has the run's name.
    return Material(folder.path.resolve().name, folder.path, summary, rows, examples, config, status, tuple(said))
