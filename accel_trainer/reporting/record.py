"""The end of the page: what was trained on, with which options, on which machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accel_trainer.reporting.markup import Html, pairs, paragraph, section, table, tag
from accel_trainer.reporting.words import counted, elapsed, is_number, later, moment, number, sentence, share, span

if TYPE_CHECKING:
    from accel_trainer.reporting.material import Material

_MOST_NAMES = 12


def data(run: Material) -> Html | None:
    """Return where the rows came from and how they were cut."""
    facts = run.summary.get("data")
    if not facts:
        return None
    period, first = facts["period_seconds"], str(facts["first"])
    spacing = f", one every {span(period)}" if run.timed else ""
    known = [
        ("source", tag("code", facts["source"])),
        ("rows", f"{facts['rows']:,}{spacing}, from {moment(first)} to {moment(facts['last'])}"),
        ("observed", f"{share(facts['observed'])} of the readings"),
        ("forecast", _names(facts["targets"])),
        ("seen in the past only", _names(facts.get("covariates", []))),
        ("digest", tag("code", str(facts.get("digest", ""))[:16])),
    ]
    context = run.size[0] if run.size else 0
    rows, bars = [], []
    for name, part in facts["splits"].items():
        # Validation and test reach back by a context that belongs to the rows before; what is forecast is their own.
        begin = part["begin"] + (0 if name == "train" else context)
        label = {"train": "training"}.get(name, name)
        edges = [later(first, row * period) if run.timed else f"{row:,}" for row in (begin, part["end"] - 1)]
        rows.append([label, *edges, f"{part['end'] - begin:,}", f"{part['windows']:,}"])
        bars.append(tag("span", label, style=f"flex:{max(part['end'] - begin, 1)}"))
    notes = facts.get("notes") or []
    return section(
        "Data",
        pairs((name, content) for name, content in known if content),
        tag("div", *bars, class_="split"),
        table(["split", "from", "to", "rows", "windows"], rows, texts=3),
        tag("h3", "Notes on the data") if notes else None,
        tag("ul", *(tag("li", sentence(note)) for note in notes)) if notes else None,
    )


def options(run: Material) -> Html | None:
    """Return what was chosen, where it differs from the defaults."""
    if run.config is None:
        return None
    rows = [(tag("code", name), _plain(value), _plain(default)) for name, value, default in run.changed_options()]
    again = f"python -m accel_trainer.train --config {run.place}/config.yaml --run.name again"
    return section(
        "Options",
        paragraph(
            "Those that differ from their defaults. ",
            tag("code", "config.yaml"),
            " in the run's folder holds all of them; ",
            tag("code", again),
            " repeats the run.",
            class_="muted",
        ),
        table(["option", "value", "default"], rows, texts=3),
    )


def machine(run: Material) -> Html | None:
    """Return on what it was trained, with which versions and how long."""
    training, timings = run.summary.get("training", {}), run.summary.get("timings", {})
    known = []
    if training:
        processes = counted(int(training.get("processes", 1)), "process", "processes")
        precision = {"no": "fp32"}.get(training.get("precision"), training.get("precision"))
        known.append(("trained on", f"{processes}, {training.get('device')}, precision {precision}"))
        counts = {"updates": training.get("updates"), "windows": training.get("windows")}
        done = ", ".join(f"{number(count)} {name}" for name, count in counts.items())
        known.append(("steps", f"{number(training.get('step'))}: {done}, {number(training.get('epochs'), 3)} epochs"))
    seed = run.summary.get("protocol", {}).get("seed", run.config.run.seed if run.config else None)
    if seed is not None:
        known.append(("seed", str(seed)))
    if took := [f"{name} {elapsed(seconds)}" for name, seconds in timings.items() if is_number(seconds)]:
        known.append(("time", ", ".join(took)))
    if versions := run.summary.get("versions"):
        known.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return section("Machine", pairs(known)) if known else None


def _names(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
