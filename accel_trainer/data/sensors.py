"""Which sensors are forecast and which are only looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from accel_trainer.data.headers import split_header
from accel_trainer.data.table import Table
from accel_trainer.errors import DataError, nearest


def match_sensors(
    known: Sequence[str],
    units: Sequence[str],
    targets: Sequence[str],
    covariates: Sequence[str],
    item: str,
) -> tuple[list[str], list[str], set[str]]:
    """Resolve names and patterns; see :func:`choose_sensors` for the rules.

    Returns:
        Targets, covariates, and those of both that were named to the letter.

    Raises:
        DataError: a name or pattern that fits no sensor, one sensor in both lists, or no target left.
    """
    wanted = _resolve(targets, known, units, item)
    others = _resolve(covariates, known, units, item)
    named = {name for name, exact in (*wanted.items(), *others.items()) if exact}
    for name in wanted.keys() & others.keys():
        if wanted[name] and others[name]:
            raise DataError(f"{item}: {name!r} is among data.targets and data.covariates; name it in one of them")
    if not targets:
        wanted = {name: False for name in known if name not in others}
    # What is named to the letter stays where it was named; between two patterns the targets win.
    first = [name for name, exact in wanted.items() if exact or not others.get(name, False)]
    then = [name for name in others if name not in first]
    if not first:
        raise DataError(f"{item}: data.covariates takes every sensor; name what is to be forecast in data.targets")
    return first, then, named


def choose_sensors(table: Table, targets: Sequence[str], covariates: Sequence[str]) -> tuple[Table, int]:
    """Return the table with the targets first, then the covariates, and the number of targets.

    A name is a sensor's name, its whole header (``DMS_AS [um/m]``), or a pattern with ``*``, ``?`` or ``[…]``; an
    exact name wins over a pattern. Order is as listed, and as in the file within a pattern. Without targets every
    sensor that is not a covariate is one. A sensor matched by targets and covariates belongs to the list that names
    it to the letter, else to the targets, so the covariate ``*`` means all the others. Sensors without a single
    reading are left out and noted, unless they are named.

    Raises:
        DataError: an unknown name (the nearest is given), a sensor in both lists, a named sensor without a reading,
            or no target left.
    """
    item = table.item_id
    first, then, named = match_sensors(table.sensors, table.units, targets, covariates, item)
    silent = {name for column, name in enumerate(table.sensors) if not table.observed[:, column].any()}
    for name in first + then:
        if name in silent and name in named:
            raise DataError(f"{item}: sensor {name!r} has no reading in any row; take it out of the list")
    dropped = [name for name in first + then if name in silent]
    kept = [name for name in first if name not in silent]
    if not kept:
        raise DataError(f"{item}: no target has a reading in any row ({', '.join(dropped[:5])})")
    chosen = table.select(kept + [name for name in then if name not in silent])
    if dropped:
        note = f"Sensors without a single reading were left out: {', '.join(dropped)}."
        chosen = replace(chosen, notes=(*chosen.notes, note))
    return chosen, len(kept)


def _resolve(wanted: Sequence[str], known: Sequence[str], units: Sequence[str], item: str) -> dict[str, bool]:
    """Return the matched sensors in order, True where named to the letter."""
    found: dict[str, bool] = {}
    for name in wanted:
        exact = _exact(name, known, units)
        if exact is not None:
            found[exact] = True
            continue
        matches = [sensor for sensor in known if fnmatchcase(sensor, name)] if set(name) & set("*?[") else []
        if not matches and name != "*":
            raise DataError(f"{item}: no sensor {name!r}{_similar(name, known)} (there are: {_listed(known)})")
        for sensor in matches:
            found.setdefault(sensor, False)
    return found


def _exact(name: str, known: Sequence[str], units: Sequence[str]) -> str | None:
    if name in known:
        return name
    stem, unit = split_header(name)
    return stem if stem in known and units[known.index(stem)] == unit else None


def _similar(name: str, known: Iterable[str]) -> str:
    """Like ``nearest``, but another case is the nearest of all."""
    folded = {sensor.casefold(): sensor for sensor in known}
    if name.casefold() in folded:
        return f"; did you mean {folded[name.casefold()]!r}?"
    return nearest(name, folded.values())


def _listed(known: Sequence[str]) -> str:
    return ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
