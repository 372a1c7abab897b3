"""Feeds a run's numbers to trackers; none of them can stop or bend the training.

``metrics.jsonl`` is the truth. A tracker shows a copy, which it is given in rows, and from the start again when a run
goes on in a new process. A tracker that fails is named once and left alone from then on.
"""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from accel_trainer.errors import ConfigError, nearest
from accel_trainer.tracking.wandb_run import start_wandb, wandb_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

    from accel_trainer.config import TrackingOptions

_PACKAGES = {
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "aim": ("aim",),
    "clearml": ("clearml",),
    "comet_ml": ("comet_ml",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "trackio": ("trackio",),
}
"""Names of Accelerate's trackers, and the packages of which each needs one."""
_RUN_NAME = {"clearml": "task_name", "mlflow": "run_name", "trackio": "name"}
"""What those trackers call the name of a run."""

_log = logging.getLogger(__name__)


def check_trackers(options: TrackingOptions) -> None:
    """Refuse trackers that do not exist or are not installed, in under a millisecond and without importing them.

    Besides Accelerate's own names, those given to ``accelerate.tracking.register_tracker_class`` are known.

    Raises:
        ConfigError: an unknown name, a missing package, or a ``WANDB_MODE`` that is none.
    """
    accelerate_tracking = sys.modules.get("accelerate.tracking")
    registered = set(accelerate_tracking.LOGGER_TYPE_TO_CLASS) - set(_PACKAGES) if accelerate_tracking else set()
    known = [*_PACKAGES, *sorted(registered)]
    for name in options.trackers:
        if name not in known:
            raise ConfigError(
                "tracking.trackers", f"{name!r} is unknown{nearest(name, known)} (known: {', '.join(known)})"
            )
        packages = _PACKAGES.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise ConfigError("tracking.trackers", f"{name!r} is not installed; run: pip install {packages[0]}")
    if "wandb" in options.trackers:
        wandb_mode(options.mode)


class _Tracker(Protocol):
    """What a feed needs of one tracker."""

    name: str
    tracker: GeneralTracker
    notice: str

    def send(self, rows: Iterable[Mapping[str, Any]]) -> None: ...
    def summarise(self, values: Mapping[str, Any]) -> None: ...
    def finish(self, exit_code: int) -> None: ...


class _OtherTracker:
    """Any tracker of Accelerate but W&B, through the interface they share."""

    def __init__(self, name: str, tracker: GeneralTracker, notice: str) -> None:
        self.name, self.tracker, self.notice = name, tracker, notice
        self._step = 0

    def send(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self._step = int(row["step"])
            self.tracker.log({k: v for k, v in row.items() if k != "step"}, step=self._step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        # They have no summary; numbers stand at the last step, and the rest is in summary.json.
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        self.tracker.log(numbers, step=self._step)

    def finish(self, exit_code: int) -> None:
        self.tracker.finish()


class TrackerFeed:
    """Rows of metrics.jsonl on their way to trackers; exists on the main process only.

    Attributes:
        run_id: id of the W&B run, to be kept in checkpoints; what the caller gave when W&B is not among the trackers.
    """

    def __init__(
        self, accelerator: Accelerator, run_id: str | None, trackers: list[_Tracker], notices: list[str]
    ) -> None:
        self.run_id = run_id
        self._accelerator, self._trackers, self._notices = accelerator, trackers, notices

    def send(self, rows: Iterable[Mapping[str, float | int | str | None]]) -> None:
        """Give rows to every tracker.

        Args:
            rows: each with a ``step``, in rising order, and any numbers or texts; a null is left out.
        """
        batch = [{k: v for k, v in row.items() if v is not None} for row in rows]
        self._each(lambda tracker: tracker.send(batch))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Give the run's result to every tracker: W&B's summary, a last row elsewhere."""
        self._each(lambda tracker: tracker.summarise(values))

    def finish(self, exit_code: int = 0) -> None:
        """Close every tracker, within a bounded time; a second call does nothing.

        Args:
            exit_code: what the process will return to the shell.
        """
        self._each(lambda tracker: tracker.finish(exit_code))
        for tracker in list(self._trackers):
            self._drop(tracker)

    def notice(self) -> str | None:
        """Return the line for people: where each tracker writes to, and what to do with it."""
        return "; ".join(self._notices) or None

    def _each(self, action: Callable[[_Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                action(tracker)
            except Exception as error:  # noqa: BLE001 - code of nine libraries that talk to a network
                self._drop(tracker)
                _log.warning(
                    "%s stopped taking numbers (%s); training goes on, and metrics.jsonl has every number",
                    tracker.name,
                    _reason(error),
                )

    def _drop(self, tracker: _Tracker) -> None:
        self._trackers.remove(tracker)
        # Accelerate would close it once more in end_training.
        if tracker.tracker in self._accelerator.trackers:
            self._accelerator.trackers.remove(tracker.tracker)


def open_feed(
    accelerator: Accelerator,
    options: TrackingOptions,
    *,
    run_dir: Path,
    run_name: str,
    run_id: str | None,
    config: dict[str, Any],
    earlier_rows: Iterable[Mapping[str, Any]],
) -> TrackerFeed | None:
    """Start the trackers of a run and give them the rows of its earlier processes.

    They stand in ``accelerator.trackers`` afterwards, so ``accelerator.get_tracker("wandb", unwrap=True)`` works.
    (``accelerator.init_trackers`` itself is not used: it starts all trackers again when one of them has to be.)

    Args:
        accelerator: of the main process.
        options: which trackers, the mode and the project.
        run_dir: folder of the run; local trackers write into it.
        run_name: name to show.
        run_id: id of the W&B run when the run goes on.
        config: options of the run, as the trackers show them.
        earlier_rows: rows of metrics.jsonl so far.

    Returns:
        None when nothing is tracked.

    Raises:
        ConfigError: a tracker that is unknown or not installed. A tracker that is there but does not start is named in
            the notice instead.
    """
    if options.mode == "disabled" or not accelerator.is_main_process:
        return None
    check_trackers(options)
    names = list(dict.fromkeys(options.trackers))
    if "wandb" in names and wandb_mode(options.mode) == "disabled":
        names.remove("wandb")
    if not names:
        return None
    trackers: list[_Tracker] = []
    notices = []
    for name in names:
        try:
            if name == "wandb":
                wandb_run = start_wandb(options, run_dir=run_dir, run_name=run_name, run_id=run_id, config=config)
                run_id = wandb_run.run_id
                trackers.append(wandb_run)
            else:
                trackers.append(_start_other(name, options.project, run_dir, run_name, config))
        except Exception as error:  # noqa: BLE001 - a run is worth more than its charts
            notices.append(f"{name} did not start ({_reason(error)})")
        else:
            notices.append(trackers[-1].notice)
    accelerator.trackers.extend(tracker.tracker for tracker in trackers)
    feed = TrackerFeed(accelerator, run_id, trackers, notices)
    feed.send(earlier_rows)
    return feed


def _start_other(name: str, project: str, run_dir: Path, run_name: str, config: dict[str, Any]) -> _Tracker:
    """Start a tracker; a later process of the run starts a new one and gives it all rows."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    make = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        # One folder for all processes of the run. What they wrote from step 0 on is hidden, because it comes again.
        # Its page of options would need a folder, shown as a run, for each process: config.yaml has them.
        tracker = make("tensorboard", run_dir, purge_step=0)
        tracker.start()
        return _OtherTracker(name, tracker, f"tensorboard --logdir {run_dir / 'tensorboard'}")
    folder = [run_dir] if make.requires_logging_directory else []
    named = {_RUN_NAME[name]: run_name} if name in _RUN_NAME else {}
    tracker = make(project, *folder, **named)
    tracker.start()
    tracker.store_init_configuration(_flat(config))
    return _OtherTracker(name, tracker, f"{name}: project {project}")


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Turn a tree of options into dotted names and plain values, all that these trackers take."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
