"""Reads what wandb wrote offline: a ``.wandb`` file is a LevelDB log of protobuf records behind a header of 7 bytes."""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 32 * 1024
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """Content of a segment.

    Attributes:
        rows: logged rows without W&B's own columns.
        axes: metric or pattern -> the metric it is drawn over.
        kinds: how many records of each kind there are.
    """

    run_id: str = ""
    name: str = ""
    project: str = ""
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)


def read_offline_run(folder: Path) -> OfflineRun:
    """Read the segment in a folder such as ``wandb/offline-run-20260101_120000-abcd1234``."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("run-*.wandb")
    run = OfflineRun()
    for content in _records(path.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        run.kinds[kind] += 1
        if kind == "run":
            run.run_id, run.name, run.project = record.run.run_id, record.run.display_name, record.run.project
            _update(run.config, record.run.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run.rows.append({k: v for k, v in row.items() if not k.startswith("_")})
        elif kind == "metric":
            run.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        *parents, key = item.nested_key or [item.key]
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[key] = json.loads(item.value_json)


def _records(log: bytes) -> Iterator[bytes]:
    """Yield whole records; a last one that was cut short by a crash is left out."""
    assert log[:4] == b":W&B", "not a .wandb file"
    position, parts = 7, b""
    while position + 7 <= len(log):
        room = _BLOCK - position % _BLOCK
        if room < 7:  # too small for the head of a chunk: padding
            position += room
            continue
        checksum, length, kind = struct.unpack_from("<IHB", log, position)
        chunk = log[position + 7 : position + 7 + length]
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(chunk) < length:
            return
        assert zlib.crc32(chunk, zlib.crc32(bytes([kind]))) == checksum
        position += 7 + length
        parts = chunk if kind in (_FULL, _FIRST) else parts + chunk
        if kind in (_FULL, _LAST):
            yield parts
