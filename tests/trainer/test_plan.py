"""Which windows each step consumes: the same ones however many processes and passes share them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.trainer.plan import StepPlan, share

samples = st.integers(1, 3000)
batch_sizes = st.integers(1, 300) | st.just(10**6)
seeds = st.integers(0, 2**63 - 1)


@given(
    count=st.integers(1, 400), world=st.integers(1, 17), micro=st.none() | st.integers(1, 60), parts=st.integers(1, 9)
)
@settings(deadline=None, max_examples=150)
def test_processes_and_passes_share_exactly_the_windows_of_the_step(count, world, micro, parts):
    indices = np.random.default_rng(count).permutation(10**6)[:count]
    shares = [share(indices, rank, world, micro, parts) for rank in range(world)]
    counted = [part.indices for own in shares for part in own if part.counts]
    assert np.array_equal(np.concatenate(counted), indices)
    assert len({len(own) for own in shares}) == 1, "every process takes part in every synchronisation"
    for part in (part for own in shares for part in own):
        assert len(part.indices) >= 1
        assert set(part.indices.tolist()) <= set(indices.tolist())
        if micro is not None:
            assert len(part.indices) <= micro
    sizes = [sum(len(part.indices) for part in own if part.counts) for own in shares]
    assert max(sizes) - min(sizes) <= 1
    passes, largest = len(shares[0]), -(-count // world)
    assert passes == (min(parts, largest) if micro is None else -(-largest // micro))


def test_a_process_without_a_window_repeats_one_without_counting_it():
    indices = np.array([5, 6])
    shares = [share(indices, rank, 3, None) for rank in range(3)]
    counting = [[(part.indices.tolist(), part.counts) for part in own] for own in shares]
    assert counting == [[([5], False)], [([5], True)], [([6], True)]]


@given(count=samples, batch=batch_sizes, seed=seeds, epoch=st.integers(0, 1000))
@settings(deadline=None)
def test_an_epoch_is_every_window_once(count, batch, seed, epoch):
    plan = StepPlan(count, batch, epoch + 1, None, seed)
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    pieces = [plan.indices(step) for step in steps]
    assert np.array_equal(np.sort(np.concatenate(pieces)), np.arange(count))
    assert all(len(piece) == batch for piece in pieces[:-1])
    assert 1 <= len(pieces[-1]) <= batch
    assert {plan.epoch(step) for step in steps} == {epoch}


@given(count=samples, batch=batch_sizes, seed=seeds, data=st.data())
@settings(deadline=None)
def test_a_step_is_the_same_whatever_was_asked_before(count, batch, seed, data):
    last = 3 * -(-count // batch) - 1
    steps = data.draw(st.lists(st.integers(0, last), min_size=1, max_size=12))
    plan = StepPlan(count, batch, 3, None, seed)
    asked = [plan.indices(step).copy() for step in steps]
    for step, indices in zip(steps, asked, strict=True):
        assert np.array_equal(StepPlan(count, batch, 3, None, seed).indices(step), indices)


@pytest.mark.parametrize("batch", [64, 1000, 8191, 8192, 8193, 20_000, 30_000])
def test_long_epochs_are_read_in_blocks_without_a_seam(batch):
    count = 20_001
    plan = StepPlan(count, batch, 1, None, 3)
    pieces = [plan.indices(step) for step in range(plan.total_steps)]
    assert np.array_equal(np.sort(np.concatenate(pieces)), np.arange(count))
    forwards = np.concatenate(pieces)
    backwards = np.concatenate([plan.indices(step) for step in reversed(range(plan.total_steps))][::-1])
    assert np.array_equal(forwards, backwards)


def test_steps_do_not_depend_on_how_long_training_lasts():
    long, short = StepPlan(100, 7, 50, None, 1), StepPlan(100, 7, 2, 20, 1)
    assert all(np.array_equal(long.indices(step), short.indices(step)) for step in range(20))


def test_epochs_and_seeds_differ():
    plan = StepPlan(500, 500, 3, None, 1)
    orders = [plan.indices(0), plan.indices(1), StepPlan(500, 500, 3, None, 2).indices(0)]
    assert len({tuple(order.tolist()) for order in orders}) == 3


@pytest.mark.parametrize(
    ("count", "batch", "epochs", "max_steps", "an_epoch", "total"),
    [
        (100, 10, 3, None, 10, 30),
        (101, 10, 3, None, 11, 33),
        (9, 10, 3, None, 1, 3),
        (100, 10, 3, 12, 10, 12),
        (100, 10, 3, 30, 10, 30),
        (100, 10, 3, 1000, 10, 30),
        (1, 1, 1, 1, 1, 1),
    ],
)
def test_how_long_training_lasts(count, batch, epochs, max_steps, an_epoch, total):
    plan = StepPlan(count, batch, epochs, max_steps, 0)
    assert (plan.steps_per_epoch, plan.total_steps) == (an_epoch, total)
    assert [plan.epoch(step) for step in (0, an_epoch - 1, an_epoch)] == [0, 0, 1]


def test_nothing_cannot_be_trained_on():
    with pytest.raises(ValueError, match="no samples"):
        StepPlan(0, 1, 1, None, 0)
