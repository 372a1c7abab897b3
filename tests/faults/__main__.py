"""Interrupt trainings for as long as you like, and print what was tried and what was lost as a Markdown table."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.bench import Bench
from tests.faults.cases import programme

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.case import Case, Record


def main() -> int:
    """Run the programme; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is done at random (default: 0)")
    parser.add_argument("--kills", type=int, default=40, help="SIGKILLs at random instants in all (default: 40)")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2, 3], help="of the runs that these come to (default: 1 2 3)"
    )
    parser.add_argument("--quick", action="store_true", help="only what the test suite does without its slow tests")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args()

    cases = [case for case in programme(options.kills, options.processes) if options.only in str(case)]
    if options.quick:
        cases = [case for case in cases if not case.slow]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        records = _perform(cases, Bench(Path(folder)), options.seed)
    print(f"\n{_table(records)}")
    return 1 if any(record.lost is not None for record in records) else 0


def _perform(cases: Sequence[Case], bench: Bench, seed: int) -> list[Record]:
    records = []
    for number, case in enumerate(cases, start=1):
        begin = time.perf_counter()
        record = case.perform(bench, seed)
        took = time.perf_counter() - begin
        print(f"{number}/{len(cases)} {case} ({took:.0f} s) {record.left_out}", file=sys.stderr, flush=True)
        if record.lost is not None:
            traceback.print_exception(record.lost)
        records.append(record)
    return records


def _table(records: Sequence[Record]) -> str:
    lines = ["| what happens | to what | times | lost |", "|---|---|---:|---|"]
    for record in records:
        case, lost = record.case, "nothing" if record.lost is None else str(record.lost).partition("\n")[0]
        times, lost = ("–", f"not tried: {record.left_out}") if record.left_out else (str(record.times), lost)
        lines.append(f"| {case.fault} | {case.setting} | {times} | {lost} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
