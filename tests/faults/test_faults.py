"""Whatever happens to a run, it ends as if nothing had happened; ``python -m tests.faults`` tries it more often."""

from __future__ import annotations

import sys

import pytest

from tests.faults.bench import Bench
from tests.faults.case import Case
from tests.faults.cases import in_ci

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the processes of a start are looked for in /proc")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in in_ci()]
)
def test_nothing_is_lost(bench: Bench, case: Case) -> None:
    record = case.perform(bench, seed=0)
    if record.left_out:
        pytest.skip(record.left_out)
    if record.lost is not None:
        raise record.lost
    assert record.times
