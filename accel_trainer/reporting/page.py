"""report.html: one page that needs no other file, no network and no script."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from accel_trainer import __version__
from accel_trainer.checkpoints.files import write_text
from accel_trainer.errors import not_written
from accel_trainer.reporting import record, results
from accel_trainer.reporting.heading import heading
from accel_trainer.reporting.markup import Html, join, tag
from accel_trainer.reporting.material import collect
from accel_trainer.reporting.style import CSS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from accel_trainer.reporting.examples import Examples
    from accel_trainer.run.folder import RunFolder

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Should a name ever slip through as markup, the browser still loads and runs nothing."""


def write_report(
    folder: RunFolder,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    examples: Examples | None,
    remarks: Sequence[str] = (),
) -> Path:
    """Write a run's page, whole or not at all.

    Args:
        folder: of the run; its options and status are read from it.
        summary: content of ``summary.json``, or ``{}`` before there is one; sections that are missing are left out.
        rows: of ``metrics.jsonl``.
        examples: forecasts to draw; None leaves the pictures out.
        remarks: what should stand at the top, one sentence each.

    Returns:
        The path of the page.

    Raises:
        NotWrittenError: it cannot be written.
    """
    run = collect(folder, summary, rows, examples, remarks)
    parts = (
        heading,
        results.baselines,
        results.forecasts,
        results.course,
        results.sensors,
        record.data,
        record.options,
        record.machine,
    )
    written = f"Written by accel_trainer {__version__} on {time.strftime('%Y-%m-%d at %H:%M')}."
    beside = "The numbers are those of summary.json and metrics.jsonl in the run's folder."
    body = join(*(part(run) for part in parts), tag("footer", f"{written} {beside}"))
    try:
        write_text(folder.report, _document(f"{run.name}: forecast report", body))
    except OSError as error:
        raise not_written(folder.report, error) from None
    return folder.report


def _document(title: str, body: Html) -> str:
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(CSS)),
    )
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', tag('main', body)), lang='en')}\n"
