"""What signals do to a command: outside of training, in the midst of an import, and when its main thread is stuck.

During training :class:`accel_trainer.hooks.signals.Signals` acts on them instead. In any case every signal that comes
from outside is noted here as it arrives, by a thread: a process that waits for another one inside of C code runs no
handler of Python's.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from accel_trainer.hooks.signals import TERMINATION, give_back, listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from accel_trainer.command import Outcome

KNOCK = signal.SIGURG
"""Sent by the process to its own main thread, which then shows that it answers. By default it does nothing."""
_AGAIN = 0.05
"""Seconds between two knocks while a signal that came at a bad moment waits to be acted upon."""
_AT_ONCE, _PATIENCE = 5.0, 120.0
"""Seconds that the main thread may leave a knock unanswered: after a second Ctrl-C, and after any other signal."""
_LAST_WORDS = 3.0
"""Seconds for saying why, on a disk that may be what everything waits for."""


class TerminatedError(BaseException):
    """A signal, its argument, came while nothing was in hand that had to be finished first.

    It is no ``Exception``, so that none that is caught on the way may stop it.
    """


class Listener:
    """Ends the command on a signal, once.

    Args:
        outcome: of the command; tells whether this process decides how it ends.
        stuck: called on a thread of its own when the main thread no longer answers; the process ends when it returns,
            with this as its exit code.

    Attributes:
        received: the signal that ended the command, or is left for training to act upon.
        heard: signals from outside, as they arrived.
    """

    def __init__(self, outcome: Outcome, stuck: Callable[[], int]) -> None:
        self._outcome, self._stuck = outcome, stuck
        self._deaf = self._held = False
        self._imports = 0  # frames of imports that the command itself was begun in
        self._before: dict[signal.Signals, Any] = {}
        self._knock_before: Any = signal.SIG_DFL
        self._wakeup_before = -1
        self._arrivals: tuple[socket.socket, socket.socket] | None = None
        self._arrived, self._answered, self._ended = threading.Event(), threading.Event(), threading.Event()
        self.received: signal.Signals | None = None
        self.heard: list[signal.Signals] = []

    def begin(self) -> bool:
        """Listen from now on; return whether that is possible, which it is on the main thread alone."""
        self._before = listen(self)
        if self._before:
            self._imports = _imports(sys._getframe())
            self._knock_before = signal.signal(KNOCK, self._answer)
            mine, theirs = socket.socketpair()
            theirs.setblocking(False)
            # The system's own part of Python's handlers writes there, whatever the main thread is busy with.
            self._wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            self._arrivals = mine, theirs
            for work in (lambda: self._note(mine), self._watch):
                threading.Thread(target=work, name="signals", daemon=True).start()
        return bool(self._before)

    def deafen(self) -> None:
        """Let no signal disturb what is left to do; one that came before still ends the command."""
        self._deaf = True

    def end(self) -> None:
        """Give the signals back to whoever heard them before."""
        self._ended.set()
        self._arrived.set()
        if self._arrivals is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            self._arrivals[0].shutdown(socket.SHUT_RDWR)  # wakes the thread, as closing alone would not
            for end in self._arrivals:
                end.close()
            self._arrivals = None
            signal.signal(KNOCK, self._knock_before)
        give_back(self._before)

    def is_told_to_end(self, within: float) -> bool:
        """Whether a signal asks for the end by now, or within some seconds."""
        return self._arrived.wait(within)

    # ---- on the main thread ---------------------------------------------------------------------------------------

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Act on a signal, or hold it until the moment is better."""
        if self._deaf:
            return
        if number != signal.SIGINT and (self._outcome.follows or self._outcome.settled() is not None):
            self.received = signal.Signals(number) if self._outcome.follows else self.received
        elif self._is_bad_moment(frame):
            self._held, self.received = True, self.received or signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        elif self.received is None or self._held:
            # One end often brings several signals: the scheduler's, the launcher's, that of the launcher's own end.
            self._held, self.received = False, signal.Signals(number)
            raise TerminatedError(self.received)

    def _answer(self, _number: int, frame: FrameType | None) -> None:
        self._answered.set()
        # What training has taken over in the meantime is its own to act upon.
        held = self.received if self._held else None
        handler: object = None if held is None else signal.getsignal(held)
        if held is not None and handler is self and not self._is_bad_moment(frame):
            self._held = False
            if held != signal.SIGINT:
                self.received = None  # as it would be if it came just now
            self(held, frame)

    def _is_bad_moment(self, frame: FrameType | None) -> bool:
        """Whether an exception raised here would do damage, or be lost.

        In the midst of an import it leaves half a module behind, or is taken for a module that cannot be imported. What
        is raised while an object is disposed of is printed and forgotten.
        """
        return _imports(frame) > self._imports or _disposes(frame)

    # ---- on threads -----------------------------------------------------------------------------------------------

    def _note(self, arrivals: socket.socket) -> None:
        while True:
            try:
                numbers = arrivals.recv(64)
            except OSError:
                return  # closed: the command has ended
            if not numbers:
                return
            own = [signal.Signals(number) for number in numbers if number in self._before]
            self.heard += own
            if own:
                self._arrived.set()

    def _watch(self) -> None:
        """Knock until the command has ended, once a signal has come; end the process when nobody answers."""
        self._arrived.wait()
        main = threading.main_thread().ident
        assert main is not None
        unanswered = 0.0
        while not self._ended.wait(_AGAIN):
            unanswered = 0.0 if self._answered.is_set() else unanswered + _AGAIN
            self._answered.clear()
            at_once = len(self.heard) > 1 and signal.SIGINT in self.heard
            if unanswered > (_AT_ONCE if at_once else _PATIENCE):
                last = threading.Timer(_LAST_WORDS, os._exit, (130,))
                last.daemon = True
                last.start()
                os._exit(self._stuck())
            signal.pthread_kill(main, KNOCK)


def _imports(frame: FrameType | None) -> int:
    """Return how many frames of the import system a frame was called from."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return count


def _disposes(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == weakref.__file__ or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def ignore_signals() -> None:
    """Let no signal change anything any more, for a process whose exit code is settled."""
    for number in (*TERMINATION, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
