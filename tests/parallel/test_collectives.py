"""What the compiled train step moves between devices: each parameter once a pass, and no more."""

import dataclasses
import math
import re

import jax
import numpy as np
import pytest

from gptjax import tasks
from gptjax.config import MeshConfig
from gptjax.parallel.mesh import Layout
from gptjax.training.loop import StepRunner, abstract_state, initial_state
from tests.conftest import replace

KINDS = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'pred': 1}
MESHES = {
    'data': MeshConfig(data=8),
    'fsdp': MeshConfig(data=1, fsdp=8),
    'tensor': MeshConfig(data=1, tensor=4),
    'mixed': MeshConfig(data=2, fsdp=2, tensor=2),
}


@pytest.fixture(scope='module')
def task(tiny):
    model = {'n_embd': 32, 'n_head': 4, 'vocab_multiple': 8, 'n_layer': 3}
    train = {'matmul_dtype': 'float32', 'batch_size': 16}
    return tasks.create(replace(tiny, model=model, train=train), print)


def moved(task, mesh) -> list[tuple[str, int]]:
    """(kind, bytes of the result) of each collective operation of the train step."""
    layout = Layout(mesh, 16)
    state = abstract_state(task, layout)
    runner = StepRunner(task, layout, state)
    text = runner._call.lower(state, runner._batches(0), 1).compile().as_text()
    text = re.sub(r'/\*.*?\*/', '', text)
    found = []
    for result, kind in re.findall(rf'= (\([^=]*\)|\S+) ({KINDS})(?:-start)?\(', text):
        arrays = re.findall(r'([a-z]+\d+|pred)\[([\d,]*)\]', result)
        sizes = [
            BYTES[dtype] * math.prod(map(int, filter(None, n.split(',')))) for dtype, n in arrays
        ]
        found.append((kind, sum(sizes)))
    return found


def total(found, kind) -> int:
    return sum(size for name, size in found if name == kind)


@pytest.fixture(scope='module')
def params(task):
    """(bytes of all parameters, bytes of the largest one)."""
    sizes = [
        4 * x.size for x in jax.tree.leaves(abstract_state(task, Layout(MeshConfig(), 16)).params)
    ]
    return sum(sizes), max(sizes)


def test_copies_of_the_model_add_up_gradients_once(task, params):
    found = moved(task, MESHES['data'])
    assert {kind for kind, _ in found} == {'all-reduce'}
    assert total(found, 'all-reduce') == pytest.approx(params[0], rel=0.01)


def test_micro_batches_of_copies_add_up_gradients_once(task, params):
    """Also where logits come in chunks, each of which has a gradient of the head."""
    train = {'accumulate': 4, 'logits_chunk': 4, 'batch_size': 64}
    parted = dataclasses.replace(task, config=replace(task.config, train=train))
    found = moved(parted, MESHES['data'])
    assert {kind for kind, _ in found} == {'all-reduce'}
    assert total(found, 'all-reduce') == pytest.approx(params[0], rel=0.01)


@pytest.mark.parametrize('name', MESHES)
@pytest.mark.parametrize('dropout', [0.0, 0.2])
def test_micro_batches_have_the_losses_of_one_device_on_every_mesh(task, name, dropout):
    train, model = {'accumulate': 2, 'logits_chunk': 4, 'batch_size': 32}, {'dropout': dropout}
    parted = dataclasses.replace(task, config=replace(task.config, train=train, model=model))

    def losses(mesh):
        layout = Layout(mesh, 16)
        state = initial_state(parted, layout)
        runner = StepRunner(parted, layout, state)
        found = []
        for i in range(3):
            state, metrics, _ = runner.run(state, i, 1)
            found.append(float(metrics['loss'][0]))
        return found

    assert losses(MESHES[name]) == pytest.approx(losses(MeshConfig(data=1)), rel=1e-5)


def test_stored_shards_are_gathered_one_by_one(task, params):
    whole, largest = params
    found = moved(task, MESHES['fsdp'])
    assert {kind for kind, _ in found} == {'all-gather', 'all-reduce'}
    assert max(size for kind, size in found if kind == 'all-gather') <= largest
    assert total(found, 'all-gather') <= 1.1 * whole
    assert total(found, 'all-reduce') <= 1.1 * whole


def test_products_in_parts_add_up_activations_and_gather_no_parameter(task):
    found = moved(task, MESHES['tensor'])
    assert total(found, 'all-gather') == 0
    activations = 4 * 16 * task.config.model.block_size * task.config.model.n_embd
    # In each block two sums forward, and backward one for each of query, key, value and `up`; the
    # table has three more.
    assert total(found, 'all-reduce') <= (6 * task.config.model.n_layer + 3) * activations


def test_a_loop_over_blocks_gathers_one_block_at_a_time(task, params):
    looped = dataclasses.replace(task, config=replace(task.config, train={'remat': 'block'}))
    whole, largest = params
    found = moved(looped, MESHES['fsdp'])
    assert {kind for kind, _ in found} == {'all-gather', 'all-reduce'}
    assert max(size for kind, size in found if kind == 'all-gather') <= largest
    assert total(found, 'all-gather') <= whole  # A loop's operations stand there once.
    assert total(found, 'all-reduce') <= whole


@pytest.mark.parametrize('name', MESHES)
def test_initial_parameters_have_the_same_bits_on_every_mesh(task, name):
    one = initial_state(task, Layout(MeshConfig(data=1), 16))
    many = initial_state(task, Layout(MESHES[name], 16))
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
