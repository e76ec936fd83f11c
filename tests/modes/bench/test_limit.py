"""The limit of the machine: which products are counted, and that none is left out when timed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.modes.bench import limit
from gptjax.modes.bench.limit import Product


def test_products_are_found_wherever_they_are():
    """Within jit, scan (once for each turn), cond (one branch) and a gradient."""

    def function(x, w):
        x = jax.jit(lambda x: x @ w)(x)
        x, _ = jax.lax.scan(lambda x, _: (x @ w, None), x, length=3)
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: x @ w.T, x).sum()

    x, w = jnp.ones((2, 4)), jnp.ones((4, 4))
    once = Product(1, 2, 4, 4, 'float32', 'float32')
    assert limit.products(function, x, w) == [once] * 5
    assert limit.products(jax.grad(lambda w: (x @ w).sum()), w)[0] == once


def test_the_arithmetic_of_a_model_is_that_of_its_products():
    """Forward and backward of a matrix are 6 operations for each token and weight."""

    def loss(w, x):
        return jnp.sum(jax.nn.relu(x @ w) ** 2)

    x, w = jnp.ones((10, 8)), jnp.ones((8, 16))
    found = limit.products(jax.grad(loss, argnums=(0, 1)), w, x)
    assert sum(product.flops for product in found) == 6 * 10 * w.size


@pytest.mark.parametrize('devices', [1, 2])
def test_all_products_are_timed(devices):
    """Twenty times as many take longer: none is computed once for all, or not at all."""
    one = Product(2, 128, 256, 256, 'float32', 'float32')
    few, many = (min(limit.seconds([one] * n, devices) for _ in range(3)) for n in (2, 40))
    assert many > 2 * few > 0


@pytest.mark.parametrize('n_bytes', [2**16, 2**20, 2**26])
def test_bandwidth_is_a_possible_one_at_every_size(n_bytes):
    """Neither the calls (far below) nor nothing at all (far above) is what was timed."""
    assert 1e8 < limit.bandwidth(n_bytes) < 1e13


def test_a_batched_product_counts_each_of_its_batch():
    q, k = np.ones((3, 2, 5, 8), np.float32), np.ones((3, 2, 7, 8), np.float32)
    (found,) = limit.products(lambda q, k: jnp.einsum('bnth,bnsh->bnts', q, k), q, k)
    assert found == Product(6, 5, 8, 7, 'float32', 'float32')


def test_rows_are_split_over_devices_only_where_the_micro_batches_allow_it():
    """8 rows in 8 micro-batches are computed on one device alone; each part needs all of them."""

    def train_step(w, batch):
        parts = batch['x'].reshape(-1, 8, 4).swapaxes(0, 1)
        return jax.lax.map(lambda x: x @ w, parts)

    batch = {'x': np.ones((8, 4), np.float32)}
    took, flops = limit.of_step(train_step, jnp.ones((4, 5)), batch, accumulate=8)
    assert took > 0
    assert flops == 2 * 8 * 4 * 5
