"""The page of a real run: whole, safe to open, and there whatever the run left behind."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer import report
from accel_trainer.data.scale import Scaler
from accel_trainer.data.split import Rows, Splits
from accel_trainer.data.table import Clock, Table
from accel_trainer.errors import UserError
from accel_trainer.hooks.metrics_file import read_rows
from accel_trainer.models.registry import create_model
from accel_trainer.reporting.examples import choose_sensors, example_forecasts
from accel_trainer.reporting.markup import Html, tag
from accel_trainer.reporting.page import write_report
from accel_trainer.reporting.words import later, moment, number, span
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.forecast_data import ForecastData
from accel_trainer.settings import from_dict
from accel_trainer.tasks.forecasting import ForecastingTask
from tests.helpers.runs import command, run

HOSTILE = ("<script>alert(1)</script>", 'say "hi" & go', "cost $x$ <b>")


class Page(HTMLParser):
    """Parses a page strictly: every element is closed in order; collects texts, tags and attributes."""

    void = ("meta", "br")

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def pictures(self) -> int:
        return sum(name == "role" and value == "img" for name, value in self.attributes)

    def check_self_contained(self) -> None:
        assert not {"script", "link", "iframe", "object", "embed", "base", "img"} & set(self.tags)
        assert not [name for name, _ in self.attributes if name.startswith("on")]
        for name, value in self.attributes:
            if name.endswith(("href", "src")):
                assert value is not None
                assert value.startswith("#"), value
        assert "://" not in self.source.replace("http://www.w3.org", "")
        assert "@import" not in self.source
        references = set(re.findall(r"url\(([^)]*)\)", self.source))
        ids = [value for name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        assert {reference.strip("#\"'") for reference in references} <= set(ids)


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("bridge")
    run(command(where, "bridge", training__max_steps=20, training__epochs=1, evaluation__every_steps=5))
    return where / "bridge"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a file whose sensors have names that are markup, gaps, and one sensor that falls silent."""
    where = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    lines = ["time;" + ";".join('"' + name.replace('"', '""') + '"' for name in HOSTILE)]
    for row in range(400):
        readings = [f"{math.sin(row / 8) + 0.1 * random.normal():.4f}" for _ in HOSTILE]
        readings = ["" if random.random() < 0.1 else reading for reading in readings]
        if row > 300:
            readings[2] = ""
        lines.append(";".join([f"2025-03-01T{row // 60 % 24:02d}:{row % 60:02d}:00", *readings]))
    path = where / "a <b> file.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"data__path": path, "data__context": 24, "data__horizon": 6, "training__max_steps": 8}
    run(command(where, "tags", **options))
    return where / "tags"


@pytest.fixture
def copied(bridge: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bridge, tmp_path / "bridge"))


def report_on(folder: Path) -> Page:
    assert report.main([str(folder)]) == 0
    return Page(folder / "report.html")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def page(bridge: Path) -> Page:
    return report_on(bridge)


def test_page_tells_the_whole_result_in_one_file(bridge: Path, page: Page) -> None:
    page.check_self_contained()
    summary = json.loads((bridge / "summary.json").read_text())
    assert summary["verdict"][1:] in page.text
    assert "all 20 steps done" in page.text
    for name in (*summary["baselines"], *summary["data"]["targets"], "data.bhm.days", "0.1.0", "training time"):
        assert name in page.text, name
    for score in (summary["test"]["mse"], summary["baselines"]["persistence"]["mae"]):
        assert f"{score:.4f}" in page.text
    assert summary["data"]["last"][:10] in page.text
    assert page.pictures == len(summary["data"]["targets"]) + 2
    assert "µε" in page.text
    assert len(page.source) < 1_500_000


def test_page_follows_dark_mode_and_paper(page: Page) -> None:
    assert "prefers-color-scheme:dark" in page.source
    assert "@media print" in page.source
    drawn = " ".join(re.findall(r"<svg role.*?</svg>", page.source, flags=re.DOTALL))
    assert not re.findall(r": ?#[0-9a-f]{3}", drawn)  # nothing drawn has a colour of its own
    assert "var(--model)" in drawn


def test_names_are_text_whatever_they_look_like(hostile: Path) -> None:
    page = report_on(hostile)
    page.check_self_contained()
    for name in (*HOSTILE, "a <b> file.csv"):
        assert name in page.text
    assert page.pictures == len(HOSTILE) + 2  # the sensor that fell silent has an empty picture, not an error


def test_run_without_a_result_shows_what_there_is(copied: Path) -> None:
    (copied / "summary.json").unlink()
    shutil.rmtree(copied / "model")
    change(
        copied / "status.json", status="failed", exit_code=1, reason="OSError: disk full", time="2025-05-04T03:02:01"
    )
    page = report_on(copied)
    page.check_self_contained()
    assert "No result yet" in page.text
    assert "It failed on 2025-05-04 03:02:01 with exit code 1: OSError: disk full." in page.text
    assert "The last step logged is 20." in page.text
    assert "2025-01-" in page.text  # what the data is can be read again
    assert page.pictures == 6  # forecasts of the best checkpoint so far, and the curve


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"status": "running", "time": "2025-05-04T03:02:01+0100"}, "On 2025-05-04 03:02:01 it was running"),
        ({"status": "preempted", "reason": "signal 15"}, "interrupted and saved (signal 15)"),
        (None, "There is no status.json"),
    ],
)
def test_run_that_never_saved_says_how_it_stands(tmp_path: Path, status: dict[str, Any] | None, said: str) -> None:
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 0.5, "lr": 0.1}\n{"step": 2, "tra')
    if status is not None:
        (folder / "status.json").write_text(json.dumps(status))
    page = report_on(folder)
    assert said in page.text
    assert "The last step logged is 1." in page.text
    assert "no model and no checkpoint" in page.text
    assert page.pictures == 1


def test_numbers_that_were_none_leave_gaps(copied: Path) -> None:
    rows = [json.loads(line) for line in (copied / "metrics.jsonl").read_text().splitlines()]
    for row in rows[3:9]:
        row["train/loss"] = None
    for row in rows[:12]:
        row.update({"val/mse": None} if "val/mse" in row else {})
    (copied / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = report_on(copied)
    page.check_self_contained()
    assert "nan" not in page.source.lower().replace("nano", "")
    assert "best at step" in page.text


def test_run_that_went_on_after_its_result_says_so(copied: Path) -> None:
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "train/loss": 0.5}\n')
    assert "Training went on after this result, so far to step 21." in report_on(copied).text


def test_pictures_are_left_out_with_the_reason_when_the_data_is_gone(hostile: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hostile, tmp_path / "moved"))
    config = json.loads((folder / "model" / "config.json").read_text())
    gone = config["run"]["data"]["path"]
    Path(gone).rename(tmp_path / "elsewhere.csv")
    try:
        page = report_on(folder)
    finally:
        Path(tmp_path / "elsewhere.csv").rename(gone)
    assert "There are no pictures of forecasts" in page.text
    assert gone in page.text
    assert page.pictures == 2
    assert HOSTILE[0] in page.text


def test_data_that_changed_since_is_named(copied: Path) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["data"]["digest"] = "0" * 64
    (copied / "summary.json").write_text(json.dumps(summary))
    assert "bhm no longer holds the rows of this run" in report_on(copied).text


def test_three_hundred_sensors_stay_one_readable_file(bridge: Path, tmp_path: Path) -> None:
    summary = json.loads((bridge / "summary.json").read_text())
    names = [f"strain_{i}" for i in range(300)]
    entry = summary["test"]["per_sensor"][0]
    summary["test"]["per_sensor"] = [{**entry, "sensor": name} for name in names]
    summary["data"]["targets"] = names
    examples, _ = report.forecast_again(RunFolder(bridge), sensors=2)
    folder = RunFolder(tmp_path)
    page = Page(write_report(folder, summary, read_rows(bridge / "metrics.jsonl"), examples))
    page.check_self_contained()
    assert all(f"strain_{i}" in page.texts for i in range(300))
    assert "2 of 300 sensors are drawn" in page.text
    assert len(page.source) < 1_500_000


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_a_section_that_is_missing_is_left_out(
    bridge: Path, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    summary = json.loads((bridge / "summary.json").read_text())
    for key in data.draw(st.sets(st.sampled_from(sorted(summary)))):
        del summary[key]
    for scores in (summary.get("test", {}), *summary.get("baselines", {}).values()):
        for key in data.draw(st.sets(st.sampled_from(["mse", "r2", "per_step", "per_sensor"]))):
            scores.pop(key, None)
    Page(write_report(RunFolder(tmp_path_factory.mktemp("part")), summary, [], None)).check_self_contained()


def test_figure_is_one_picture_for_a_readme(bridge: Path, tmp_path: Path) -> None:
    target = tmp_path / "docs" / "forecast.png"
    before = (bridge / "report.html").exists()
    assert report.main([str(bridge), "--figure", str(target)]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert 10_000 < target.stat().st_size < 200_000
    assert [path.name for path in target.parent.iterdir()] == ["forecast.png"]
    assert (bridge / "report.html").exists() == before


def test_mistakes_are_one_sentence_and_exit_code_2(
    bridge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        ([str(bridge.parent / "brigde")], f"no such folder; did you mean '{bridge}'?"),
        ([str(bridge.parent)], f"holds no run, which would have config.yaml and metrics.jsonl; there are {bridge}"),
        ([], "the run's folder is missing, such as runs/bhm"),
        ([str(bridge), "--figur", "x.png", "y"], "unrecognized arguments"),
        ([str(bridge), "--figure", str(tmp_path / "a.jpeg")], "a picture's name ends in .png, .svg, .pdf"),
    ):
        assert report.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert said in error


def test_a_page_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html: cannot be written"):
        write_report(RunFolder(tmp_path), {}, [], None)


def test_help_needs_no_torch() -> None:
    code = "import sys; from accel_trainer import report; print(report.main(['--help'])); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m accel_trainer.report")
    assert done.stdout.splitlines()[-2:] == ["0", "False"]


def test_the_folder_one_stands_in_has_its_name(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied)
    assert report.main(["."]) == 0
    assert "<h1>bridge</h1>" in (copied / "report.html").read_text()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 130), st.integers(1, 12), st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_examples_are_the_models_own_forecasts_of_consecutive_rows(
    horizon: int, context: int, spare: int, seed: int
) -> None:
    """Persistence is known without a model: every forecast is the last reading before it, in the sensor's unit."""
    random = np.random.default_rng(seed)
    length = context + horizon + spare
    values = (random.normal(size=(length, 3)) * [1, 50, 0.01] + [0, 1000, 3]).astype(np.float32)
    observed = random.random((length, 3)) > 0.1
    values[~observed] = 0
    table = Table(values, observed, ("a", "b", "c"), ("mm", "mm", "°C"), Clock("datetime", 600.0, 0))
    everything = Rows(0, length)
    options = from_dict({"data": {"path": "none", "context": context, "horizon": horizon}}).data
    splits = Splits(everything, everything, everything)
    data = ForecastData(table, 2, splits, Scaler.fit(table, everything), options, torch.device("cpu"))
    model = create_model("persistence", data.shape, {}).train()
    examples = example_forecasts(model, ForecastingTask(model, data.shape), data, data.windows()[2], sensors=5)

    assert model.training
    # A sensor that is mostly silent in the stretch comes after the other one.
    columns = [table.sensors.index(name) for name in examples.sensors]
    assert sorted(columns) == [0, 1]
    observed, values = observed[:, columns], values[:, columns]
    mean, std = data.scaler.mean[columns], data.scaler.std[columns]
    first = int((examples.time[0] - np.datetime64(0, "ns")) / np.timedelta64(600, "s"))
    rows = first + np.arange(len(examples.time))
    assert (examples.time == table.clock.labels(first, first + len(rows))).all()
    assert len(rows) == len(examples.starts) * horizon
    assert (np.isnan(examples.measured) == ~observed[rows]).all()
    np.testing.assert_array_equal(examples.measured[observed[rows]], values[rows][observed[rows]])
    for start in examples.starts:
        for sensor in range(2):
            before = slice(first + start - context, first + start)
            seen = values[before, sensor][observed[before, sensor]]
            expected = seen[-1] if len(seen) else mean[sensor]
            said = examples.forecast[start : start + horizon, sensor]
            np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-5 * std[sensor])


@given(st.lists(st.sampled_from(["mm", "µε", "°C", ""]), min_size=1, max_size=12), st.integers(1, 8), st.data())
def test_sensors_of_different_units_come_first_and_silent_ones_last(units: list[str], count: int, data: Any) -> None:
    share = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(units), max_size=len(units))))
    chosen = choose_sensors(units, share, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(units))
    audible = [c for c in range(len(units)) if share[c] >= 0.5]
    assert set(chosen[: len(audible)]) <= set(audible)
    kinds = len({units[c] for c in audible})
    assert len({units[c] for c in chosen[:kinds]}) == min(kinds, count)


@given(st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]))
def test_numbers_keep_four_digits(value: float) -> None:
    text = number(value)
    if math.isfinite(value):
        assert math.isclose(float(text.replace(",", "")), value, rel_tol=6e-4, abs_tol=1e-300)
    else:
        assert text == "–"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (moment("2025-01-01T00:00:00.000000000"), "2025-01-01 00:00"),
        (moment("2022-04-11T08:36:25.984000000"), "2022-04-11 08:36:25.984"),
        (moment(17), "17"),
        (moment(np.float64(12.5)), "12.5 s"),
        (later("2025-01-01T00:00:00.000000000", 600), "2025-01-01 00:10"),
        (later("57873600.0", 0.01), "57873600.01 s"),
        (span(600), "10 min"),
        (span(86400), "24 h"),
        (span(3 * 86400), "3 days"),
        (span(0.01), "10 ms"),
    ],
)
def test_times_are_as_short_as_they_can_be(shown: str, expected: str) -> None:
    assert shown == expected


@given(st.text())
def test_markup_holds_any_text(text: str) -> None:
    element = tag("p", text, title=text)
    assert isinstance(element, Html)
    parser = HTMLParser(convert_charrefs=True)
    found: list[Any] = []
    parser.handle_starttag = lambda name, attrs: found.append((name, attrs))  # type: ignore[method-assign]
    parser.feed(element)
    assert [name for name, _ in found] == ["p"]
    assert [name for name, _ in found[0][1]] == ["title"]
