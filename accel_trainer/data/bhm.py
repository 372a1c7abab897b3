"""The built-in bridge: physically reasoned monitoring data with known truth, in any size.

A simply supported road bridge is driven by weather and traffic, read by sensors, and the readings get faults. The
rooms: ``bhm_weather`` (air, sun, wind, deck temperatures), ``bhm_traffic`` (vehicles through influence lines),
``bhm_physics`` (stiffness, vibration, creep), ``bhm_sensors`` (what each sensor reads), ``bhm_faults``.

``python -m accel_trainer.data.bhm --out bridge.parquet`` writes it as Parquet.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from accel_trainer.data.bhm_options import FAULT_CLASSES, BridgeOptions
from accel_trainer.errors import ConfigError, DataError, ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from accel_trainer.data.table import Table

__all__ = ["FAULT_CLASSES", "BridgeOptions", "BridgeRecord", "generate", "write_parquet"]


@dataclass(frozen=True, eq=False)
class BridgeRecord:
    """A generated record with its truth.

    Attributes:
        table: what was recorded: readings with faults, and which of them were observed.
        clean: [time, sensors] what a healthy sensor would have read: damage of the bridge and measurement noise
            included, sensor faults and gaps not. Equal to the table's values wherever the label is normal.
        labels: [time, sensors] state of each reading, a number into ``FAULT_CLASSES``.
        damaged: [time] True from the damage event on; all False for an undamaged bridge.
    """

    table: Table
    clean: NDArray[np.float32]
    labels: NDArray[np.int8]
    damaged: NDArray[np.bool_]


def _check_memory(options: BridgeOptions) -> None:
    """Refuse a record that cannot fit: 10 bytes per reading and its truth, some 400 per row for what drives them."""
    needed = options.rows * (options.sensors * 10 + 400)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed:
        raise ConfigError(
            "data.bhm.days",
            f"{options.rows} rows of {options.sensors} sensors need about {needed / 1e9:.0f} GB of memory, this "
            f"machine has {installed / 1e9:.0f}; take fewer days or sensors, or a longer period",
        )


def generate(options: BridgeOptions) -> BridgeRecord:
    """Return the bridge these options describe.

    Every purpose has its own random stream: without faults the clean signal is the same, more sensors leave the first
    ones as they are, and a damage event changes nothing before it. After it, load-induced deflection and strain grow
    by 1/(1 - damage), frequencies fall by sqrt(1 - damage), and free thermal movement stays (prestress or camber
    carries the dead load, so the sag under it stays too).

    Raises:
        ConfigError: the record would not fit in memory.
    """
    import numpy as np

    from accel_trainer.data.bhm_faults import LABEL, add_faults, logger_outages
    from accel_trainer.data.bhm_physics import make_state
    from accel_trainer.data.bhm_sensors import KINDS, catalogue, read
    from accel_trainer.data.table import Clock, Table

    _check_memory(options)
    state = make_state(options)
    sensors = catalogue(options.sensors)
    shape = (options.rows, len(sensors))
    clean = np.empty(shape, dtype=np.float32)
    values = np.empty(shape, dtype=np.float32)
    labels = np.zeros(shape, dtype=np.int8)
    outages = logger_outages(options.rows, options.seed, options.period)
    for column, sensor in enumerate(sensors):
        healthy = read(state, sensor, options.seed)
        clean[:, column] = healthy
        if options.faults:
            values[:, column], labels[:, column] = add_faults(
                healthy, sensor.name, options.seed, options.period, outages, KINDS[sensor.kind].lowest
            )
    if not options.faults:
        values = clean.copy()
    observed = labels != LABEL["missing"]
    values[~observed] = 0.0
    damaged = state.stiffness < 1
    notes = [f"generated: a {options.kind} bridge, seed {options.seed}"]
    if damaged.any():
        notes.append(f"stiffness falls by {options.damage:.0%} on day {options.event_day:g}")
    table = Table(
        values=values,
        observed=observed,
        sensors=tuple(sensor.name for sensor in sensors),
        units=tuple(KINDS[sensor.kind].unit for sensor in sensors),
        clock=Clock("datetime", options.period, options.start_ns),
        item_id="bhm",
        notes=tuple(notes),
    )
    return BridgeRecord(table, clean, labels, damaged)


def _columns(record: BridgeRecord, part: str) -> Any:
    """Return one part of a record as a ``datasets.Dataset``: a time column and one column per sensor."""
    import pyarrow as pa
    from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value

    table = record.table
    columns: dict[str, Any] = {"time": pa.array(table.clock.labels(0, len(table)))}
    features: dict[str, Any] = {"time": Value("timestamp[ns]")}
    for i, (sensor, unit) in enumerate(zip(table.sensors, table.units, strict=True)):
        if part == "labels":
            columns[sensor] = pa.array(record.labels[:, i].astype("int64"))
            features[sensor] = ClassLabel(names=list(FAULT_CLASSES))
            continue
        name = f"{sensor} [{unit}]"
        features[name] = Value("float32")
        if part == "clean":
            columns[name] = pa.array(record.clean[:, i])
        else:
            columns[name] = pa.array(table.values[:, i], mask=~table.observed[:, i])
    if part == "labels":
        columns["damaged"] = pa.array(record.damaged)
        features["damaged"] = Value("bool")
    return Dataset(pa.table(columns), info=DatasetInfo(features=Features(features)))


def companions(path: str | Path) -> dict[str, Path]:
    """Return where the truth beside a Parquet file lies: ``clean`` and ``labels``."""
    path = Path(path)
    return {part: path.with_name(f"{path.stem}_{part}.parquet") for part in ("clean", "labels")}


def write_parquet(record: BridgeRecord, path: str | Path, *, truth: bool = False) -> None:
    """Write a record as Parquet through ``datasets``; each file appears whole or not at all.

    The file has a ``time`` column and one float32 column per sensor, named ``name [unit]``, null where nothing was
    observed.

    Args:
        record: what :func:`generate` returned.
        path: file to write, ending in ``.parquet``; an older one is replaced.
        truth: also write ``<stem>_clean.parquet`` (the same columns without faults) and ``<stem>_labels.parquet``
            (the fault class of each reading, and ``damaged``).

    Raises:
        DataError: the path cannot be written, or the truth of an older file would be left beside the new one.
    """
    path = Path(path)
    files = {"readings": path} | (companions(path) if truth else {})
    _check_target(path, stale=[] if truth else [file for file in companions(path).values() if file.exists()])
    staged = {part: file.with_name(f".{file.name}.{os.getpid()}.tmp") for part, file in files.items()}
    try:
        for part, temporary in staged.items():
            _columns(record, part).to_parquet(temporary)
        for part, temporary in staged.items():
            temporary.replace(files[part])
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def _check_target(path: Path, stale: Sequence[Path] = ()) -> None:
    if path.suffix != ".parquet":
        raise DataError(f"{path}: the name must end in .parquet")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not a file")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}")
    if stale:
        raise DataError(
            f"{path}: {stale[0].name} beside it is the truth of another record; remove it or write it anew (--truth)"
        )


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}; see --help\n")


def _parse(arguments: Sequence[str] | None) -> tuple[Path, bool, BridgeOptions]:
    parser = _Parser(
        prog="python -m accel_trainer.data.bhm",
        description="Generate monitoring data of a bridge and write them as Parquet.",
    )
    default = BridgeOptions()
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="Parquet file to write")
    add(
        "--truth",
        action="store_true",
        help="also write FILE_clean.parquet and FILE_labels.parquet: signal and fault labels",
    )
    add("--days", type=float, help=f"length of the record in days (default {default.days:g})")
    add(
        "--period",
        type=float,
        help=f"seconds between two rows, each a mean over that time (default {default.period:g})",
    )
    add("--sensors", type=int, help=f"number of sensors, 1 to 1000 (default {default.sensors})")
    add("--start", help=f"first moment, an ISO date (default {default.start})")
    add("--seed", type=int, help=f"seed of weather, traffic, noise and faults (default {default.seed})")
    add("--faults", action=BooleanOptionalAction, help="sensor faults and gaps (default: with faults)")
    add("--damage", type=float, help="share of stiffness lost at the damage event (default 0: no damage)")
    add("--damage-day", type=float, help="day of the damage event (default: two thirds through the record)")
    add("--kind", choices=("concrete", "steel"), help=f"material of the bridge (default {default.kind})")
    given = vars(parser.parse_args(arguments))
    names = {field.name for field in fields(BridgeOptions)}
    options = {name: value for name, value in given.items() if name in names and value is not None}
    return given["out"], given["truth"], BridgeOptions(**options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate and write a bridge from the command line; return the exit code."""
    try:
        path, truth, options = _parse(arguments)
        _check_target(path)
        record = generate(options)
        import datasets

        datasets.disable_progress_bars()
        write_parquet(record, path, truth=truth)
    except ConfigError as error:
        flag = error.key.rpartition(".")[2].replace("_", "-")
        print(f"--{flag}: {error.problem}", file=sys.stderr)
        return error.exit_code
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    table = record.table
    first, last = table.clock.labels(0, len(table))[[0, -1]].astype("datetime64[s]")
    missing = 1 - float(table.observed.mean())
    print(
        f"{path}: {len(table)} rows of {len(table.sensors)} sensors, {first} to {last} every {options.period:g} s, "
        f"{missing:.1%} missing, {path.stat().st_size / 1e6:.1f} MB"
    )
    if truth:
        print("truth: " + ", ".join(str(file) for file in companions(path).values()))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
