"""Blocks in one loop equal blocks one after the other, whatever is computed again."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import MeshConfig
from gptjax.models.scan import scan_blocks
from gptjax.parallel.mesh import Layout
from gptjax.plan import compiled, shapes
from gptjax.training.steps import run_key
from tests.conftest import replace

LOOPS = [{'scan_layers': True}, {'remat': 'products'}, {'remat': 'block'}]
MODELS = [
    {},
    {'norm_place': 'after', 'position': 'learned', 'bias': True, 'tied_head': True},
    {'ngram': 2, 'norm_place': 'branch', 'norm': 'layer'},
]


def gradients(task, seed=3):
    """(loss, gradient) of a batch of random tokens, in training."""
    params = task.init_state(run_key(1)).params
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(run_key(2), x.shape), params)
    tokens = np.random.default_rng(0).integers(0, 64, (4, 17), np.int32)
    batch = {'inputs': tokens[:, :-1], 'targets': tokens[:, 1:], 'lengths': np.full(4, 16, 'i4')}
    loss = jax.value_and_grad(lambda params: task.loss(params, batch, run_key(seed))[0])
    return jax.jit(loss)(params)


@pytest.mark.parametrize('model', MODELS, ids=str)
def test_loss_and_gradients_are_those_of_blocks_one_after_the_other(tiny, model):
    config = replace(tiny, model={'n_layer': 3} | model, train={'matmul_dtype': 'float32'})
    loss, grads = gradients(shapes.of_vocabulary(config, 64))
    for train in LOOPS:
        task = shapes.of_vocabulary(replace(config, train=train), 64)
        same_loss, same_grads = gradients(task)
        assert float(same_loss) == pytest.approx(float(loss), rel=1e-6)
        for ours, theirs in zip(jax.tree.leaves(same_grads), jax.tree.leaves(grads), strict=True):
            assert jnp.max(jnp.abs(ours - theirs)) <= 1e-5 * jnp.max(jnp.abs(theirs))


def test_a_loop_drops_by_its_key(tiny):
    config = replace(tiny, model={'n_layer': 2, 'dropout': 0.5}, train={'remat': 'block'})
    task = shapes.of_vocabulary(config, 64)
    one, other = (gradients(task, seed)[0] for seed in (3, 4))
    assert one != other
    assert gradients(task)[0] == one


def test_each_block_has_its_own_random_key(tiny):
    """Two equal blocks that only add dropped-out constants would otherwise drop the same ones."""

    class Dropping(nn.Module):
        @nn.compact
        def __call__(self, x_BTD, *, train):
            return x_BTD + nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(x_BTD)), None

    x_BTD = scan_blocks(Dropping(), [{}] * 2, jnp.zeros((2, 8, 8)), key=run_key(0), remat='none')
    assert set(np.unique(x_BTD)) == {0, 2, 4}  # 2 where only one of them dropped


@pytest.fixture(scope='module')
def long(tiny):
    model = {'n_layer': 8, 'n_embd': 64, 'n_head': 2, 'block_size': 64}
    train = {'batch_size': 16, 'matmul_dtype': 'float32'}
    return shapes.of_vocabulary(replace(tiny, model=model, train=train), 64)


def test_what_is_computed_again_needs_no_memory(long):
    found = {}
    for remat in ('none', 'products', 'block'):
        train = dataclasses.replace(long.config.train, remat=remat)
        task = dataclasses.replace(long, config=dataclasses.replace(long.config, train=train))
        found[remat] = compiled.measure(task, Layout(MeshConfig(data=1), 16))['memory']['temp']
    assert found['block'] < 0.9 * found['products'] < 0.9 * 0.7 * found['none'], found
