"""The train step: exact accumulation, one compilation, learning, any number of devices."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gptjax import tasks
from gptjax.config import MeshConfig
from gptjax.parallel.mesh import Layout
from gptjax.training import steps
from gptjax.training.loop import initial_state
from gptjax.training.losses import cross_entropy
from gptjax.training.optim import Optimizer
from tests.conftest import replace


@pytest.fixture(scope='module')
def task(tiny):
    return tasks.create(tiny, print)


@pytest.fixture(scope='module')
def state(task):
    return task.init_state(steps.run_key(1))


def masked_batch(task, step=0):
    """A batch whose rows count very different numbers of targets."""
    batch = task.train_batch(step)
    return {**batch, 'lengths': np.array([16, 1, 7, 0, 16, 3, 12, 2], np.int32)}


def test_cross_entropy_counts_what_the_lengths_say():
    logits_BTV = jax.random.normal(jax.random.key(0), (2, 3, 5))
    targets_BT = jnp.array([[0, 1, 2], [3, 4, 0]])
    total, count = cross_entropy(logits_BTV, targets_BT, jnp.array([2, 1]))
    log_probs = jax.nn.log_softmax(logits_BTV)
    expected = -(log_probs[0, 0, 0] + log_probs[0, 1, 1] + log_probs[1, 0, 3])
    assert count == 3
    assert total == pytest.approx(float(expected), rel=1e-6)
    assert cross_entropy(logits_BTV.astype(jnp.bfloat16), targets_BT, jnp.array([2, 1]))[
        0
    ].dtype == (jnp.float32)


@pytest.mark.parametrize('chunk', [1, 5, 16, 99])
def test_logits_in_chunks_give_the_same_loss_and_gradients(task, state, chunk):
    batch, exact = masked_batch(task), {'matmul_dtype': 'float32'}
    task, chunked = (
        dataclasses.replace(task, config=replace(task.config, train=exact | more))
        for more in ({}, {'logits_chunk': chunk})
    )

    def run(task):
        def scaled(params):
            total, count = task.loss(params, batch, jax.random.key(0))
            return 3.0 * total / count

        return jax.jit(jax.value_and_grad(scaled))(state.params)

    (loss, grads), (expected_loss, expected) = run(chunked), run(task)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_logits_in_chunks_never_exist_as_a_whole(task, state):
    batch = task.train_batch(0)
    chunked = dataclasses.replace(task, config=replace(task.config, train={'logits_chunk': 4}))
    whole = f'8,16,{task.tokenizer.vocab_size}]'

    def program(task):
        def mean(params):
            return task.loss(params, batch, jax.random.key(0))[0]

        return str(jax.make_jaxpr(jax.grad(mean))(state.params))

    assert whole in program(task)
    assert whole not in program(chunked)


@pytest.mark.parametrize('accumulate', [2, 8])
def test_accumulation_equals_one_large_batch_with_unequal_masks(task, state, accumulate):
    # In bfloat16 the gradients of each part are rounded by themselves.
    exact = dataclasses.replace(task.config.train, matmul_dtype='float32')
    task = dataclasses.replace(task, config=dataclasses.replace(task.config, train=exact))
    # SGD, whose update is the gradient: Adam's first step would only show its sign.
    sgd = Optimizer(optax.sgd(1.0), lambda _: 1.0)
    batch = masked_batch(task)
    start = steps.init_state(state.params, sgd, steps.run_key(1))

    def run(accumulate):
        step = steps.make_train_step(task.loss, sgd, accumulate)
        return jax.jit(step)(start, batch)

    once, once_metrics = run(1)
    parts, parts_metrics = run(accumulate)
    assert float(once_metrics['loss']) == pytest.approx(float(parts_metrics['loss']), rel=1e-6)
    scale = float(once_metrics['grad_norm'])
    for a, b in zip(jax.tree.leaves(once.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * scale)


def test_a_call_does_the_first_n_of_its_steps_and_compiles_once(task, state):
    traces = []

    def counted(state, batch):
        traces.append(1)
        return task.train_step(state, batch)

    batches = [task.train_batch(i) for i in range(3)]
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *batches)
    call = jax.jit(steps.make_multi_step(counted))
    step = jax.jit(task.train_step)
    for n in (3, 1, 2):
        expected, losses = state, []
        for batch in batches[:n]:
            expected, metrics = step(expected, batch)
            losses.append(metrics['loss'])
        done, metrics = call(state, stacked, n)
        np.testing.assert_allclose(metrics['loss'][:n], losses, rtol=1e-6)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(done), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert len(traces) == 2  # One for the shapes of the metrics, one to compile.


def test_what_is_masked_has_no_influence(task, state):
    step = jax.jit(task.train_step)
    batch = masked_batch(task)
    hidden = np.arange(16) >= batch['lengths'][:, None]
    other = {**batch, 'targets': np.where(hidden, 0, batch['targets'])}
    assert (step(state, batch)[1]['loss'] == step(state, other)[1]['loss']).all()


def test_one_batch_can_be_memorised(task):
    config = replace(task.config, train={'learning_rate': 2e-2, 'steps': 200, 'weight_decay': 0.0})
    learner = dataclasses.replace(task, config=config)
    state = jax.jit(learner.init_state)(steps.run_key(0))
    step = jax.jit(learner.train_step, donate_argnums=0)
    batch = jax.tree.map(lambda x: x[:2], learner.train_batch(0))
    for _ in range(200):
        state, metrics = step(state, batch)
    # The first targets of a row cannot be told from nothing before them, but two rows can.
    assert metrics['loss'] < 0.05


def test_the_step_is_traced_once(task, state):
    traces = []

    def counted(state, batch):
        traces.append(1)
        return task.train_step(state, batch)

    step = jax.jit(counted)
    for i in range(4):
        state, _ = step(state, task.train_batch(i))
    assert len(traces) == 1
    assert state.step == 4


def test_dropout_depends_on_the_run_key_and_the_step(task):
    config = replace(task.config, model={'dropout': 0.5})
    dropping = dataclasses.replace(task, config=config)
    state = dropping.init_state(steps.run_key(0))
    # Residual branches begin at zero; only embeddings feel the dropout, which is enough.
    step = jax.jit(dropping.train_step)
    batch = dropping.train_batch(0)

    def loss(state):
        return float(step(state, batch)[1]['loss'])

    assert loss(state) == loss(state)
    assert loss(state) != loss(state.replace(step=state.step + 1))
    assert loss(state) != loss(state.replace(key=jax.random.key_data(steps.run_key(9))))


@pytest.mark.parametrize(
    'mesh',
    [
        MeshConfig(data=4),
        MeshConfig(data=8),
        MeshConfig(data=2, fsdp=4),
        MeshConfig(data=2, fsdp=2, tensor=2),
    ],
    ids=str,
)
def test_many_devices_equal_one(task, mesh):
    knobs = {'dropout': 0.1, 'ngram': 3, 'ngram_rows': 40}
    dropping = dataclasses.replace(task, config=replace(task.config, model=knobs))
    one = losses(dropping, MeshConfig(data=1))
    many = losses(dropping, mesh)
    np.testing.assert_allclose(many, one, rtol=1e-5)


def losses(task, mesh: MeshConfig, n_steps: int = 4) -> list[float]:
    layout = Layout(mesh, task.config.train.batch_size)
    state = initial_state(task, layout)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(task.train_step, donate_argnums=0, out_shardings=(shardings, None))
    values = []
    for i in range(n_steps):
        state, metrics = step(state, layout.put(task.train_batch(i)))
        values.append(float(layout.wait(metrics)['loss']))
    return values


def test_loss_begins_at_guessing(task):
    assert losses(task, MeshConfig(data=1), 1)[0] == pytest.approx(
        math.log(task.tokenizer.vocab_size), abs=0.1
    )
