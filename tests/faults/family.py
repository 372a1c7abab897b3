"""A start of a training and all its processes, wherever a launcher put them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.runs import environment, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OWN = "FAULTS_FAMILY"
"""Environment variable that all processes of a start inherit, with a word that no other start has."""

_REPOSITORY = Path(__file__).parents[2]
_started: list[Start] = []


def members(word: str) -> list[int]:
    """Return the ids of the live processes of a start."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended, or is another user's
        if f"{OWN}={word}".encode() in variables:  # of one that ended and was not waited for there is none to read
            found.append(int(path.parent.name))
    return found


def end_all() -> None:
    """SIGKILL what is left of all starts."""
    while _started:
        _started.pop().kill()


class Start:
    """One start of a training.

    Args:
        words: the command.
        run_folder: of the run it trains.
        log: file for its output.
        variables: of its environment, besides the usual ones.
    """

    def __init__(self, words: Sequence[str], run_folder: Path, log: Path, variables: Mapping[str, str]) -> None:
        self._folder, self._log, self._word = run_folder, log, secrets.token_hex(16)
        own = {OWN: self._word, "PYTHONPATH": str(_REPOSITORY), "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                words,
                cwd=log.parent,
                env=environment(**own, **variables),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A job in the background of a script ignores it, and so would whatever it starts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        _started.append(self)

    @property
    def pid(self) -> int:
        """Process id of the training, or of the launcher of several."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What was said so far, by all processes."""
        return self._log.read_text(errors="replace")

    @property
    def over(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Wait for something that happens while it trains."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.over, f"the training ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s:\n{self.output}"
            time.sleep(0.002)

    def wait_until_said(self, text: str, times: int = 1) -> None:
        """Wait until a text stands in the output so many times."""
        self.wait_until(lambda: self.output.count(text) >= times, f"it said {text!r} {times} times")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started, be it a launcher."""
        os.kill(self.pid, number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to its process group, as a terminal does on Ctrl-C."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL all its processes; returns when none is left."""
        while pids := members(self._word):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process.poll()
        self._process.wait()

    def end(self, code: int | None = 0, seconds: float = 180.0) -> str:
        """Wait for the end of all its processes; return the output.

        Args:
            code: what it must end with. Launchers turn every failure into 1: of several processes the code is looked
                for in status.json. None: anything but 0.
            seconds: after which it counts as hanging.
        """
        deadline = time.monotonic() + seconds
        while self._process.poll() is None or members(self._word):
            assert time.monotonic() < deadline, f"it did not end in {seconds:g} s:\n{self.output}"
            time.sleep(0.01)
        ended = self._process.returncode
        if code is None:
            assert ended != 0, self.output
        elif ended == 1 and code > 1:
            assert read(self._folder / "status.json")["exit_code"] == code, self.output
        else:
            assert ended == code, f"exit code {ended} instead of {code}:\n{self.output}"
        return self.output
