"""Cells into numbers: markers of missing readings, texts that are numbers, and those that are neither."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accel_trainer.data.columns import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_NO_READING = ("", "nan", "-nan", "na", "null", "none", "-", "#nv", "#n/a")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
BEYOND = "is beyond the range of float32 (about ±3.4e38)"
_NO_NUMBER = (
    "is not a number; if it means no reading, add it to data.missing; a column of text is left out once data.targets "
    "names the sensors"
)
_INFINITE = tuple(sign + word for sign in ("", "+", "-") for word in ("inf", "infinity"))


class CellError(Exception):
    """A cell that is not a number float32 can hold; the caller knows file and column and makes the message.

    Args:
        row: row of the array.
        text: what the cell holds.
        reason: what is wrong with it, as the rest of a sentence that starts with the text.
    """

    def __init__(self, row: int, text: str, reason: str) -> None:
        super().__init__(f"row {row}: {text!r} {reason}")
        self.row = row
        self.text = text
        self.problem = f"{quoted(text.strip())} {reason}"


@dataclass(frozen=True)
class Markers:
    """What stands for "no reading", compared without regard to case and surrounding blanks.

    Attributes:
        texts: markers in lower case.
        numbers: markers that are numbers, such as -999; these match by value, so -999.0 is one too.
    """

    texts: tuple[str, ...]
    numbers: tuple[float, ...] = ()

    @classmethod
    def of(cls, further: Iterable[str]) -> Markers:
        """Return the built-in markers and the user's own (``data.missing``)."""
        texts, numbers = [*_NO_READING, *_INFINITE], []
        for marker in further:
            try:
                numbers.append(float(marker))
            except ValueError:
                texts.append(marker.strip().lower())
        return cls(tuple(texts), tuple(number for number in numbers if np.isfinite(number)))

    def spellings(self) -> list[str]:
        """Return the usual spellings of the texts, for readers that compare to the letter."""
        forms = (str, str.upper, str.title, lambda text: text.replace("nan", "NaN"))
        return sorted({form(text) for text in self.texts for form in forms})


def is_text(kind: Any) -> bool:
    """Tell whether an Arrow type holds text."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_number(kind: Any) -> bool:
    """Tell whether an Arrow type holds numbers (or truth values, which count as 0 and 1, or nothing at all)."""
    from pyarrow import types

    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null)
    return any(test(kind) for test in tests)


def plain(array: Any) -> Any:
    """Return a chunked array without dictionary encoding, its text as ``string``."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    return array.cast(pa.string()) if is_text(array.type) and not pa.types.is_string(array.type) else array


def first_true(condition: Any) -> int | None:
    """Return the first row where an Arrow condition is true; null counts as false."""
    import pyarrow.compute as pc

    row = int(pc.index(condition, True).as_py())
    return row if row >= 0 else None


def first_not_number(text: Any) -> int | None:
    """Return the first text of an Arrow array that is not a number; null counts as one."""
    import pyarrow.compute as pc

    return first_true(pc.invert(pc.match_substring_regex(text, _NUMBER)))


def as_numpy(array: Any) -> NDArray[Any]:
    """Return a chunked array of integers or floats, null as NaN; a view where there is one chunk without nulls."""
    if array.null_count:
        nulls_as_nan: NDArray[Any] = array.to_numpy()
        return nulls_as_nan
    # to_numpy would import pandas, a quarter of a second that most files do not need.
    chunks = [np.from_dlpack(chunk) for chunk in array.chunks if len(chunk)]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def to_numbers(array: Any, markers: Markers) -> NDArray[np.floating[Any]]:
    """Return a chunked array as float32 (where it is float32) or float64, NaN where there is no reading.

    Infinities of typed arrays stay; the caller masks them.

    Raises:
        CellError: the first cell that is neither a number nor a marker, or a text beyond the range of float64.
    """
    import pyarrow as pa

    array = plain(array)
    if is_text(array.type):
        array = _parse(array, markers)
    elif not is_number(array.type):
        row = first_true(array.is_valid())
        if row is not None:
            raise CellError(row, str(array[row].as_py()), _NO_NUMBER)
        array = pa.chunked_array([pa.nulls(len(array))])
    if not pa.types.is_float32(array.type):
        # Whole numbers above 2**53 lose digits here, as float32 would lose them anyway.
        array = array.cast(pa.float64(), safe=False)
    values = as_numpy(array)
    if markers.numbers:
        gone = np.isin(values, np.array(markers.numbers, dtype=values.dtype))
        values = np.where(gone, values.dtype.type(np.nan), values)
    return values


def _parse(array: Any, markers: Markers) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(array)
    missing = pc.is_in(pc.utf8_lower(text), value_set=pa.array(markers.texts, pa.string()))
    text = pc.if_else(missing, pa.scalar(None, pa.string()), text)
    row = first_not_number(text)
    if row is not None:
        shown = array[row].as_py()
        comma = _COMMA.fullmatch(shown.strip())
        raise CellError(row, shown, "needs a decimal point, not a comma" if comma else _NO_NUMBER)
    numbers = pc.cast(pc.replace_substring_regex(text, r"^\+", ""), pa.float64())
    row = first_true(pc.is_inf(numbers))
    if row is not None:
        raise CellError(row, array[row].as_py(), BEYOND)
    return numbers
