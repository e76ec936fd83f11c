"""A random order of any number of things as a function of a key, without a list of them."""

import numpy as np

ROUNDS = 6


def permuted(place: np.ndarray, n: int, key: tuple[int, ...]) -> np.ndarray:
    """Which of n things stand at some places of the random order that a key decides.

    A Feistel network permutes the numbers below the next power of four; one that is n or more is
    permuted again until it is below (Black and Rogaway, 2002).

    Args:
      place: int64 numbers below n.
      n: how many things there are.
      key: the same key gives the same order.

    Returns:
      int64 numbers below n, as many as places; different places have different ones.
    """
    half = max(1, -(-(n - 1).bit_length() // 2))
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)

    def network(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & mask
        for round_key in keys:
            left, right = right, left ^ (_mixed(right ^ round_key) & mask)
        return left << np.uint64(half) | right

    found = network(place.astype(np.uint64))
    while (outside := found >= n).any():
        found[outside] = network(found[outside])
    return found.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al., 2014): every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
