"""What a file holds, column by column, before any of it is given a meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Columns:
    """The columns of one source.

    Every reader of a file format returns this; :mod:`accel_trainer.data.assemble` makes a table of it.

    Attributes:
        source: the file or folder as the user named it, for messages.
        headers: column names as written, without surrounding blanks; ``""`` where a column has none.
        arrays: one chunked Arrow array per header, all of the same length, in the types that the format or its
            reader gave; None once taken.
        place: names a row the way the user finds it, such as ``line 17``.
        reread: returns a column as the text it has in the file; None where the format has types of its own.
        notes: what the reader of the format had to decide, one sentence each.
    """

    source: str
    headers: tuple[str, ...]
    arrays: list[Any]
    place: Callable[[int], str]
    reread: Callable[[int], Any] | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return next(len(array) for array in self.arrays if array is not None)

    def take(self, column: int) -> Any:
        """Return a column and forget it, so that its memory is free once it has been converted."""
        array, self.arrays[column] = self.arrays[column], None
        return array

    def keep(self, columns: Sequence[int]) -> None:
        """Keep these columns, in this order; one without a name is called by its number in the source."""
        self.headers = tuple(self.headers[column] or f"column {column + 1}" for column in columns)
        self.arrays = [self.arrays[column] for column in columns]
        if self.reread is not None:
            before = self.reread
            self.reread = lambda column: before(columns[column])

    def cut(self, rows: int) -> None:
        """Keep the first ``rows`` rows."""
        self.arrays = [array if array is None else array.slice(0, rows) for array in self.arrays]
        if self.reread is not None:
            before = self.reread
            self.reread = lambda column: before(column).slice(0, rows)


def quoted(text: object, longest: int = 40) -> str:
    """Return the text in quotes, cut where it is too long for a message."""
    shown = str(text)
    return repr(shown if len(shown) <= longest else shown[:longest] + "…")
