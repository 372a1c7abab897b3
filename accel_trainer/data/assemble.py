"""The columns of a file into a table: finds the time column, places the rows and converts the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from accel_trainer.config import DataOptions
from accel_trainer.data.cells import BEYOND, CellError, Markers, first_true, is_text, plain, to_numbers
from accel_trainer.data.clock import Placement, place_rows
from accel_trainer.data.columns import Columns, quoted
from accel_trainer.data.headers import means_time, name_sensors, refuse_bad_headers, split_header
from accel_trainer.data.sensors import match_sensors
from accel_trainer.data.table import Clock, Table
from accel_trainer.data.timestamps import TimeColumn, is_date, read_stamps
from accel_trainer.errors import DataError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NO_TIME = "none"


def build_table(columns: Columns, options: DataOptions, item_id: str) -> Table:
    """Make a table of the columns of a wide file.

    Raises:
        DataError: the columns are no table of readings, the time column is missing, ambiguous or uneven, or a cell
            is not a number.
    """
    markers = Markers.of(options.missing)
    _refuse_prose(columns, markers)
    refuse_bad_headers(columns.headers, columns.source)
    _drop_unnamed(columns)
    time, others = _time_columns(columns, options.time_column)
    if others:
        listed = ", ".join(columns.headers[column] for column in others)
        columns.notes.append(f"Columns of time besides the time column were left out: {listed}.")
    sensors = [column for column in range(len(columns.headers)) if column != time and column not in others]
    if not sensors:
        raise DataError(f"{columns.source} has no column of readings, only {', '.join(columns.headers)}")
    placement = _place(columns, time, options)
    pairs = name_sensors([columns.headers[column] for column in sensors])
    filler = _Filler(columns, markers, placement, len(sensors))
    left_out: list[int] = []
    for index, column in enumerate(sensors):
        try:
            filler.fill(index, column)
        except CellError as error:
            if _is_wanted(index, pairs, options, columns.source):
                where = f"{columns.source}, {columns.place(error.row)}, column {columns.headers[column]!r}"
                raise DataError(f"{where}: {error.problem}") from None
            left_out.append(index)
    kept = [index for index in range(len(sensors)) if index not in left_out]
    if left_out:
        listed = ", ".join(pairs[index][0] for index in left_out)
        columns.notes.append(
            f"Columns that are not numbers throughout and neither target nor covariate were left out: {listed}."
        )
    table = Table(
        values=filler.values,
        observed=filler.observed,
        sensors=tuple(name for name, _ in pairs),
        units=tuple(unit for _, unit in pairs),
        clock=placement.clock,
        item_id=item_id,
        notes=(*columns.notes, *placement.notes),
    )
    return table.select([pairs[index][0] for index in kept]) if left_out else table


class _Filler:
    """Writes columns of cells into the grid."""

    def __init__(self, columns: Columns, markers: Markers, placement: Placement, sensors: int) -> None:
        self.columns = columns
        self.markers = markers
        self.values = np.zeros((placement.length, sensors), np.float32)
        self.observed = np.zeros((placement.length, sensors), np.bool_)
        self.rows: NDArray[np.int64] | slice = slice(None) if placement.rows is None else placement.rows

    def fill(self, sensor: int, column: int) -> None:
        """Convert one column of the file; CellError where a cell is no number that float32 can hold."""
        numbers = to_numbers(self.columns.take(column), self.markers)
        finite = np.isfinite(numbers)
        if not finite.all():
            if self.columns.reread is not None and np.isinf(numbers).any():
                # In a text file every spelling of infinity is a marker: these are numbers beyond float64, or
                # spellings the fast reader does not know, and only the text tells which.
                numbers = to_numbers(self.columns.reread(column), self.markers)
                finite = np.isfinite(numbers)
            numbers = np.where(finite, numbers, numbers.dtype.type(0))
        with np.errstate(over="ignore"):
            single = numbers.astype(np.float32, copy=False)
        beyond = np.flatnonzero(np.isinf(single))
        if beyond.size:
            row = int(beyond[0])
            raise CellError(row, f"{numbers[row]:g}", BEYOND)
        self.values[self.rows, sensor] = single
        self.observed[self.rows, sensor] = finite


def _is_wanted(index: int, pairs: list[tuple[str, str]], options: DataOptions, source: str) -> bool:
    names = [name for name, _ in pairs]
    first, then, _ = match_sensors(names, [unit for _, unit in pairs], options.targets, options.covariates, source)
    return names[index] in first or names[index] in then


def _drop_unnamed(columns: Columns) -> None:
    """Take out wholly empty columns without a name, as a trailing comma makes them; refuse others but one of dates."""
    kept = []
    for column, header in enumerate(columns.headers):
        array = columns.arrays[column]
        row = None if header else first_true(array.is_valid())
        # pandas writes an index of dates as a first column without a name.
        if header or (row is not None and column == 0 and is_date(array)):
            kept.append(column)
        elif row is not None:
            raise DataError(
                f"{columns.source}: column {column + 1} has no name but holds {quoted(array[row].as_py())} in "
                f"{columns.place(row)}; give it a name in the header"
            )
    columns.keep(kept)


def _refuse_prose(columns: Columns, markers: Markers) -> None:
    """Refuse a file most of whose columns hold text: metadata, a log, a table with several header lines."""
    prose = []
    filled = 0
    for column, array in enumerate(columns.arrays):
        head = plain(array.slice(0, 1000)).drop_null()
        if not len(head) or not columns.headers[column]:
            continue
        filled += 1
        if is_text(head.type) and not is_date(head):
            try:
                to_numbers(head, markers)
            except CellError as error:
                prose.append((column, error.text))
    if len(prose) > filled / 2:
        column, text = prose[0]
        raise DataError(
            f"{columns.source} is not a table of readings: {len(prose)} of its {filled} filled columns hold text, such "
            f"as {quoted(text)} under {columns.headers[column]!r}; expected are one header line and numbers below it"
        )


def _time_columns(columns: Columns, wanted: str | None) -> tuple[int | None, list[int]]:
    """Return the time column, and others that hold time and are therefore no sensors."""
    by_name = [column for column, header in enumerate(columns.headers) if means_time(header)]
    dates = [column for column, array in enumerate(columns.arrays) if is_date(array)]
    either = sorted({*by_name, *dates})
    if wanted is not None and wanted.casefold() == _NO_TIME:
        return None, either
    if wanted is not None:
        chosen = _named(columns, wanted)
        return chosen, [column for column in either if column != chosen]
    found = by_name or dates
    if len(found) > 1:
        listed = ", ".join(repr(columns.headers[column]) for column in found)
        raise DataError(
            f"{columns.source}: {listed} could each be the time; name one in data.time_column (date and time of day in "
            "two columns must be joined first)"
        )
    return (found[0] if found else None), [column for column in either if column not in found[:1]]


def _named(columns: Columns, wanted: str) -> int:
    names = [split_header(header)[0] for header in columns.headers]
    for known in (columns.headers, names):
        if wanted in known:
            return list(known).index(wanted)
    listed = ", ".join(columns.headers[:12]) + (", …" if len(columns.headers) > 12 else "")
    raise DataError(
        f"{columns.source}: no column {wanted!r} (data.time_column){nearest(wanted, names)} (there are: {listed})"
    )


def _place(columns: Columns, time: int | None, options: DataOptions) -> Placement:
    rows = len(columns)
    if time is None:
        if options.period is None:
            return Placement(Clock("rows", 1.0), None, rows, ("There is no time column; rows count as evenly spaced.",))
        return Placement(Clock("seconds", float(options.period)), None, rows)
    _cut_empty_rows(columns, time)
    name, unit = split_header(columns.headers[time])
    stamps = read_stamps(TimeColumn(columns.take(time), name, unit, columns))
    placement = place_rows(stamps.ns, stamps.kind, options.period, columns.source, columns.place)
    columns.notes.extend(stamps.notes)
    return placement


def _cut_empty_rows(columns: Columns, time: int) -> None:
    """Drop rows without time and without readings at the end, as spreadsheets leave them."""
    array: Any = columns.arrays[time]
    if not array.null_count:
        return
    filled = np.flatnonzero(array.is_valid().to_numpy())
    end = int(filled[-1]) + 1 if filled.size else 0
    if 0 < end < len(columns) and all(
        other.slice(end).null_count == len(other) - end for other in columns.arrays if other
    ):
        columns.notes.append(f"{len(columns) - end} empty rows at the end were left out.")
        columns.cut(end)
