"""The programme: every fault in every setting it is tried in."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.faults import asked, damage, disk, kills, starts
from tests.faults.bench import BEHIND, WAITING
from tests.faults.case import Case

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MODES = {WAITING: "training waits for saves", BEHIND: "saves go on behind training"}


def programme(random_kills: int, processes: Sequence[int]) -> list[Case]:
    """Return every case.

    Args:
        random_kills: kills at random instants in all.
        processes: numbers of processes of the runs that these come to.
    """
    settings = [(number, behind) for number in processes for behind in _MODES]
    shares = [random_kills // len(settings) + (place < random_kills % len(settings)) for place in range(len(settings))]
    at_random = [_at_random(*setting, share) for setting, share in zip(settings, shares, strict=True) if share]
    in_saves = [_in_saves(number, behind) for number in (1, 2) for behind in _MODES]
    return [*in_saves, *at_random, *_others()]


def in_ci() -> list[Case]:
    """Return the cases of the test suite; two processes meet one half of the moments with each way of saving."""
    one = [_in_saves(1, behind) for behind in _MODES]
    two = [_in_saves(2, WAITING, kills.MOMENTS[::2]), _in_saves(2, BEHIND, kills.MOMENTS[1::2])]
    at_random = [
        _at_random(1, WAITING, 2),
        _at_random(1, BEHIND, 3),
        _at_random(2, BEHIND, 2),
        _at_random(3, WAITING, 2),
    ]
    return [*one, *two, *at_random, *_others()]


def _setting(processes: int, behind: bool) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}, {_MODES[behind]}"


def _in_saves(processes: int, behind: bool, moments: Sequence[str] = kills.MOMENTS) -> Case:
    number = "every stage" if moments is kills.MOMENTS else f"{len(moments)} stages"
    inflict = partial(kills.in_saves, processes=processes, behind=behind, moments=moments)
    slow = (processes, behind) != (1, WAITING)
    return Case(f"SIGKILL at {number} of a save", _setting(processes, behind), inflict, slow)


def _at_random(processes: int, behind: bool, times: int) -> Case:
    inflict = partial(kills.at_random_instants, processes=processes, behind=behind, times=times)
    return Case("SIGKILL at random instants", _setting(processes, behind), inflict, slow=True)


def _others() -> Iterator[Case]:
    one = "SIGKILL of either process alone"
    yield Case(one, _setting(2, WAITING), kills.of_one_process, slow=True)
    yield Case(one, _setting(2, BEHIND), partial(kills.of_one_process, behind=BEHIND), slow=True)
    yield Case("SIGKILL of the launcher", _setting(2, WAITING), kills.of_the_launcher, slow=True)
    yield Case("SIGKILL after the last step", "test, export, report", kills.after_training, slow=True)
    yield Case(
        "SIGKILL while a file is replaced",
        "status, config, state, manifest, summary",
        kills.in_replacements,
        slow=True,
    )

    yield Case("a bit flipped, a file cut, emptied, gone", "every file of a checkpoint", damage.of_every_file)
    yield Case("a kill, and a damaged file", "the newest checkpoint each time", damage.of_the_newest_in_turn, slow=True)
    yield Case(
        "a damaged file",
        "a checkpoint between two intervals",
        damage.between_two_saves,
        slow=True,
    )
    yield Case("a random state gone", "the second of 2 processes", damage.of_a_random_state, slow=True)
    yield Case("every checkpoint damaged", "exit code 4", damage.of_all)

    yield Case("disk full in a save, then room", _MODES[WAITING], disk.full_for_a_while)
    yield Case("disk full in a save, then room", _MODES[BEHIND], partial(disk.full_for_a_while, behind=True), slow=True)
    yield Case("disk full until the end, then room", "in a save", disk.full_until_the_end, slow=True)
    yield Case(
        "disk full until the end, then room",
        "to the last byte, in the test",
        partial(disk.full_until_the_end, fillings=disk.TO_THE_LAST_BYTE),
        slow=True,
    )
    yield Case("files may not grow, then may", "the log, the optimizer's state", disk.file_size_limit, slow=True)
    yield Case("checkpoints read-only", "for a while, until the end", disk.read_only, slow=True)

    named = ", ".join(asked.SIGNALS)
    yield Case(named, "in training, an evaluation, a save", asked.politely)
    yield Case(named, "in an evaluation, a save, training", partial(asked.politely, asked=asked.PAIRINGS[1]), slow=True)
    behind = partial(asked.politely, behind=BEHIND, asked=asked.PAIRINGS[2])
    yield Case(named, f"in a save, training, an evaluation; {_MODES[BEHIND]}", behind, slow=True)
    yield Case("signals", "to one of 2 processes, their launcher, all", asked.several_processes, slow=True)

    yield Case("a second start", "while the first one trains", starts.of_a_live_run, slow=True)
    yield Case("two starts", "at the same instant", partial(starts.at_the_same_instant, times=2), slow=True)
