"""Optimizers: nanoGPT's schedule and decay mask, clipping, and the choice of rule."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gptjax.config import TrainConfig
from gptjax.training.optim import is_matrix, make_optimizer, make_schedule


def nanogpts_rate(it, peak, lowest, warmup, steps):
    """The published formula, written from its description."""
    if it < warmup:
        return peak * (it + 1) / (warmup + 1)
    share = (it - warmup) / (steps - warmup)
    return lowest + 0.5 * (1 + math.cos(math.pi * share)) * (peak - lowest)


def test_the_schedule_is_nanogpts():
    config = TrainConfig(
        steps=200, learning_rate=1e-3, min_learning_rate=1e-4, warmup_steps=10, schedule='cosine'
    )
    schedule = make_schedule(config)
    for it in (0, 1, 9, 10, 11, 100, 199):
        expected = nanogpts_rate(it, 1e-3, 1e-4, 10, 200)
        assert float(schedule(it)) == pytest.approx(expected, rel=1e-5)


def test_the_constant_schedule_stays():
    schedule = make_schedule(TrainConfig(schedule='constant', learning_rate=0.5, warmup_steps=4))
    rates = [float(schedule(i)) for i in (0, 2, 4, 999)]
    np.testing.assert_allclose(rates, [0.1, 0.3, 0.5, 0.5], rtol=1e-6)


def test_a_warmup_longer_than_the_run_is_cut():
    schedule = make_schedule(TrainConfig(steps=2, warmup_steps=50, learning_rate=1.0))
    assert 0 < float(schedule(0)) < float(schedule(1)) <= 1.0


PARAMS = {
    'attn': {'kernel': jnp.ones((2, 2, 2)), 'bias': jnp.ones((2, 2))},
    'norm': {'scale': jnp.ones(2)},
    'embed': {'embedding': jnp.ones((3, 2))},
}


def test_only_matrices_decay():
    """A query's bias has two axes and still is none."""
    assert is_matrix(PARAMS) == {
        'attn': {'kernel': True, 'bias': False},
        'norm': {'scale': False},
        'embed': {'embedding': True},
    }
    config = TrainConfig(learning_rate=0.1, weight_decay=0.5, schedule='constant')
    optimizer = make_optimizer(config)
    zeros = optax.tree.zeros_like(PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates['attn']['kernel'], -0.05, rtol=1e-5)
    np.testing.assert_allclose(updates['attn']['bias'], 0)
    np.testing.assert_allclose(updates['norm']['scale'], 0)


@pytest.mark.parametrize(('clip', 'expected'), [(1.0, -0.1), (0.0, -20.0)])
def test_sgd_moves_against_the_clipped_gradient(clip, expected):
    config = TrainConfig(optimizer='sgd', learning_rate=0.1, schedule='constant', grad_clip=clip)
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update({'kernel': jnp.array([200.0])}, optimizer.init({}), {})
    np.testing.assert_allclose(updates['kernel'], expected, rtol=1e-5)


def test_adam_has_no_decay():
    optimizer = make_optimizer(TrainConfig(optimizer='adam', weight_decay=0.5))
    updates, _ = optimizer.update(optax.tree.zeros_like(PARAMS), optimizer.init(PARAMS), PARAMS)
    assert (updates['attn']['kernel'] == 0).all()
