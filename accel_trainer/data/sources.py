"""Files, folders and the built-in bridge into tables.

Read are wide CSV files (``.csv``, ``.txt``, ``.tsv``), Parquet files (``.parquet``, ``.pq``), folders written by
``datasets.save_to_disk`` and ``bhm``, the generator. A reader of a further format returns
:class:`~accel_trainer.data.columns.Columns`; everything after that is the same for all.
"""

from __future__ import annotations

from pathlib import Path

from accel_trainer.config import BUILT_IN_DATA, DataOptions
from accel_trainer.data.sensors import choose_sensors
from accel_trainer.data.table import Table
from accel_trainer.errors import ConfigError, DataError, nearest

__all__ = ["choose_sensors", "read_table"]

_TEXT = (".csv", ".txt", ".tsv")
_PARQUET = (".parquet", ".pq")
_READ = f"read are {', '.join(_TEXT + _PARQUET)} files, folders of datasets.save_to_disk, and {BUILT_IN_DATA}"


def read_table(options: DataOptions) -> Table:
    """Read the data a run asks for: every sensor of it, on a regular grid of rows.

    Empty cells, NaN, infinities and the markers of ``data.missing`` are not observed. Rows missing in a gap of the
    time column are there and not observed. Rows are never sorted, averaged or interpolated.

    Args:
        options: ``path``, ``time_column``, ``period`` and ``missing`` say what is read and how; a column of text is
            passed over only if ``targets`` and ``covariates`` do not ask for it.

    Returns:
        Values are float32 in the units of the file; ``notes`` says what had to be decided.

    Raises:
        ConfigError: ``data.path`` is not set, or ``data.period`` contradicts the time column.
        DataError: the file is missing, of another kind, or cannot be read as a table of readings.
    """
    if options.path is None:
        raise ConfigError("data.path", "is not set; give a CSV or Parquet file, a datasets folder or bhm")
    if options.path == BUILT_IN_DATA:
        from accel_trainer.data.bhm import generate

        return generate(options.bhm).table
    path = Path(options.path).expanduser()
    try:
        return _read_path(path, options)
    except OSError as error:
        raise DataError(f"{options.path} cannot be read: {error.strerror or error}") from None


def _read_path(path: Path, options: DataOptions) -> Table:
    from accel_trainer.data.arrow_source import read_dataset, read_parquet
    from accel_trainer.data.assemble import build_table
    from accel_trainer.data.cells import Markers
    from accel_trainer.data.csv_source import read_csv

    source = str(options.path)
    if path.is_dir():
        return build_table(read_dataset(path, source), options, path.resolve().name)
    if not path.exists():
        raise _missing(path, source)
    suffix = path.suffix.lower()
    if suffix in _PARQUET:
        columns = read_parquet(path, source)
    elif suffix in _TEXT:
        columns = read_csv(path, Markers.of(options.missing), source)
    else:
        raise DataError(f"{source} is of a kind that is not read; {_READ}")
    return build_table(columns, options, path.stem)


def _missing(path: Path, source: str) -> DataError:
    if not path.parent.is_dir():
        return DataError(f"{source} does not exist, nor does its folder {path.parent}")
    names = sorted(entry.name for entry in path.parent.iterdir())
    return DataError(f"{source} does not exist{nearest(path.name, names)}")
