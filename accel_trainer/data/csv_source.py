"""Comma, semicolon or tab separated text into columns."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from accel_trainer.data.columns import Columns
from accel_trainer.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from accel_trainer.data.cells import Markers

_SEPARATORS = (",", ";", "\t")
_SAMPLE_BYTES = 1 << 18
_SAMPLE_ROWS = 50
_BINARY_KINDS = {
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"PK\x03\x04": "an Excel or zip file; save the sheet as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        encoding: ``utf-8`` or ``latin-1``.
        separator: between fields.
        headers: column names, without surrounding blanks.
        body: byte at which the rows begin.
        first_line: number of the first line after the header; 1 is the first line of the file.
    """

    encoding: str
    separator: str
    headers: tuple[str, ...]
    body: int
    first_line: int


def read_csv(path: Path, markers: Markers, source: str) -> Columns:
    """Read a text file with one header line, all columns in the narrowest type that fits every row.

    Text is UTF-8 with or without a byte order mark, else Latin-1 (noted). Blank lines are passed over, except in a
    file of one column, where they are missing readings. Numbers have a decimal point.

    Args:
        path: the file.
        markers: texts that stand for no reading.
        source: the file as the user named it, for messages.

    Raises:
        DataError: not a text file, empty, without rows, or a row with another number of fields than the header.
    """
    import pyarrow as pa

    if path.stat().st_size == 0:
        raise DataError(f"{source} is empty")
    content = pa.memory_map(str(path)).read_buffer()
    try:
        dialect = sniff(memoryview(content), source)
    except csv.Error as error:
        raise DataError(f"{source} cannot be read as CSV: {error}") from None
    reader = _Reader(path, source, dialect, content)
    table = reader.read(markers.spellings())
    notes = ["The file is not UTF-8; its text was read as Latin-1."] if dialect.encoding == "latin-1" else []
    return Columns(source, dialect.headers, list(table.columns), reader.place, reader.reread, notes)


def sniff(content: memoryview, source: str) -> Dialect:
    """Find out encoding, separator and header of a text file.

    Raises:
        DataError: not a text file, or nothing in it.
    """
    sample = bytes(content[:_SAMPLE_BYTES])
    if b"\n" not in sample and b"\r" not in sample:
        sample = bytes(content)
    for start, kind in _BINARY_KINDS.items():
        if sample.startswith(start):
            raise DataError(f"{source} is {kind}")
    if set(sample) & (set(range(32)) - set(b"\t\n\v\f\r")):
        raise DataError(f"{source} is not a text file; a CSV file with one header line is expected")
    begin = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    encoding = "utf-8" if _is_utf8(content[begin:]) else "latin-1"
    lines = sample[begin:].splitlines(keepends=True)
    if len(sample) < len(content) and len(lines) > 1:
        lines.pop()  # the sample may end in the middle of it
    texts = [line.decode(encoding) for line in lines]
    separator = _separator(texts)
    rows = csv.reader(texts, delimiter=separator)
    header = next((row for row in rows if any(field.strip() for field in row)), None)
    if header is None:
        raise DataError(f"{source} is empty")
    first_line = rows.line_num + 1
    body = begin + sum(len(line) for line in lines[: rows.line_num])
    first = next((row for row in rows if row), None)
    if first is None and len(header) > 1:
        raise DataError(f"{source} has a header line and no rows")
    header = _level(header, first or [""])
    return Dialect(encoding, separator, tuple(name.strip() for name in header), body, first_line)


def _is_utf8(content: memoryview) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for begin in range(0, len(content), 1 << 20):
            decoder.decode(content[begin : begin + (1 << 20)])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _separator(lines: list[str]) -> str:
    """Return the separator that gives the most rows as many fields as the header, and then the most fields."""
    best, best_rank = ",", (0.0, 1)
    for separator in _SEPARATORS:
        rows = [row for row in csv.reader(lines[:_SAMPLE_ROWS], delimiter=separator) if row]
        if rows and len(rows[0]) > 1:
            alike = sum(abs(len(row) - len(rows[0])) <= 1 for row in rows) / len(rows)
            rank = (round(alike, 1), len(rows[0]))
            if rank > best_rank:
                best, best_rank = separator, rank
    return best


def _level(header: list[str], row: list[str]) -> list[str]:
    """Allow for one trailing separator in the header alone or in the rows alone."""
    if len(row) == len(header) + 1 and not row[-1].strip():
        return [*header, ""]
    if len(row) == len(header) - 1 and not header[-1].strip():
        return header[:-1]
    return header


class _Reader:
    """Reads the rows and finds lines again for messages."""

    def __init__(self, path: Path, source: str, dialect: Dialect, content: pa.Buffer) -> None:
        self.path = path
        self.source = source
        self.dialect = dialect
        self.content = content

    def read(self, missing: list[str], only: int | None = None) -> pa.Table:
        """Read all columns with inferred types, or one as text."""
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        names = [str(column) for column in range(len(self.dialect.headers))]
        body = self.content[self.dialect.body :]
        if len(names) == 1:
            # A blank line is a missing reading here, but those at the end of the file are none.
            body = body[: len(bytes(body).rstrip(b"\r\n")) + 1]
        options: dict[str, Any] = (
            {}
            if only is None
            else {
                "include_columns": [str(only)],
                "column_types": {str(only): pa.string()},
            }
        )
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(body),
                read_options=arrow_csv.ReadOptions(
                    column_names=names,
                    encoding=self.dialect.encoding,
                    block_size=max(1 << 22, 64 * len(names)),
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.dialect.separator, ignore_empty_lines=len(names) > 1
                ),
                convert_options=arrow_csv.ConvertOptions(
                    null_values=missing, true_values=[], false_values=[], strings_can_be_null=True, **options
                ),
            )
        except pa.ArrowInvalid as error:
            self._explain(error)
        if table.num_rows == 0:
            raise DataError(f"{self.source} has a header line and no rows")
        return table

    def reread(self, column: int) -> pa.ChunkedArray:
        """Return one column as it is written in the file."""
        return self.read([], only=column).column(0)

    def place(self, row: int) -> str:
        """Name the line on which a row begins."""
        for count, (line, _) in enumerate(self._rows()):
            if count == row:
                return f"line {line}"
        return f"row {row + 1}"

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, fields) of each row as a plain reader sees them; slow, for messages only."""
        blank_counts = len(self.dialect.headers) == 1
        with self.path.open(encoding=self.dialect.encoding, newline="") as file:
            for _ in range(self.dialect.first_line - 1):
                file.readline()
            rows = csv.reader(file, delimiter=self.dialect.separator)
            begin = self.dialect.first_line
            for fields in rows:
                if fields or blank_counts:
                    yield begin, fields
                begin = self.dialect.first_line + rows.line_num

    def _explain(self, error: Exception) -> NoReturn:
        """Raise the error a person can act on."""
        expected = len(self.dialect.headers)
        try:
            for line, fields in self._rows():
                if len(fields) != expected:
                    count = f"{len(fields)} field{'s' if len(fields) != 1 else ''}"
                    raise DataError(f"{self.source}, line {line}: {count}, but the header has {expected}") from None
        except csv.Error as cause:
            raise DataError(f"{self.source}: cannot be read as CSV: {cause}") from None
        if "Empty CSV" in str(error):
            raise DataError(f"{self.source} has a header line and no rows") from None
        raise DataError(f"{self.source} cannot be read as CSV: {str(error).splitlines()[0][:200]}") from None
