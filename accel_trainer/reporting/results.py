"""The body of the page: errors against the baselines, forecasts, error ahead, training, every sensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from accel_trainer.reporting import figures
from accel_trainer.reporting.markup import Html, join, paragraph, section, table, tag
from accel_trainer.reporting.svg import key
from accel_trainer.reporting.words import NOTHING, coefficient, counted, gained, is_number, moment, number, score

if TYPE_CHECKING:
    from accel_trainer.reporting.examples import Examples
    from accel_trainer.reporting.material import Material


def baselines(run: Material) -> Html | None:
    """Return the table of the model among its baselines, on the same windows."""
    if not run.finished:
        return None
    summary, mse = run.summary, run.summary["test"].get("mse")
    rows: list[list[Any]] = []
    for line, (name, scores) in enumerate(run.scores.items()):
        errors = [score(scores.get(metric)) for metric in ("mse", "mae", "rmse")]
        ours = gained(mse, scores.get("mse")) if line else ""
        rows.append([tag("span", key(line), name, class_="name"), *errors, coefficient(scores.get("r2")), ours])
    windows = summary.get("protocol", {}).get("test_windows")
    which = f"All {windows:,} test windows" if is_number(windows) else "All test windows"
    notes = [f"{name} was left out: {reason}." for name, reason in summary.get("left_out", {}).items()]
    notes += [f"{name}: {note}." for name, note in summary.get("notes", {}).items()]
    return section(
        "Test against the baselines",
        paragraph(
            f"{which}, in z units: 1 is a standard deviation of the sensor's training rows. R² compares the "
            "model with a forecast of each sensor's mean over the test. The gain: how far its MSE lies below.",
            class_="muted",
        ),
        table(["", "MSE", "MAE", "RMSE", "R²", "MSE gain"], rows, strong=0),
        *(paragraph(note, class_="muted small") for note in notes),
    )


def forecasts(run: Material) -> Html | None:
    """Return the pictures: measured against forecast, sensor by sensor."""
    examples = run.examples
    if examples is None or not examples.sensors:
        return None
    entries = {entry["sensor"]: entry for entry in run.summary.get("test", {}).get("per_sensor", [])}
    cards = [_card(examples, number_, entries.get(name, {})) for number_, name in enumerate(examples.sensors)]
    count, first, last = len(examples.starts), moment(examples.time[0]), moment(examples.time[-1])
    horizon = counted(len(examples.time) // count, "row")
    when = f"{'rows ' if examples.kind == 'rows' else ''}{first} to {last}"
    said = f"{counted(count, 'forecast')} of {horizon}{' each' if count > 1 else ''}, {when}, from the "
    marked = "starts at a mark on the axis and " if count <= figures.MOST_MARKS else ""
    said += f"test rows. Each {marked}has seen nothing after its start."
    shown, total = len(examples.sensors), len(run.summary.get("data", {}).get("targets", examples.sensors))
    if shown < total:
        said += f" {shown} of {total} sensors are drawn."
    keys = _keys((None, "measured"), (0, f"forecast of {run.model}"))
    grid = tag("div", *cards, class_="cards one" if shown == 1 else "cards")
    return section("Forecasts", paragraph(said, class_="muted"), keys, grid)


def _card(examples: Examples, sensor: int, entry: dict[str, Any]) -> Html:
    name, unit = examples.sensors[sensor], examples.units[sensor]
    said = []
    if is_number(mae := entry.get("physical", {}).get("mae")):
        said.append(f"Whole test: MAE {number(mae)} {unit}".rstrip() + f", R² {coefficient(entry.get('r2'))}.")
    if hidden := figures.beyond(examples, sensor):
        said.append(f"{counted(hidden, 'reading lies', 'readings lie')} beyond the axis (triangles).")
    return tag(
        "figure",
        tag("figcaption", tag("h3", name, *([" ", tag("small", unit)] if unit else []))),
        figures.forecast_svg(examples, sensor),
        tag("div", " ".join(said), class_="muted small") if said else None,
    )


def course(run: Material) -> Html | None:
    """Return error by step ahead beside the course of the training."""
    drawn = {"Error by step ahead": _ahead(run), "Training": _training(run)}
    parts = {title: content for title, content in drawn.items() if content is not None}
    if len(parts) == 1:
        return section(next(iter(parts)), tag("div", *(tag("figure", *part) for part in parts.values()), class_="one"))
    cards = [tag("figure", tag("figcaption", tag("h3", title)), *part) for title, part in parts.items()]
    return section("Horizon and training", tag("div", *cards, class_="cards")) if cards else None


def _ahead(run: Material) -> tuple[Html, Html] | None:
    curves: dict[str, list[float]] = {}
    for name, scores in run.scores.items():
        steps = [entry.get("mse") for entry in scores.get("per_step", [])]
        curves[name] = [float(value) if is_number(value) else math.nan for value in steps]
    finite = sum(math.isfinite(value) for curve in curves.values() for value in curve)
    if not finite or max(len(curve) for curve in curves.values()) == 1:
        return None
    period = run.summary.get("data", {}).get("period_seconds") if run.timed else None
    return _keys(*enumerate(curves)), figures.steps_svg(curves, period)


def _training(run: Material) -> tuple[Html, Html] | None:
    monitor = run.monitor
    steps, values = figures.series(run.rows, monitor)
    if not len(steps) and not len(figures.series(run.rows, "train/loss")[0]):
        return None
    best = run.summary.get("best")
    if best and best["metric"] != monitor:
        best = None  # of another metric, from before the options were changed
    if best is None and len(steps):
        where = int(values.argmax() if run.maximised else values.argmin())
        best = {"step": int(steps[where]), "value": float(values[where])}
    loss = run.config.training.loss if run.config else "mse"
    drawn = figures.curve_svg(run.rows, monitor, best, shared=monitor in ("val/loss", f"val/{loss}"))
    keys: list[tuple[int | None, str]] = [(-1, "training loss, smoothed; shaded: 10 to 90 % of the steps")]
    if len(steps):
        marked = f", best at step {best['step']:,}" if best else ""
        keys.append((0, f"{monitor}{marked}"))
    return _keys(*keys), drawn


def sensors(run: Material) -> Html | None:
    """Return the table of every sensor's errors in its own unit, the hardest first."""
    entries = list(run.summary.get("test", {}).get("per_sensor", []))
    if not entries:
        return None
    entries.sort(key=lambda entry: -entry["mse"] if is_number(entry.get("mse")) else math.inf)
    strongest = run.strongest_baseline
    theirs: dict[str, Any] = {}
    if strongest:
        per_sensor = run.summary["baselines"][strongest].get("per_sensor", [])
        theirs = {entry["sensor"]: entry.get("mse") for entry in per_sensor}
    largest = max((entry["mse"] for entry in entries if is_number(entry.get("mse"))), default=0.0)
    rows = []
    for entry in entries:
        physical, mse = entry.get("physical", {}), entry.get("mse")
        bar = tag(
            "span", class_="bar", style=f"--share:{mse / largest:.0%}" if is_number(mse) and largest else "--share:0%"
        )
        cells = [entry["sensor"], entry.get("unit") or NOTHING]
        cells += [number(physical.get("mae")), number(physical.get("rmse")), coefficient(entry.get("r2"))]
        cells += [gained(mse, theirs.get(entry["sensor"]))] if strongest else []
        rows.append([*cells, join(score(mse), bar)])
    names = ["sensor", "unit", "MAE (unit)", "RMSE (unit)", "R²"]
    names += [f"MSE gain on {strongest}"] if strongest else []
    said = f"{counted(len(rows), 'sensor')} over the whole test{', the hardest first' if len(rows) > 1 else ''}."
    return section("Sensors", paragraph(said, class_="muted"), table([*names, "MSE (z)"], rows, texts=2), class_="wide")


def _keys(*lines: tuple[int | None, str]) -> Html:
    return tag("div", *(tag("span", key(line), text) for line, text in lines), class_="keys")
