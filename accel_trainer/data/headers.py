"""Column headers: sensor name and unit, names that mean time, and names of which nothing may be guessed."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from accel_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNIT = re.compile(r"(?P<name>.*\S)\s*(?:\[(?P<square>[^\[\]]*)\]|\((?P<round>[^()]*)\))", re.DOTALL)
_ASCII_MICRO = re.compile(r"u(?=(?:m|s|g|e|V|A|rad|strain)(?![A-Za-z]))")
_TIME_NAMES = frozenset(
    [
        "date",
        "time",
        "timestamp",
        "datetime",
        "ds",
        "utc",
        "epoch",
        "unixtime",
        "timeutc",
        "datetimeutc",
        "timestamputc",
        "elapsedtime",
        "zeit",
        "datum",
        "zeitstempel",
        "datumzeit",
        "datumuhrzeit",
        "uhrzeit",
    ]
)


def split_header(header: str) -> tuple[str, str]:
    """Split ``DMS_AS [um/m]`` or ``FRC-01 (kN)`` into sensor name and unit; the unit is ``""`` where there is none.

    The unit is kept as written with one exception: the ASCII ``u`` for micro becomes ``µ``, so ``um/m`` is ``µm/m``.
    """
    header = header.strip()
    found = _UNIT.fullmatch(header)
    if not found:
        return header, ""
    unit = (found["square"] or found["round"] or "").strip()
    return found["name"], _ASCII_MICRO.sub("µ", unit) if _ASCII_MICRO.match(unit) else unit


def means_time(header: str) -> bool:
    """Tell whether a header is one of the usual names of a time column, with or without a unit behind it."""
    return re.sub(r"[\s_/.-]+", "", split_header(header)[0]).casefold() in _TIME_NAMES


def refuse_bad_headers(headers: Sequence[str], source: str) -> None:
    """Refuse names that repeat and a header line that is in truth a row of readings.

    Raises:
        DataError: naming the columns.
    """
    filled = [header for header in headers if header]
    if filled and all(_is_reading(header) for header in filled) and not _counts(filled):
        raise DataError(
            f"{source}: the first line ({', '.join(filled[:3])}{', …' if len(filled) > 3 else ''}) holds readings; "
            "a header line with the names of the columns is expected"
        )
    places: dict[str, int] = {}
    for column, header in enumerate(headers, start=1):
        if header in places:
            raise DataError(f"{source}: columns {places[header]} and {column} are both named {header!r}; rename one")
        if header:
            places[header] = column


def name_sensors(headers: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, unit) of each header.

    Where two headers differ only in their brackets (``T (north)``, ``T (south)``) the brackets are part of the name.
    """
    pairs = [split_header(header) for header in headers]
    often = Counter(name for name, _ in pairs)
    return [pair if often[pair[0]] == 1 else (header.strip(), "") for header, pair in zip(headers, pairs, strict=True)]


def _is_reading(text: str) -> bool:
    """Tell whether a header is a number or begins as a date does."""
    try:
        float(text)
    except ValueError:
        return bool(re.match(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?:$|[T\s,])", text))
    return True


def _counts(names: list[str]) -> bool:
    """Tell whether the names are 0, 1, 2, … or 1, 2, 3, …, as tables of many meters have them."""
    return any(names == [str(number) for number in range(first, first + len(names))] for first in (0, 1))
