"""What trackers get, read back from where they put it: W&B's offline files, a W&B server, TensorBoard's events."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, register_tracker_class

from accel_trainer.config import TrackingOptions
from accel_trainer.errors import ConfigError, ExitCode
from accel_trainer.tracking.feed import TrackerFeed, check_trackers, open_feed
from tests.helpers.wandb_offline import OfflineRun, read_offline_run
from tests.helpers.wandb_server import KEY, WandbServer

ROWS = [
    {"step": step, "train/loss": 1 / (step + 1), "lr": 1e-3} | ({"val/mse": 0.5} if step % 3 == 0 else {})
    for step in range(1, 8)
]
CONFIG = {"data": {"path": "bhm", "targets": ["a", "b"]}, "run": {"seed": 7, "name": None}}


@pytest.fixture
def accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    """An accelerator on a machine where W&B was never used."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")  # W&B's default
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "5")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    with suppress(ConnectionError):  # where a test killed W&B's service
        wandb.teardown()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        yield running


def open_(
    accelerator: Accelerator, folder: Path, earlier: Any = (), run_id: str | None = None, **options: Any
) -> TrackerFeed:
    feed = open_feed(
        accelerator,
        TrackingOptions(**options),
        run_dir=folder / "run",
        run_name="name of the run",
        run_id=run_id,
        config=CONFIG,
        earlier_rows=earlier,
    )
    assert feed is not None
    return feed


def as_logged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"global_step" if k == "step" else k: v for k, v in row.items()} for row in rows]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("accel_trainer") and record.levelno == logging.WARNING
    ]


def read(segment: Path) -> OfflineRun:
    wandb.teardown()  # waits for W&B's process, which writes the file: the end of a run comes 2 ms after finish()
    return read_offline_run(segment)


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "run" / "wandb").glob("*run-*"))


def test_offline_file_holds_the_rows_over_their_own_axis(
    accelerator: Accelerator, server: WandbServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    states = random.getstate(), torch.get_rng_state()
    feed = open_(accelerator, tmp_path, project="bridges")
    assert accelerator.get_tracker("wandb", unwrap=True).id == feed.run_id
    feed.send(ROWS[:4])
    feed.send(iter([{**ROWS[4], "val/mse": None}, *ROWS[5:]]))
    feed.summarise({"test/mse": 0.25, "stop": "completed"})
    feed.finish()
    feed.finish()
    accelerator.end_training()
    (segment,) = segments(tmp_path)
    run = read(segment)
    assert run.rows == as_logged(ROWS)
    assert run.axes == {"global_step": "", "*": "global_step"}
    assert (run.run_id, run.name, run.project, run.exit_code) == (feed.run_id, "name of the run", "bridges", 0)
    assert {key: run.config[key] for key in CONFIG} == CONFIG
    assert (run.summary["test/mse"], run.summary["stop"]) == (0.25, "completed")
    assert "no key found" in str(feed.notice())
    assert str(feed.notice()).endswith(f"wandb sync {segment}")
    assert server.requests == []
    assert capfd.readouterr() == ("", "")
    assert (random.getstate(), torch.get_rng_state().tolist()) == (states[0], states[1].tolist())
    assert not (segment / "files" / "output.log").exists()


def test_offline_process_never_asks_the_network(accelerator: Accelerator, server: WandbServer, tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from accelerate import Accelerator\n"
        "from accel_trainer.config import TrackingOptions\n"
        "from accel_trainer.tracking.feed import open_feed\n"
        "feed = open_feed(Accelerator(cpu=True), TrackingOptions(), run_dir=Path('run'), run_name='r', run_id=None,\n"
        "                 config={}, earlier_rows=[{'step': 1, 'train/loss': 0.5}])\n"
        "feed.finish()\n"
    )  # W&B reports on itself when the process ends
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
    assert len(segments(tmp_path)) == 1
    assert server.requests == []


def test_newest_offline_segment_alone_is_the_whole_run(
    accelerator: Accelerator, server: WandbServer, tmp_path: Path
) -> None:
    first = open_(accelerator, tmp_path, mode="offline")
    first.send(ROWS[:5])
    first.finish(ExitCode.PREEMPTED)
    # Rows 4 and 5 came after the last checkpoint: they are computed again.
    second = open_(accelerator, tmp_path, ROWS[:3], first.run_id, mode="offline")
    second.send(ROWS[3:6])
    second.finish(ExitCode.DEFECT)
    third = open_(accelerator, tmp_path, ROWS[:6], None, mode="offline")  # crashed before the id was in a checkpoint
    third.send(ROWS[6:])
    third.summarise({"test/mse": 0.25})
    third.finish()
    assert first.run_id == second.run_id == third.run_id
    (newest,) = segments(tmp_path)
    assert newest.name in str(third.notice())
    assert read(newest).rows == as_logged(ROWS)
    earlier = [read(path) for path in sorted((newest.parent / "earlier").iterdir())]
    assert [run.exit_code for run in earlier] == [ExitCode.PREEMPTED, ExitCode.DEFECT]
    assert [run.kinds["preempting"] for run in earlier] == [1, 0]
    assert server.requests == []
    # What the notice says uploads the whole run, once, even when everything there is uploaded.
    command = [str(Path(sys.executable).parent / "wandb"), "sync", "--yes"]
    environment = {**os.environ, "WANDB_API_KEY": KEY}
    subprocess.run(command, cwd=tmp_path / "run", env=environment, check=True, capture_output=True, timeout=60)
    assert server.rows(str(third.run_id)) == as_logged(ROWS)
    assert server.runs[str(third.run_id)]["summary"]["test/mse"] == 0.25


def test_online_run_goes_on_without_a_row_twice(
    accelerator: Accelerator,
    server: WandbServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    first = open_(accelerator, tmp_path)
    assert first.notice() == f"W&B online: {server.url}/me/accel_trainer/runs/{first.run_id}"
    first.send(ROWS[:5])
    first.finish(ExitCode.DEFECT)
    run_id = str(first.run_id)
    assert server.rows(run_id) == as_logged(ROWS[:5])
    assert server.runs[run_id]["exitcode"] == ExitCode.DEFECT
    second = open_(accelerator, tmp_path, ROWS[:3], first.run_id)
    second.send(ROWS[3:])
    second.summarise({"test/mse": 0.25})
    second.finish()
    assert second.run_id == run_id
    assert list(server.runs) == [run_id]
    assert server.rows(run_id) == as_logged(ROWS)
    assert server.runs[run_id]["summary"]["test/mse"] == 0.25
    assert server.runs[run_id]["exitcode"] == 0
    assert capfd.readouterr() == ("", "")
    assert KEY not in "".join(
        p.read_text() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.suffix != ".wandb"
    )


def test_key_in_netrc_counts(
    accelerator: Accelerator, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "keys"
    netrc.write_text(f"machine {server.url.removeprefix('http://')}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    feed = open_(accelerator, tmp_path)
    feed.finish()
    assert str(feed.notice()).startswith("W&B online")


@pytest.mark.parametrize("cause", ["no server", "bad key"])
def test_online_start_that_fails_goes_offline_in_time(
    accelerator: Accelerator, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    monkeypatch.setenv("WANDB_API_KEY", KEY if cause == "no server" else "too-short")
    if cause == "no server":
        server.stop()
    began = time.monotonic()
    feed = open_(accelerator, tmp_path, ROWS[:3], "abcd1234", mode="online")
    assert time.monotonic() - began < 5
    feed.send(ROWS[3:])
    feed.finish()
    (segment,) = segments(tmp_path)  # nothing is left of the failed start
    assert re.match(r"W&B offline \(.+\); ", str(feed.notice()))
    assert cause == "no server" or "API key must have 40+ characters" in str(feed.notice())
    assert str(feed.notice()).endswith(f"wandb sync {segment}")
    assert "\n" not in str(feed.notice())
    run = read(segment)
    assert (run.run_id, run.rows) == ("abcd1234", as_logged(ROWS))


def test_server_that_dies_costs_a_bounded_wait(
    accelerator: Accelerator,
    server: WandbServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    feed = open_(accelerator, tmp_path)
    server.stop()
    began = time.monotonic()
    feed.send(ROWS)
    assert time.monotonic() - began < 0.5
    feed.finish()
    assert time.monotonic() - began < 5
    (message,) = warnings(caplog)
    (segment,) = segments(tmp_path)
    assert message.endswith(f"wandb sync {segment}")
    assert read(segment).rows == as_logged(ROWS)


class Notes(GeneralTracker):
    """A tracker as a user may register one; it keeps what it is told."""

    name = "notes"
    requires_logging_directory = False
    told: list[Any] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, run_name: str, **kwargs: Any) -> None:
        super().__init__()
        self.told.append(("project", run_name))

    @property
    def tracker(self) -> list[Any]:
        return self.told

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(("config", values))

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        if "full" in values:
            raise OSError(28, "No space left on device")
        self.told.append((step, values))

    def finish(self) -> None:
        self.told.append("finished")


@pytest.fixture
def notes() -> Iterator[list[Any]]:
    Notes.told.clear()
    register_tracker_class(Notes)
    yield Notes.told
    del LOGGER_TYPE_TO_CLASS["notes"]


def test_tracker_that_breaks_is_named_once_and_the_others_go_on(
    accelerator: Accelerator, tmp_path: Path, notes: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    feed = open_(accelerator, tmp_path, ROWS[:2], trackers=["notes", "wandb"], mode="offline")
    caplog.clear()
    feed.send([{"step": 3, "full": 1.0}])
    feed.send(ROWS[2:4])
    assert notes[-1] == (2, {"train/loss": 1 / 3, "lr": 1e-3})
    # W&B writes in a process of its own, which a signal to a whole job ends as well.
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    (service,) = [int(pid) for pid in children if "wandb" in Path(f"/proc/{pid}/comm").read_text()]
    os.kill(service, signal.SIGKILL)
    time.sleep(0.2)
    feed.send(ROWS[4:])
    feed.summarise({"test/mse": 0.25})
    feed.finish()
    said = warnings(caplog)
    assert len(said) == 2
    assert said[0].startswith("notes stopped taking numbers (OSError: [Errno 28] No space left on device)")
    assert said[1].startswith("wandb stopped taking numbers (Connection")
    assert accelerator.trackers == []


def test_registered_tracker_gets_plain_options_all_rows_and_the_result(
    accelerator: Accelerator, tmp_path: Path, notes: list[Any]
) -> None:
    feed = open_(accelerator, tmp_path, ROWS[:3], "kept", trackers=["notes", "notes"], project="bridges")
    feed.send(ROWS[3:])
    feed.summarise({"test/mse": 0.25, "stop": "completed"})
    feed.finish()
    flat = {"data.path": "bhm", "data.targets": "['a', 'b']", "run.seed": 7, "run.name": "None"}
    rows = [(row["step"], {k: v for k, v in row.items() if k != "step"}) for row in ROWS]
    assert notes == [("project", "bridges"), ("config", flat), *rows, (7, {"test/mse": 0.25}), "finished"]
    assert feed.run_id == "kept"
    assert feed.notice() == "notes: project bridges"


def test_tracker_that_does_not_start_leaves_the_others(
    accelerator: Accelerator, tmp_path: Path, notes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "no address")
    feed = open_(accelerator, tmp_path, trackers=["wandb", "notes"], mode="offline")
    feed.send(ROWS)
    feed.finish()
    assert str(feed.notice()).startswith("wandb did not start (")
    assert notes[-1] == "finished"


def test_another_run_of_the_process_is_left_alone(accelerator: Accelerator, tmp_path: Path) -> None:
    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True)) as own:
        feed = open_(accelerator, tmp_path, ROWS, mode="offline")
        feed.finish()
        assert feed.run_id != own.id
        own.log({"mine": 1})
        own_segment = Path(own.dir).parent
    assert read(own_segment).rows == [{"mine": 1}]
    (segment,) = segments(tmp_path)
    assert read(segment).rows == as_logged(ROWS)


def test_tensorboard_shows_every_step_once(accelerator: Accelerator, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for earlier, rows in ((ROWS[:0], ROWS[:5]), (ROWS[:3], ROWS[3:])):
        feed = open_(accelerator, tmp_path, earlier, trackers=["tensorboard"])
        feed.send(rows)
        feed.finish()
    folder = tmp_path / "run" / "tensorboard"
    assert feed.notice() == f"tensorboard --logdir {folder}"
    shown = events.EventAccumulator(str(folder)).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("val/mse")] == [(3, 0.5), (6, 0.5)]
    assert [e.step for e in shown.Scalars("train/loss")] == list(range(1, 8))


@pytest.mark.parametrize(
    ("options", "environment"),
    [({"mode": "disabled"}, ""), ({"trackers": []}, ""), ({}, "disabled"), ({"mode": "disabled"}, "online")],
)
def test_nothing_is_tracked_when_nothing_is_wanted(
    accelerator: Accelerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], environment: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", environment)
    arguments: dict[str, Any] = {"run_name": "r", "run_id": None, "config": {}, "earlier_rows": []}
    assert open_feed(accelerator, TrackingOptions(**options), run_dir=tmp_path / "run", **arguments) is None
    assert not (tmp_path / "run").exists()


def test_wandb_mode_of_the_environment_is_followed_under_auto(
    accelerator: Accelerator, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    feed = open_(accelerator, tmp_path)
    feed.finish()
    assert str(feed.notice()).startswith("W&B offline; to upload")
    assert server.requests == []
    feed = open_(accelerator, tmp_path, run_id=feed.run_id, mode="online")
    feed.finish()
    assert str(feed.notice()).startswith("W&B online")


def test_unknown_tracker_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"tracking.trackers: 'wandbb' is unknown; did you mean 'wandb'\? \(known: wandb"
    ):
        check_trackers(TrackingOptions(trackers=["wandbb"]))


def test_tracker_that_is_not_installed_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['aim'] = None\n"  # Python's own way to say: no such module
        "from accel_trainer.config import TrackingOptions\n"
        "from accel_trainer.tracking.feed import check_trackers\n"
        "check_trackers(TrackingOptions())\n"
        "assert not {'torch', 'accelerate', 'wandb'} & set(sys.modules)\n"
        "del sys.modules['aim']; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "check_trackers(TrackingOptions(trackers=['aim']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("tracking.trackers: 'aim' is not installed; run: pip install aim")


def test_nonsense_in_wandb_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ConfigError, match=r"tracking.mode: auto follows WANDB_MODE, which is 'sometimes'"):
        check_trackers(TrackingOptions())
    check_trackers(TrackingOptions(mode="offline"))
