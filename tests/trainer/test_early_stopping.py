"""Patience: what counts as an improvement, and when waiting ends."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel_trainer.config import EarlyStoppingOptions
from accel_trainer.hooks.early_stopping import EarlyStopping, Patience

numbers = st.floats(-1e6, 1e6)


def waits(patience: Patience, values: list[float]) -> list[int]:
    """Feed values; return how long there was no improvement after each."""
    waited = []
    for value in values:
        patience.feed(value)
        waited.append(patience.waited)
    return waited


def test_evaluations_without_improvement_are_counted():
    patience = Patience(2)
    assert waits(patience, [5.0, 4.0, 4.0, 3.0, 3.5]) == [0, 0, 1, 0, 1]
    assert not patience.exhausted
    assert not patience.feed(3.0)
    assert patience.exhausted
    assert patience.best == 3.0


def test_small_gains_add_up_to_an_improvement():
    """The change is measured against the last value that counted, not against the last seen."""
    patience = Patience(10, min_delta=0.25)
    assert waits(patience, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]) == [0, 1, 2, 0, 1, 2]
    assert patience.best == 0.7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_is_no_number_is_never_better(mode, bad):
    patience = Patience(2, mode=mode)
    assert not patience.feed(bad)
    assert patience.best is None
    assert patience.feed(1.0)
    assert not patience.feed(bad)
    assert patience.best == 1.0
    assert not patience.feed(bad)
    assert patience.exhausted


@given(values=st.lists(numbers, min_size=1), min_delta=st.sampled_from([0.0, 0.5]), patience=st.integers(1, 5))
def test_max_is_min_upside_down(values, min_delta, patience):
    lower, higher = Patience(patience, min_delta, "min"), Patience(patience, min_delta, "max")
    for value in values:
        assert lower.feed(value) == higher.feed(-value)
        assert (lower.waited, lower.exhausted) == (higher.waited, higher.exhausted)


@given(values=st.lists(numbers, min_size=1), patience=st.integers(1, 5))
def test_without_a_least_change_the_best_is_the_minimum(values, patience):
    count = Patience(patience)
    for value in values:
        count.feed(value)
    assert count.best == min(values)
    assert count.waited == len(values) - 1 - values.index(min(values))
    assert count.exhausted == (count.waited >= patience)


@given(values=st.lists(numbers, min_size=1), min_delta=st.floats(0.0, 10.0))
def test_the_mark_moves_by_at_least_the_least_change(values, min_delta):
    count = Patience(3, min_delta)
    marks = []
    for value in values:
        if count.feed(value):
            marks.append(value)
    assert all(later < earlier - min_delta for earlier, later in pairwise(marks))


@given(before=st.lists(numbers), after=st.lists(numbers), raised=st.integers(1, 9))
def test_a_restart_remembers_the_count_but_not_the_options(before, after, raised):
    whole = EarlyStopping(EarlyStoppingOptions(patience=raised, min_delta=0.5))
    first = EarlyStopping(EarlyStoppingOptions(patience=1, min_delta=0.5))
    for value in before:
        whole.count.feed(value)
        first.count.feed(value)
    second = EarlyStopping(EarlyStoppingOptions(patience=raised, min_delta=0.5))
    second.load_state_dict(first.state_dict())
    assert second.count.patience == raised
    for value in after:
        whole.count.feed(value)
        second.count.feed(value)
    assert second.count == whole.count


def test_a_hook_without_a_past_starts_anew():
    hook = EarlyStopping(EarlyStoppingOptions(patience=4, monitor="val/r2", mode="max"))
    hook.load_state_dict({})
    assert hook.count == Patience(4, mode="max")
