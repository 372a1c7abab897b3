"""A polite end when the system or the user asks for one."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from accel_trainer.trainer.hooks import Hook, Request
from accel_trainer.trainer.state import Stop

if TYPE_CHECKING:
    from types import FrameType

    from accel_trainer.trainer.loop import Trainer


class Signals(Hook):
    """Finishes the step in hand, saves and stops on SIGTERM or SIGINT; a second SIGINT stops at once."""

    name = "signals"

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Begin to listen; a thread other than the main one cannot, and a program's own handlers stay then."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return None

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Ask all processes to stop, whichever of them heard the signal."""
        if self._received is None:
            return None
        reason = f"{self._received.name} received in step {trainer.state.step}"
        return Request(save=True, stop=Stop("preempted", reason), any_process=True)

    def on_train_end(self, trainer: Trainer) -> None:
        """Give the signals back to whoever handled them before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        stop = trainer.state.stop
        if self._received is not None and (stop is None or stop.kind != "preempted"):
            signal.raise_signal(self._received)  # it came when no step was left to ask in: the program's own to handle

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = signal.Signals(number)
