"""The order of windows: every number once, any position at once, and as random as a shuffle."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.data.permutation import Permutation, key

SPECIAL = sorted(
    {n + d for k in range(1, 13) for n in (2**k, k * k, k * (k + 1), 3**k) for d in (-1, 0, 1) if n + d > 0}
)

sizes = st.integers(1, 5000) | st.sampled_from([n for n in SPECIAL if n <= 5000])
seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 10**6)


def order(size: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return Permutation(size, seed, epoch)(np.arange(size))


@given(size=sizes, seed=seeds, epoch=epochs)
@settings(deadline=None)
def test_every_number_comes_exactly_once(size, seed, epoch):
    numbers = order(size, seed, epoch)
    assert numbers.dtype == np.int64
    assert np.array_equal(np.sort(numbers), np.arange(size))


@pytest.mark.parametrize("size", SPECIAL)
def test_every_number_comes_exactly_once_at_awkward_sizes(size):
    assert np.array_equal(np.sort(order(size, seed=7, epoch=3)), np.arange(size))


@given(size=sizes, seed=seeds, epoch=epochs, data=st.data())
@settings(deadline=None)
def test_a_position_alone_is_the_same_as_in_any_block(size, seed, epoch, data):
    whole = order(size, seed, epoch)
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    lazily = Permutation(size, seed, epoch)
    assert np.array_equal(lazily(positions), whole[positions])
    for position in positions[:3]:
        assert lazily(np.array([position]))[0] == whole[position]
    begin, end = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    assert np.array_equal(lazily(np.arange(begin, end)), whole[begin:end])


def test_positions_are_left_as_they_were():
    positions = np.arange(100)
    Permutation(100, 0, 0)(positions)
    assert np.array_equal(positions, np.arange(100))


@given(size=st.integers(100, 5000), seed=seeds, epoch=epochs)
@settings(deadline=None)
def test_epochs_and_seeds_have_orders_of_their_own(size, seed, epoch):
    here = order(size, seed, epoch)
    assert not np.array_equal(here, np.arange(size))
    others = [order(size, seed, epoch + 1), order(size, (seed + 1) % 2**63, epoch)]
    if epoch != seed:
        others.append(order(size, epoch, seed))
    for other in others:
        # Two random orders agree in one place on average; more than ten has a chance of about one in 10^7.
        assert (here == other).sum() < 15


def chi_square_excess(counts: np.ndarray) -> float:
    """Return by how many standard deviations counts of equally likely outcomes miss their chi-square's mean."""
    expected = counts.mean()
    freedom = counts.size - 1
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("size", [3, 7, 16, 30])
def test_every_number_is_equally_likely_at_every_position(size):
    counts = np.zeros((size, size))
    for epoch in range(60 * size):
        counts[np.arange(size), order(size, 11, epoch)] += 1
    # Rows and columns of the table add up exactly, which makes chi-square smaller, if anything.
    assert chi_square_excess(counts) < 5
    assert counts.min() > 0


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_all_orders_of_a_few_are_equally_likely(size):
    outcomes = {each: number for number, each in enumerate(permutations(range(size)))}
    counts = np.zeros(len(outcomes))
    for epoch in range(20 * len(outcomes)):
        counts[outcomes[tuple(order(size, 5, epoch).tolist())]] += 1
    assert chi_square_excess(counts) < 5


@pytest.mark.parametrize("size", [64, 1000, 4999])
def test_two_epochs_are_independent(size):
    """What stands at a position in one epoch says nothing about what stands there in the next."""
    counts = np.zeros((8, 8))
    for epoch in range(0, 200, 2):
        here, following = order(size, 3, epoch), order(size, 3, epoch + 1)
        np.add.at(counts, (here * 8 // size, following * 8 // size), 1)
    assert chi_square_excess(counts) < 5


@pytest.mark.parametrize("size", [64, 1000, 4999])
def test_neighbours_are_independent(size):
    """Windows of one batch are not near one another more often than chance has it."""
    counts = np.zeros((8, 8))
    for epoch in range(200):
        cells = order(size, 9, epoch) * 8 // size
        np.add.at(counts, (cells[:-1], cells[1:]), 1)
    # No number follows itself: for few numbers that takes a little from the diagonal.
    assert chi_square_excess(counts) < (5 if size > 64 else 20)


@pytest.mark.parametrize("size", [10**12, 10**12 + 39, 2**40, 2**50 - 1])
@given(seed=seeds, epoch=epochs, begin=st.integers(0, 10**12 - 4000))
@settings(deadline=None, max_examples=10)
def test_huge_sizes_need_no_memory_and_repeat_nothing(size, seed, epoch, begin):
    permutation = Permutation(size, seed, epoch)
    generator = np.random.default_rng(epoch)
    positions = np.unique(np.concatenate([np.arange(begin, begin + 2000), generator.integers(0, size, 2000)]))
    numbers = permutation(positions)
    assert numbers.min() >= 0
    assert numbers.max() < size
    assert len(np.unique(numbers)) == len(positions)
    # 2000 neighbours spread over the whole range.
    counts, _ = np.histogram(permutation(np.arange(begin, begin + 2000)), bins=20, range=(0, size))
    assert chi_square_excess(counts) < 8


def test_nothing_cannot_be_ordered():
    with pytest.raises(ValueError, match="nothing to order: size 0"):
        Permutation(0, 0, 0)
    assert Permutation(5, 0, 0)(np.empty(0, dtype=np.int64)).shape == (0,)


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple), unique=True, max_size=50))
def test_keys_depend_on_every_part_and_on_their_order(parts):
    keys = [key(*each) for each in parts]
    assert len(set(keys)) == len(parts)
    assert all(0 <= each < 2**64 for each in keys)


def test_small_changes_of_a_part_change_half_of_the_bits():
    flips = [(key(seed, step) ^ key(seed, step + 1)).bit_count() for seed in range(20) for step in range(100)]
    assert 31 < np.mean(flips) < 33
    assert min(flips) > 10
