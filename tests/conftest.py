"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator

# Read when torch is imported. Models of a few weights gain nothing from threads, which wait by spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a script starts in the background ignores Ctrl-C, and what nohup starts a closed terminal; so would every process
# that a test sends these signals to.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate remembers device and processes for as long as the process lives; no test inherits them."""
    yield
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


@pytest.fixture
def accelerator() -> Accelerator:
    """One process on the CPU, on every machine."""
    from accelerate import Accelerator

    return Accelerator(cpu=True)
