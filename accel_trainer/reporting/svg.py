"""Matplotlib's figures as SVG that wears the page's colours.

Matplotlib is used without its global state. On the page a figure's colours are the page's CSS variables, so that it
follows the page into dark mode and onto paper; in a file of its own it has the colours of :data:`PRINT`.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

from accel_trainer.reporting.markup import Html, escape, tag


@dataclass(frozen=True)
class Palette:
    """Colours as matplotlib takes them.

    Attributes:
        ink: text.
        muted: ticks and marks.
        line: grid.
        measured: what happened.
        model: what the model said.
        baselines: one for each, in order, then from the start again.
    """

    ink: str
    muted: str
    line: str
    measured: str
    model: str
    baselines: tuple[str, ...]


PRINT = Palette("#1b2330", "#5d6878", "#e3e7ec", "#39424e", "#0b63ce", ("#b4560a", "#0f7f6c", "#7a4fbf", "#7c7300"))
# Colours that nothing else has, to be found and replaced in the SVG.
PAGE = Palette("#010a01", "#010a02", "#010a03", "#010a04", "#010a05", ("#010a06", "#010a07", "#010a08", "#010a09"))
_VARIABLES = dict(
    zip(
        (PAGE.ink, PAGE.muted, PAGE.line, PAGE.measured, PAGE.model, *PAGE.baselines),
        ("ink", "muted", "line", "measured", "model", "b1", "b2", "b3", "b4"),
        strict=True,
    )
)
DASHES = ("6 2", "2 2", "8 2 2 2", "1 2")
"""Dash patterns of the baselines beside their colours: lines stay apart in grey print and for the colour-blind."""


def key(line: int | None) -> Html:
    """Return a short piece of a line for a legend: None measured, -1 training loss, 0 the model, from 1 a baseline."""
    colour, dash = {None: ("measured", None), -1: ("muted", None), 0: ("model", None)}.get(line, ("", None))
    if not colour and line is not None:
        kind = (line - 1) % len(DASHES)
        colour, dash = f"b{kind + 1}", DASHES[kind]
    style = f"stroke:var(--{colour});stroke-width:2.5"
    path = tag("path", d="M0 4H26", style=style, stroke_dasharray=dash)
    return tag("svg", path, class_="key", viewBox="0 0 26 8", aria_hidden="true")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def finish(axes: Any, palette: Palette) -> None:
    """Give an axis the look of all of them: two thin spines, a light grid, small type."""
    axes.set_facecolor("none")
    axes.grid(True, color=palette.line, lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(palette.line)
    axes.tick_params(colors=palette.muted, labelsize=8, length=3, width=0.7)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=palette.muted, fontsize=8)
    axes.xaxis.get_offset_text().set(color=palette.muted, fontsize=8)
    axes.yaxis.get_offset_text().set(color=palette.muted, fontsize=8)


def to_svg(figure: Any, name: str, label: str) -> Html:
    """Return a figure as an SVG element for a page, its ids prefixed by ``name``, its colours CSS variables."""
    import matplotlib as mpl

    figure.set_facecolor("none")
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "accel_trainer", "path.simplify": True}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    body = text[text.index(">", text.index("<svg")) + 1 :]
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    # The page's own type instead of the one matplotlib measured with.
    body = re.sub(r"font: (?:[a-z0-9]+ )*?([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"\n\s*", "\n", body)
    return Html(f'<svg role="img" aria-label="{escape(label)}" {view[0]}>{body.strip()}')
