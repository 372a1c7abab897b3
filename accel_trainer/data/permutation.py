"""The order of windows as a pure function of (seed, epoch): no state, no memory, any position at once.

A Feistel network is a permutation of the pairs (left, right) whatever its round function; numbering the pairs makes it
a permutation of 0 … a·b - 1, and walking a result that falls outside 0 … n - 1 through the network again until it
falls inside ("cycle walking") keeps it a permutation of exactly n numbers. See Luby & Rackoff, "How to construct
pseudorandom permutations from pseudorandom functions", SIAM J. Comput. 17 (1988), and Black & Rogaway, "Ciphers with
arbitrary finite domains", CT-RSA 2002, method 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Four rounds are enough against an adversary with large halves. Small halves need more, and at least a few numbers:
# with these, all orders of two, three, … windows come out equally often.
_ROUNDS = 8
_LEAST_HALF = 4
_MASK = (1 << 64) - 1


def _mix(number: int) -> int:
    """SplitMix64's finaliser (Steele, Lea & Flood, OOPSLA 2014) on one Python integer."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)


def key(*parts: int) -> int:
    """Return 64 well-mixed bits that depend on every part and on their order."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = _mix((state + (part & _MASK)) * 0x9E3779B97F4A7C15 & _MASK)
    return state


class Permutation:
    """A keyed random order of 0 … size - 1 that is read at any position.

    Args:
        size: how many numbers are ordered, at least 1.
        seed: the run's seed.
        epoch: every epoch has its own order.
    """

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        if size < 1:
            raise ValueError(f"nothing to order: size {size}")
        self.size = size
        # Halves of unequal size hug the domain: a·b exceeds n by less than one row, so that walking is rare.
        self._left = max(_LEAST_HALF, math.isqrt(size))
        self._right = max(_LEAST_HALF, -(-size // self._left))
        self._keys = [np.uint64(key(seed, epoch, number)) for number in range(_ROUNDS)]

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers that stand at ``positions`` (each from 0 to size - 1)."""
        numbers = self._network(np.asarray(positions, dtype=np.int64).astype(np.uint64))
        outside = numbers >= self.size
        while outside.any():
            numbers[outside] = self._network(numbers[outside])
            outside = numbers >= self.size
        return numbers.astype(np.int64)

    def _network(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        a, b = np.uint64(self._left), np.uint64(self._right)
        left, right = numbers // b, numbers % b
        # Each round adds a keyed hash of one half to the other, modulo that half's own size.
        for number, round_key in enumerate(self._keys):
            if number % 2:
                right = (right + self._hash(left, round_key) % b) % b
            else:
                left = (left + self._hash(right, round_key) % a) % a
        return left * b + right

    @staticmethod
    def _hash(half: NDArray[np.uint64], round_key: np.uint64) -> NDArray[np.uint64]:
        # One multiply-xorshift-multiply: the rounds do the rest of the mixing.
        mixed = (half ^ round_key) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(0x94D049BB133111EB)
        return mixed >> np.uint64(24)
