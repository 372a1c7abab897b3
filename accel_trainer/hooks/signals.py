"""A polite end when the system or the user asks for one."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from accel_trainer.trainer.hooks import Hook, Request
from accel_trainer.trainer.state import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from accel_trainer.trainer.loop import Trainer

TERMINATION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that ask for an end, with time to save: schedulers send the first two, a terminal that closes the third."""


def listen(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Handle the signals of :data:`TERMINATION` and SIGINT; return what handled them before.

    A signal that is ignored stays ignored: nohup does that to SIGHUP, so that a logout does not end a run, and a shell
    script does it to SIGINT for what it starts in the background. A thread other than the main one cannot listen, and
    gets an empty dict.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in (*TERMINATION, signal.SIGINT)}
    # None: what a library in C handles, which could not be given back.
    mine = {number: old for number, old in before.items() if old is not signal.SIG_IGN and old is not None}
    for number in mine:
        signal.signal(number, handler)
    return mine


def give_back(before: Mapping[signal.Signals, Any]) -> None:
    """Return signals to what :func:`listen` took them from."""
    for number, handler in before.items():
        signal.signal(number, handler)


def _hand_on(number: signal.Signals) -> None:
    """Let whoever handles a signal now act on one that came before."""
    handler: Any = signal.getsignal(number)
    if callable(handler):
        handler(number, sys._getframe())
    else:
        signal.raise_signal(number)


class Signals(Hook):
    """Finishes the step in hand, saves and stops on SIGTERM, SIGUSR1, SIGHUP or SIGINT; a second SIGINT stops at once.

    An evaluation is not finished: it is left within about a second, and done again when the run goes on.
    """

    name = "signals"

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer) -> Request | None:
        """Begin to listen; where that is not possible a program's own handlers stay."""
        self._before = listen(self._receive)
        # What another handler heard before, and left for training to act upon.
        earlier = (getattr(handler, "received", None) for handler in self._before.values())
        self._received = next(filter(None, earlier), None)
        return None

    def on_step_end(self, trainer: Trainer) -> Request | None:
        """Ask all processes to stop, whichever of them heard the signal."""
        return self._request(f"in step {trainer.state.step}")

    def on_evaluation_batch(self, trainer: Trainer) -> Request | None:
        """Ask all processes to leave the evaluation and stop."""
        return self._request(f"in the evaluation after step {trainer.state.step}")

    def on_train_end(self, trainer: Trainer) -> None:
        """Give the signals back to whoever handled them before."""
        give_back(self._before)
        self._before = {}
        stop = trainer.state.stop
        # Without a reason to stop an error ended training: a checkpoint that could not be written, say. It must not
        # be taken for the polite end that the signal asked for.
        if self._received is not None and stop is not None and stop.kind != "preempted":
            _hand_on(self._received)  # it came when no step was left to ask in: the program's own to handle

    def _request(self, when: str) -> Request | None:
        if self._received is None:
            return None
        return Request(save=True, stop=Stop("preempted", f"{self._received.name} received {when}"), any_process=True)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        # The first is the reason: Ctrl-C also ends accelerate launch, whose end brings SIGTERM.
        self._received = self._received or signal.Signals(number)
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
