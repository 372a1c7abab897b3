"""HTML by construction: whatever is not markup already is escaped."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LONG = 40
"""Rows of a table that is looked at as a whole."""
_VOID = {"meta", "br"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(text: object) -> str:
    """Return a text for use between tags or in quotes; what UTF-8 cannot hold becomes a question mark."""
    return html.escape(str(text).encode("utf-8", "replace").decode(), quote=True)


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element; children that are not :class:`Html` are escaped, None is left out.

    Attribute names lose a trailing underscore (``class_``) and get dashes for the others; one that is None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Return children one after the other, escaped where they are not markup."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children if c is not None))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, texts: int = 1, strong: int | None = None) -> Html:
    """Return a table whose first ``texts`` columns are text and the others numbers.

    Args:
        head: titles of the columns.
        rows: cells.
        texts: leading columns that are text.
        strong: number of the row that stands out.
    """

    def cell(kind: str, column: int, content: Any) -> Html:
        return tag(kind, content, class_=None if column < texts else "n")

    body = [
        tag("tr", *(cell("td", c, content) for c, content in enumerate(row)), class_="strong" if r == strong else None)
        for r, row in enumerate(rows)
    ]
    titles = tag("tr", *(cell("th", c, title) for c, title in enumerate(head)))
    grid = tag("table", tag("thead", titles), tag("tbody", *body))
    # A long table scrolls on a screen; paper shows all of it.
    return tag("div", grid, class_="scroll tall" if len(body) > _LONG else "scroll")


def pairs(rows: Iterable[tuple[str, object]]) -> Html:
    """Return a table of names and what they stand for."""
    body = [tag("tr", tag("td", name), tag("td", content)) for name, content in rows]
    return tag("div", tag("table", tag("tbody", *body)), class_="scroll pairs")


def paragraph(*children: object, class_: str | None = None) -> Html:
    """Return a paragraph."""
    return tag("p", *children, class_=class_)


def section(title: str, *content: object, class_: str | None = None) -> Html:
    """Return a part of the page under its title."""
    return tag("section", tag("h2", title), *content, class_=class_)
