"""Optimizers: nanoGPT's schedule and decay mask, clipping, and the choice of rule."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from gptjax.config import MeshConfig, TrainConfig
from gptjax.parallel.mesh import Layout
from gptjax.training import steps
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


@pytest.mark.parametrize('optimizer', ['adamw', 'adam', 'muon'])
def test_the_first_moment_is_stored_in_its_own_type(optimizer):
    params = {'block_0': {'up': {'kernel': jnp.ones((4, 6))}}, 'norm': {'scale': jnp.ones(4)}}
    config = TrainConfig(optimizer=optimizer, moment_dtype='bfloat16')
    rule = make_optimizer(config).rule
    updates, state = rule.update(params, rule.init(params), params)
    moments = [
        (jax.tree_util.keystr(path), x.dtype)
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if x.ndim
    ]
    assert all(dtype == ('bfloat16' if '.mu' in name else 'float32') for name, dtype in moments)
    assert any('.mu' in name for name, _ in moments)
    assert {x.dtype.name for x in jax.tree.leaves(updates)} == {'float32'}


def test_only_matrices_decay():
    """A query's bias has two axes and still is none."""
    assert is_matrix(PARAMS) == {
        'attn': {'kernel': True, 'bias': False},
        'norm': {'scale': False},
        'embed': {'embedding': True},
    }
    config = TrainConfig(learning_rate=0.1, weight_decay=0.5, schedule='constant')
    optimizer = make_optimizer(config).rule
    zeros = optax.tree.zeros_like(PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates['attn']['kernel'], -0.05, rtol=1e-5)
    np.testing.assert_allclose(updates['attn']['bias'], 0)
    np.testing.assert_allclose(updates['norm']['scale'], 0)


@pytest.mark.parametrize(('clip', 'expected'), [(1.0, -0.1), (0.0, -20.0)])
def test_sgd_moves_against_the_clipped_gradient(clip, expected):
    config = TrainConfig(optimizer='sgd', learning_rate=0.1, schedule='constant', grad_clip=clip)
    optimizer = make_optimizer(config).rule
    updates, _ = optimizer.update({'kernel': jnp.array([200.0])}, optimizer.init({}), {})
    np.testing.assert_allclose(updates['kernel'], expected, rtol=1e-5)


def test_adam_has_no_decay():
    optimizer = make_optimizer(TrainConfig(optimizer='adam', weight_decay=0.5)).rule
    updates, _ = optimizer.update(optax.tree.zeros_like(PARAMS), optimizer.init(PARAMS), PARAMS)
    assert (updates['attn']['kernel'] == 0).all()


def muon_tree(draw):
    """Two blocks' worth of kernels, an embedding, a head and a norm."""
    shapes = {'query': (8, 2, 4), 'out': (2, 4, 8), 'up': (8, 16), 'down': (16, 8)}
    blocks = {
        f'block_{i}': {name: {'kernel': draw(shape)} for name, shape in shapes.items()}
        for i in range(2)
    }
    rest = {'embed': {'embedding': draw((5, 8))}, 'head': {'kernel': draw((8, 5))}}
    return {'params': blocks | rest | {'norm_final': {'scale': draw((8,))}}}


def as_matrix(name, kernel):
    return kernel.reshape(-1, 8) if name == 'out' else kernel.reshape(len(kernel), -1)


def test_muon_makes_the_blocks_matrices_orthogonal_and_adamw_does_the_rest():
    random = np.random.default_rng(0)
    params, grads = (muon_tree(lambda shape: jnp.array(random.normal(size=shape))) for _ in '12')
    config = TrainConfig(
        optimizer='muon', learning_rate=1.0, schedule='constant', weight_decay=0.0, grad_clip=0.0
    )
    muon, adamw = (
        make_optimizer(dataclasses.replace(config, optimizer=name)).rule
        for name in ('muon', 'adamw')
    )
    updates, _ = muon.update(grads, muon.init(params), params)
    expected, _ = adamw.update(grads, adamw.init(params), params)
    for name in ('embed', 'head', 'norm_final'):
        for a, b in zip(
            jax.tree.leaves(updates['params'][name]),
            jax.tree.leaves(expected['params'][name]),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    for i in range(2):
        for name, leaf in updates['params'][f'block_{i}'].items():
            update = as_matrix(name, leaf['kernel'])
            gradient = as_matrix(name, grads['params'][f'block_{i}'][name]['kernel'])
            u, _, vh = np.linalg.svd(gradient, full_matrices=False)
            scale = 0.2 * max(update.shape) ** 0.5
            # Newton-Schulz brings singular values near 1 (in few steps the small ones only nearer)
            # and leaves the directions alone.
            in_its_directions = -(u.T @ update @ vh.T) / scale
            values = np.diag(in_its_directions)
            assert values.min() > 0.3 and values.max() < 1.3
            assert np.median(values) == pytest.approx(1, abs=0.25)
            off = in_its_directions - np.diag(np.diag(in_its_directions))
            np.testing.assert_allclose(off, 0, atol=1e-4)


def test_muons_momentum_is_split_over_the_devices_by_matrices():
    params = muon_tree(jnp.zeros)
    config = TrainConfig(optimizer='muon')
    state = steps.init_state(params, make_optimizer(config), steps.run_key(0))
    shardings = Layout(MeshConfig(data=2), 2).of(state)
    stacks = {
        jax.tree_util.keystr(path): sharding.spec
        for path, sharding in jax.tree_util.tree_leaves_with_path(shardings)
        if 'stack_' in jax.tree_util.keystr(path)
    }
    assert len(stacks) == 3  # 8x8, 8x16 and 16x8
    assert set(stacks.values()) == {P(('data', 'fsdp'), None, None)}
