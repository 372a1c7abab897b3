"""The top of the page: which run, what came of it, why it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accel_trainer.metrics.verdict import LEVEL, gain
from accel_trainer.reporting.markup import Html, join, paragraph, tag
from accel_trainer.reporting.words import (
    coefficient,
    counted,
    elapsed,
    gained,
    is_number,
    number,
    score,
    sentence,
    span,
    stopped,
)

if TYPE_CHECKING:
    from accel_trainer.reporting.material import Material


def heading(run: Material) -> Html:
    """Return name, verdict and the figures people ask for first; without a result, how the run stands."""
    subject = _subject(run)
    top = [
        tag("p", "Forecast report", class_="kind"),
        tag("h1", run.name),
        paragraph(" · ".join(subject), class_="sub") if subject else Html(),
    ]
    if not run.finished:
        standing = tag("div", tag("b", "No result yet. "), _standing(run), class_="note mixed")
        return join(*top, standing, _remarks(run))
    verdict = tag("div", sentence(str(run.summary.get("verdict", ""))), class_=f"verdict {_colour(run)}")
    return join(*top, verdict, _end(run), _remarks(run), _tiles(run))


def _subject(run: Material) -> list[str]:
    """Say what was trained to forecast what."""
    facts = run.summary.get("data", {})
    period = facts.get("period_seconds") if run.timed else None
    parts = [run.model] if run.config or "model" in run.summary else []
    if facts.get("targets"):
        parts.append(counted(len(facts["targets"]), "sensor"))
    if run.size:
        into, ahead = (counted(rows, "row") + (f" ({span(rows * period)})" if period else "") for rows in run.size)
        parts.append(f"{into} in, {ahead} ahead")
    if period:
        parts.append(f"one row every {span(period)}")
    return parts


def _standing(run: Material) -> str:
    """Say how a run without a result stands, by its status file."""
    status, reason = run.status.get("status"), str(run.status.get("reason") or "")
    when = str(run.status.get("time", ""))[:19].replace("T", " ")  # without the zone
    if status == "running":
        said = f"On {when} it was running; it still is, or it was killed since."
    elif status == "preempted":
        said = f"It was interrupted and saved ({reason}); the same command goes on from there."
    elif status == "failed":
        said = f"It failed on {when} with exit code {run.status.get('exit_code')}: {stopped(reason)}"
    elif status:
        said = f"Its status is {status}, but there is no summary.json."
    else:
        said = "There is no status.json that says how it stands."
    return f"{said} {f'The last step logged is {run.last_step:,}.' if run.last_step else 'No step was logged.'}"


def _end(run: Material) -> Html:
    """Say why training ended and which weights were tested."""
    best, step = run.summary.get("best"), run.summary.get("training", {}).get("step")
    verb = "diverged" if run.summary.get("stop_kind") == "diverged" else "ended"
    text = f"Training {verb} at step {number(step)}: {stopped(str(run.summary.get('stop_reason', '')))}"
    if best:
        text += f" Tested: the weights of step {best['step']:,}, the best by {best['metric']} ({score(best['value'])})."
    return paragraph(text)


def _remarks(run: Material) -> Html:
    said = list(run.remarks)
    tested_after = run.summary.get("training", {}).get("step")
    if run.finished and is_number(tested_after):
        reason = str(run.status.get("reason") or "")
        if run.last_step > tested_after:
            said.append(f"Training went on after this result, so far to step {run.last_step:,}.")
        elif run.status.get("status") in ("failed", "preempted") and reason != run.summary.get("stop_reason"):
            said.append(f"A later start of this run ended without changing the result: {stopped(reason)}")
    return join(*(tag("div", stopped(text), class_="note mixed") for text in said))


def _colour(run: Material) -> str:
    """Return how the verdict is meant: good when no baseline is better, bad when the model beats none, else mixed."""
    mse = run.summary["test"].get("mse")
    if run.summary.get("stop_kind") == "diverged" or not is_number(mse):
        return "bad"
    others = [scores.get("mse") for scores in run.summary.get("baselines", {}).values()]
    gains = [gain(mse, other) for other in others if is_number(other)]
    if not gains:
        return ""
    return "bad" if max(gains) <= LEVEL else "mixed" if min(gains) < -LEVEL else "good"


def _tiles(run: Material) -> Html:
    test, training = run.summary["test"], run.summary.get("training", {})
    tiles = [
        (score(test.get("mse")), "test MSE (z)"),
        (score(test.get("mae")), "test MAE (z)"),
        (coefficient(test.get("r2")), "test R²"),
    ]
    if name := run.strongest_baseline:
        tiles.append((gained(test.get("mse"), run.summary["baselines"][name].get("mse")), f"MSE gain on {name}"))
    tiles.append((number(training.get("parameters")), "parameters"))
    if is_number(seconds := run.summary.get("timings", {}).get("training")):
        tiles.append((elapsed(seconds), "training time"))
    return tag(
        "div",
        *(tag("div", tag("b", value), tag("span", label), class_="tile") for value, label in tiles),
        class_="tiles",
    )
