"""Parquet files and folders written by ``datasets.save_to_disk`` into columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accel_trainer.data.columns import Columns
from accel_trainer.errors import DataError

_PANDAS_INDEX = "__index_level_"


def read_parquet(path: Path, source: str) -> Columns:
    """Read a wide Parquet file.

    Raises:
        DataError: not a Parquet file, no rows, or a column of lists or records.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path, memory_map=True).read()
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{source} cannot be read as Parquet: {reason}") from None
    return _columns(table, source)


def read_dataset(folder: Path, source: str) -> Columns:
    """Read a folder written by ``Dataset.save_to_disk``, or by ``DatasetDict.save_to_disk`` with a single split.

    Raises:
        DataError: the folder is no dataset, holds several splits, has no rows, or a column of lists or records.
    """
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        files = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in (".csv", ".parquet"))
        hint = f"; give one of its files: {', '.join(files[:5])}" if files else ""
        raise DataError(f"{source} is a folder, but not one written by datasets.save_to_disk{hint}")
    import datasets
    import pyarrow as pa

    try:
        loaded: Any = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
        # A damaged folder shows as whichever of its JSON or Arrow files is read first.
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{source} cannot be read as a datasets folder: {reason}") from None
    if isinstance(loaded, datasets.DatasetDict):
        splits = list(loaded)
        if len(splits) != 1:
            folders = ", ".join(f"{source.rstrip('/')}/{split}" for split in splits) or "it is empty"
            raise DataError(f"{source} holds {len(splits)} splits; name one folder in data.path: {folders}")
        loaded = loaded[splits[0]]
    if len(loaded) == 0:
        raise DataError(f"{source} has no rows")
    return _columns(loaded.with_format("arrow")[:], source)


def _columns(table: Any, source: str) -> Columns:
    from pyarrow import types

    if table.num_rows == 0:
        raise DataError(f"{source} has no rows")
    notes = []
    headers, arrays = [], []
    for name, array in zip(table.column_names, table.columns, strict=True):
        kind = array.type
        if types.is_nested(kind):
            raise DataError(
                f"{source}: column {name!r} holds {kind}; a wide table with one number per cell is expected "
                "(a time column and one column per sensor)"
            )
        if name.startswith(_PANDAS_INDEX) and not (types.is_timestamp(kind) or types.is_date(kind)):
            notes.append(f"The pandas index {name} was left out.")
            continue
        headers.append(name.strip())
        arrays.append(array)
    if not headers:
        raise DataError(f"{source} has no columns")
    return Columns(source, tuple(headers), arrays, lambda row: f"row {row + 1}", notes=notes)
