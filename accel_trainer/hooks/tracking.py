"""Feeds a tracker from the same rows that metrics.jsonl holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accel_trainer.hooks.metrics_file import iterate_rows
from accel_trainer.tracking.feed import open_feed
from accel_trainer.trainer.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from accel_trainer.config import TrackingOptions
    from accel_trainer.tracking.feed import TrackerFeed
    from accel_trainer.trainer.hooks import Request, Row
    from accel_trainer.trainer.loop import Trainer


class Tracking(Hook):
    """Opens the trackers on the main process when training starts; stands after the metrics file among the hooks.

    Args:
        options: which trackers, and where to.
        metrics: the file of :class:`~accel_trainer.hooks.metrics_file.MetricsFile`, in the run's folder.
        config: the resolved configuration, as the tracker shows it.
        say: prints one line for people.
    """

    name = "tracking"

    def __init__(
        self, options: TrackingOptions, metrics: Path, config: dict[str, Any], say: Callable[[str], None]
    ) -> None:
        self._options, self._metrics, self._config, self._say = options, metrics, config, say
        self._feed: TrackerFeed | None = None

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Open the trackers and give them the rows of earlier starts of this run."""
        if not trainer.accelerator.is_main_process:
            return None
        self._feed = open_feed(
            trainer.accelerator,
            self._options,
            run_dir=self._metrics.parent,
            run_name=self._metrics.parent.name,
            run_id=trainer.state.tracker_run_id,
            config=self._config,
            earlier_rows=iterate_rows(self._metrics),
        )
        if self._feed is not None:
            trainer.state.tracker_run_id = self._feed.run_id
            if notice := self._feed.notice():
                self._say(notice)
        return None

    def on_rows(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        """Send finished rows."""
        if self._feed is not None:
            self._feed.send(rows)

    def summarise(self, values: dict[str, Any]) -> None:
        """Send the result of the run."""
        if self._feed is not None:
            self._feed.summarise(values)

    def finish(self, exit_code: int) -> None:
        """Close the trackers; outlives training, because the test comes after it."""
        if self._feed is not None:
            self._feed.finish(exit_code)
            self._feed = None
