"""What signals do to a command: outside of training, while modules are imported, and when nothing else helps.

During training :class:`accel_trainer.hooks.signals.Signals` hears them instead; a second Ctrl-C is watched for here in
any case, because a process that waits for another one inside of C code runs no handler of Python's.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any

from accel_trainer.hooks.signals import give_back, listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from accel_trainer.command import Outcome

_KNOCK_AGAIN = 0.05
"""Seconds after which a signal that came at a bad moment is sent once more."""
_PATIENCE = 5.0
"""Seconds that a second Ctrl-C gives the main thread to end by itself."""


class TerminatedError(BaseException):
    """A signal came while nothing was in hand that had to be finished first; no ``except Exception`` may stop it."""


class Listener:
    """Ends the command on a signal, once.

    Args:
        outcome: of the command; tells whether this process decides how it ends.
        at_once: called on a thread of its own when the main thread does not answer a second Ctrl-C; the process ends
            when it returns, with this as its exit code.

    Attributes:
        received: the signal that ended the command, or is left for training to act upon.
    """

    def __init__(self, outcome: Outcome, at_once: Callable[[], int]) -> None:
        self._outcome, self._at_once = outcome, at_once
        self._deaf = False
        self._before: dict[signal.Signals, Any] = {}
        self._knocks: list[threading.Timer] = []
        self._woken: tuple[socket.socket, socket.socket] | None = None
        self._wakeup_before = -1
        self._ended = threading.Event()
        self.received: signal.Signals | None = None

    def begin(self) -> bool:
        """Listen from now on; return whether that is possible, which it is on the main thread alone."""
        self._before = listen(self)
        if signal.SIGINT in self._before:
            mine, theirs = socket.socketpair()
            theirs.setblocking(False)
            # The system's own part of Python's handler writes there, whatever the main thread is busy with.
            self._wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            self._woken = mine, theirs
            threading.Thread(target=self._watch, args=(mine,), name="second Ctrl-C", daemon=True).start()
        return bool(self._before)

    def deafen(self) -> None:
        """Let no signal disturb what is left to do; one that came before still ends the command."""
        self._deaf = True

    def end(self) -> None:
        """Give the signals back to whoever heard them before."""
        self._ended.set()
        for knock in self._knocks:
            knock.cancel()
        if self._woken is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            self._woken[0].shutdown(socket.SHUT_RDWR)  # wakes the thread, as closing alone would not
            for end in self._woken:
                end.close()
            self._woken = None
        give_back(self._before)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._deaf:
            return
        if _is_bad_moment(frame):
            self._knock_again(number)
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._outcome.follows:
            self.received = signal.Signals(number)
            return
        # One end often brings several signals: the scheduler's, the launcher's, and that of the launcher's own end.
        if self.received is None and self._outcome.settled() is None:
            self.received = signal.Signals(number)
            raise TerminatedError

    def _knock_again(self, number: int) -> None:
        main = threading.main_thread().ident
        assert main is not None
        knock = threading.Timer(_KNOCK_AGAIN, signal.pthread_kill, (main, number))
        knock.daemon = True
        self._knocks = [other for other in self._knocks if other.is_alive()] + [knock]
        knock.start()

    def _watch(self, woken: socket.socket) -> None:
        interrupts = 0
        while True:
            try:
                heard = woken.recv(64)
            except OSError:
                return  # closed: the command has ended
            if not heard:
                return
            interrupts += heard.count(signal.SIGINT)
            if interrupts >= 2 and not self._ended.wait(_PATIENCE):
                os._exit(self._at_once())


def _is_bad_moment(frame: FrameType | None) -> bool:
    """Whether an exception raised here would do damage, or be lost.

    In the midst of an import it leaves half a module behind, or is taken for a module that cannot be imported. What is
    raised while an object is disposed of is printed and forgotten.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_filename == weakref.__file__:
            return True
        if code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
