"""One run in Weights & Biases, however many processes it takes to train it.

W&B keeps a step counter of its own that cannot go back; a run that goes on from a checkpoint would lose rows to it.
So it is never used: every row carries ``global_step``, and all charts are drawn over that.

Online, a later process resumes the run on the server and leaves out the rows the server already has. Offline, W&B
cannot resume; each process writes a folder of its own, a segment. The segment therefore starts with all earlier rows:
the newest one alone is the whole run, and earlier ones are set aside. (What was uploaded before that is appended to:
its rows then stand there twice, with equal values at equal steps.)

Measured (wandb 0.31, two cores): import 0.38 s, offline start 0.25–0.45 s, online start 0.2–0.3 s against a server on
the same machine, 0.11 ms a row (so 11 s for the 100,000 rows of a long run that goes on), offline finish under 10 ms.
W&B's system metrics cost 0.1 s of CPU time a minute together with everything else its service does, so they stay on.
"""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import shlex
import shutil
import string
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from accel_trainer.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from accelerate.tracking import GeneralTracker

    from accel_trainer.config import TrackingOptions

INIT_SECONDS = 30.0
"""Longest wait for the server at the start, before the run is kept offline; WANDB_INIT_TIMEOUT overrides it."""
FINISH_SECONDS = 20.0
"""Longest wait for uploads at the end; WANDB_FINISH_TIMEOUT overrides it. torchrun kills 30 s after SIGTERM."""

_MODES = {"run": "online", "shared": "online", "dryrun": "offline"}  # W&B's other names for its modes
_PUBLIC_HOSTS = {"api.wandb.ai", "api.forge.coreweave.com"}  # two addresses of the public server, one key

_log = logging.getLogger(__name__)


def wandb_mode(option: str) -> str:
    """Return auto, online, offline or disabled: the option, or under auto what ``WANDB_MODE`` says.

    Raises:
        ConfigError: ``WANDB_MODE`` is followed but is none of W&B's modes.
    """
    if option != "auto":
        return option
    wanted = os.environ.get("WANDB_MODE", "").lower()
    wanted = _MODES.get(wanted, wanted) or "auto"
    if wanted not in ("auto", "online", "offline", "disabled"):
        problem = f"auto follows WANDB_MODE, which is {wanted!r}; expected online, offline or disabled"
        raise ConfigError("tracking.mode", problem)
    return wanted


class WandbRun:
    """A W&B run that is being written to.

    Attributes:
        run_id: id of the run, the same in every process that trains it.
        tracker: Accelerate's tracker; ``tracker.tracker`` is the ``wandb.Run``.
        notice: the line for people: mode and where to look or what to upload.
    """

    name = "wandb"

    def __init__(self, tracker: GeneralTracker, notice: str, folder: Path) -> None:
        self.tracker, self.notice, self._folder = tracker, notice, folder
        self._run: Any = tracker.tracker
        self.run_id: str = self._run.id
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")
        # What the server already has; an offline run has nothing.
        held = self._run.summary.get("global_step")
        self._held_step = held if isinstance(held, int | float) else -1

    def send(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log rows; those at or below the highest step the server had at the start are left out."""
        for row in rows:
            if row["step"] > self._held_step:
                self._run.log({"global_step": row["step"]} | {k: v for k, v in row.items() if k != "step"})

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set values of the run's summary, which its table of runs shows."""
        self._run.summary.update(dict(values))

    def finish(self, exit_code: int) -> None:
        """End the run; W&B shows exit code 0 as finished, a preempted run as preempted, others as failed."""
        if exit_code == ExitCode.PREEMPTED:
            self._run.mark_preempting()
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            _log.warning("W&B: not everything was uploaded in time; the rest: %s", _sync_command(self._folder))


def start_wandb(
    options: TrackingOptions, *, run_dir: Path, run_name: str, run_id: str | None, config: dict[str, Any]
) -> WandbRun:
    """Start or go on with a run; without a key or a server that answers, offline.

    Never asks a question. Files go to ``<run_dir>/wandb``.

    Args:
        options: mode and project.
        run_dir: folder of the run.
        run_name: name to show.
        run_id: id of the run if it has one; else it is taken from an earlier start in the same folder, or made up.
        config: options to show.

    Raises:
        wandb.Error: not even an offline run could be started.
        OSError: the folder cannot be written to.
    """
    import wandb

    # Before anything else is set up: otherwise W&B announces which files it takes its settings and its key from.
    settings = wandb.setup(wandb.Settings(silent=True)).settings
    run_id = run_id or os.environ.get("WANDB_RUN_ID") or _id_of_earlier_start(run_dir) or _new_id()
    mode, why = wandb_mode(options.mode), ""
    if mode in ("auto", "online") and not _has_key(settings):
        why = " (no key found; `wandb login` stores one)"
        mode = "offline"
    run_dir.mkdir(parents=True, exist_ok=True)
    start = partial(_start, project=options.project, run_dir=run_dir, run_name=run_name, run_id=run_id)
    before = _segments(run_dir)
    if mode != "offline":
        try:
            tracker = start("online")
        except (wandb.Error, OSError) as error:
            why = f" ({_one_line(error)})"
            _clear_failed_start(_segments(run_dir) - before)
        else:
            return _opened(tracker, config, f"W&B online: {tracker.tracker.url}", run_dir)
    # Without this W&B reports usage to its server even from offline runs.
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    tracker = start("offline")
    _set_aside(before, run_dir)
    command = _sync_command(_folder_of(tracker, run_dir))
    return _opened(tracker, config, f"W&B offline{why}; to upload the whole run: {command}", run_dir)


def _start(mode: str, *, project: str, run_dir: Path, run_name: str, run_id: str) -> GeneralTracker:
    """Start Accelerate's W&B tracker."""
    import wandb
    from accelerate.tracking import WandBTracker

    settings = wandb.Settings(
        silent=True,
        console="off",  # the terminal is not W&B's to copy
        disable_git=True,
        disable_code=True,
        save_code=False,
        init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_SECONDS)),
        finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_SECONDS)),
        finish_timeout_raises=True,
    )
    tracker = WandBTracker(
        project,
        mode=mode,
        dir=str(run_dir.resolve()),
        id=run_id,
        name=run_name,
        resume="allow" if mode == "online" else None,
        # Another run of this process is neither ended nor mistaken for ours.
        reinit="create_new" if wandb.run is not None else "default",
        settings=settings,
    )
    tracker.start()
    return tracker


def _opened(tracker: GeneralTracker, config: dict[str, Any], notice: str, run_dir: Path) -> WandbRun:
    tracker.tracker.config.update(config, allow_val_change=True)
    return WandbRun(tracker, notice, _folder_of(tracker, run_dir))


def _has_key(settings: Any) -> bool:
    """Tell whether W&B would find a key: in the environment, its settings files or netrc."""
    if settings.api_key or settings.identity_token_file:
        return True
    hosts = {urlsplit(settings.base_url).netloc}
    if hosts & _PUBLIC_HOSTS:
        hosts |= _PUBLIC_HOSTS
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            entries = netrc.netrc(Path(path).expanduser())
        except (OSError, netrc.NetrcParseError):
            continue
        if any((entry := entries.authenticators(host)) and entry[2] for host in hosts):
            return True
    return False


def _clear_failed_start(segments: set[Path]) -> None:
    """Undo what a start that failed leaves behind: the id is taken in W&B's service, and there is an empty segment."""
    import wandb

    if wandb.run is None:  # else it would end another run of this process
        wandb.teardown()
        wandb.setup(wandb.Settings(silent=True))
    for segment in segments:
        shutil.rmtree(segment, ignore_errors=True)


def _set_aside(segments: set[Path], run_dir: Path) -> None:
    """Move earlier offline segments to ``wandb/earlier``, so that a bare ``wandb sync`` does not upload rows twice."""
    for segment in segments:
        if segment.name.startswith("offline-run-"):
            aside = run_dir / "wandb" / "earlier"
            aside.mkdir(exist_ok=True)
            segment.rename(aside / segment.name)


def _segments(run_dir: Path) -> set[Path]:
    return {log.parent for log in run_dir.glob("wandb/*run-*/run-*.wandb")}


def _id_of_earlier_start(run_dir: Path) -> str | None:
    """Return the id last used in this folder; a run that crashed before its first checkpoint kept it nowhere else."""
    logs = [log for segment in _segments(run_dir) for log in segment.glob("run-*.wandb")]
    return max(logs, key=lambda log: log.stat().st_mtime).stem.removeprefix("run-") if logs else None


def _new_id() -> str:
    # Not the random module: tracking must not move anyone's random numbers.
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _folder_of(tracker: GeneralTracker, run_dir: Path) -> Path:
    """Return the segment's folder, as relative as the run's folder was given."""
    return run_dir / "wandb" / Path(tracker.tracker.dir).parent.name


def _sync_command(folder: Path) -> str:
    return f"wandb sync {shlex.quote(str(folder))}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
