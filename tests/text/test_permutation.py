"""A random order without a list: each thing once, another order for another key."""

import numpy as np
import pytest

from gptjax.text import batches
from gptjax.text.permutation import permuted


@pytest.mark.parametrize('n', [1, 2, 3, 4, 5, 16, 17, 1000, 65_537])
def test_each_thing_comes_once(n):
    found = permuted(np.arange(n), n, (1, 0))
    assert np.array_equal(np.sort(found), np.arange(n))


def test_the_order_depends_on_the_key_alone():
    orders = [permuted(np.arange(500), 500, key) for key in ((1, 0), (1, 1), (2, 0))]
    assert np.array_equal(orders[0], permuted(np.arange(500), 500, (1, 0)))
    assert np.array_equal(orders[0][::-1], permuted(np.arange(499, -1, -1), 500, (1, 0)))
    for other in orders[1:]:
        assert np.mean(orders[0] == other) < 0.02


def test_neighbours_are_far_apart():
    found = permuted(np.arange(10_000), 10_000, (7, 0))
    assert abs(np.corrcoef(np.arange(10_000), found)[0, 1]) < 0.05
    # The differences of a random order: a third of n in the mean.
    assert np.mean(np.abs(np.diff(found))) == pytest.approx(10_000 / 3, rel=0.05)


def test_very_many_things_need_no_memory():
    n = 10**15
    found = permuted(np.arange(n - 1000, n), n, (3, 4))
    assert len(np.unique(found)) == 1000
    assert found.min() >= 0 and found.max() < n


def test_epochs_have_other_orders_and_a_batch_may_have_two_of_them():
    tokens = np.arange(10 * 8 + 1)
    shape = {'seed': 3, 'batch_size': 4, 'block_size': 8}
    starts = np.concatenate(
        [batches.consecutive_windows(tokens, step=i, **shape)['inputs'][:, 0] for i in range(5)]
    )
    first, second = starts[:10], starts[10:]
    assert sorted(first) == sorted(second) == list(range(0, 80, 8))
    assert list(first) != list(second)


def test_processes_share_the_rows_of_a_batch():
    tokens = np.arange(1000)
    shape = {'seed': 3, 'step': 7, 'batch_size': 8, 'block_size': 16}
    whole = batches.consecutive_windows(tokens, **shape)['inputs']
    parts = [
        batches.consecutive_windows(tokens, **shape, process=i, processes=2)['inputs']
        for i in (0, 1)
    ]
    assert np.array_equal(np.concatenate(parts), whole)
