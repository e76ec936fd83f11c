"""The running mean of the parameters: its weights, what it is of, and that it is what is used."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gptjax
from gptjax import run_files, tasks
from gptjax.config import MeshConfig
from gptjax.errors import UserError
from gptjax.metrics_log import read_metrics
from gptjax.models import lora
from gptjax.parallel.mesh import Layout
from gptjax.trainer import train_run
from gptjax.training import steps
from gptjax.training.loop import StepRunner, abstract_state, initial_state
from gptjax.training.optim import make_optimizer
from tests.conftest import replace, unpack_golden

AVERAGE = 0.8


@pytest.fixture(scope='module')
def config(tiny):
    return replace(tiny, train={'average': AVERAGE, 'schedule': 'constant'})


@pytest.fixture(scope='module')
def workdir(config, tmp_path_factory):
    """A trained run."""
    workdir = tmp_path_factory.mktemp('run') / 'mean'
    train_run(config, workdir)
    return workdir


def test_the_weights_fall_with_age_and_sum_to_one(config):
    optimizer = make_optimizer(config.train)
    drawn = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    mean = {'params': jnp.full(3, 7.0)}  # What it was before the first step has no weight.
    for step, x in enumerate(drawn, 1):
        mean = optimizer.next_mean(mean, {'params': jnp.asarray(x)}, jnp.int32(step))
        weights = AVERAGE ** np.arange(step)[::-1]
        expected = weights @ drawn[:step] / weights.sum()
        np.testing.assert_allclose(mean['params'], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('average', [0.9999, 0.99999999])
def test_the_first_parameters_have_all_weight_at_first(config, average):
    optimizer = make_optimizer(replace(config, train={'average': average}).train)
    mean = optimizer.next_mean({'params': jnp.zeros(3)}, {'params': jnp.ones(3)}, jnp.int32(1))
    np.testing.assert_allclose(mean['params'], 1.0, rtol=1e-5)


def test_it_is_of_the_parameters_after_each_step(config):
    task = tasks.create(config, print)
    layout = Layout(MeshConfig(data=1), 1)
    state = initial_state(task, layout)
    runner = StepRunner(task, layout, state)
    seen = []
    for i in range(4):
        state, _, _ = runner.run(state, i, 1)
        seen.append(jax.device_get(state.params))
    weights = AVERAGE ** np.arange(4)[::-1]
    expected = jax.tree.map(lambda *xs: np.average(xs, axis=0, weights=weights), *seen)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.mean, expected)
    jax.tree.map(np.testing.assert_array_equal, state.used, state.mean)


def test_without_a_decay_there_is_no_mean(tiny):
    state = abstract_state(tasks.create(tiny, print), Layout(MeshConfig(data=1), 1))
    assert state.mean == {} and state.used == state.params


def test_what_learns_is_the_same_with_and_without(config, workdir, tmp_path):
    """The mean is looked at, never learnt with; only what is evaluated differs."""
    outcome = train_run(replace(config, train={'average': 0.0}), tmp_path / 'run')
    here, there = (read_metrics(folder / 'metrics.jsonl') for folder in (tmp_path / 'run', workdir))
    for name, equal in (('train_loss', True), ('val_loss', False)):
        pairs = [(a[name], b[name]) for a, b in zip(here, there, strict=True) if name in a]
        assert all(a == b for a, b in pairs) == equal
    task = tasks.create(config, print)
    layout = Layout(MeshConfig(data=1), 1)
    _, state = run_files.checkpoints(workdir).resume(abstract_state(task, layout))
    jax.tree.map(np.testing.assert_array_equal, state.params, outcome.state.params)


def test_a_run_is_used_with_the_mean_that_was_evaluated(config, workdir):
    run = gptjax.load(workdir)
    task = tasks.create(config, print)
    _, state = run_files.checkpoints(workdir).resume(abstract_state(task, run.layout))
    jax.tree.map(np.testing.assert_array_equal, run.params, state.mean)
    assert run.task.count_params() == sum(x.size for x in jax.tree.leaves(run.params))
    measured = run.task.validate(run.params, run.layout)['val_loss']
    rows = [row for row in run.metrics if 'val_loss' in row]
    assert measured == pytest.approx(rows[-1]['val_loss'], rel=1e-6)
    (last, params), *_ = reversed(list(run.checkpoints(9)))
    assert last == 6
    jax.tree.map(np.testing.assert_array_equal, params, state.mean)


def test_resuming_equals_never_stopping(config, workdir, tmp_path):
    halfway = replace(config, train={'steps': 3})
    train_run(halfway, tmp_path / 'run')
    train_run(config, tmp_path / 'run')
    states = [
        run_files.checkpoints(folder).resume(
            abstract_state(tasks.create(config, print), Layout(MeshConfig(data=1), 1))
        )[1]
        for folder in (workdir, tmp_path / 'run')
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_run_goes_on_with_another_decay_but_not_without_a_mean(config, workdir, capsys):
    with pytest.raises(UserError, match=r'train.average above 0 was True and is False'):
        train_run(replace(config, train={'average': 0.0, 'steps': 8}), workdir)
    copy = shutil.copytree(workdir, workdir.with_name('copy'))
    train_run(replace(config, train={'average': 0.5, 'steps': 8}), copy)
    assert 'train.average was 0.8 and is 0.5 from here on' in capsys.readouterr().err


def test_of_lora_only_the_change_has_a_mean(config, workdir, tmp_path):
    train = {'init_from': str(workdir), 'lora_rank': 2, 'steps': 3}
    changed = replace(config, train=train)
    outcome = train_run(changed, tmp_path / 'run')
    assert set(outcome.state.mean) == {lora.COLLECTION}
    run = gptjax.load(tmp_path / 'run')
    jax.tree.map(np.testing.assert_array_equal, run.params, outcome.state.used)
    before = gptjax.load(workdir).params['params']
    jax.tree.map(np.testing.assert_array_equal, run.params['params'], before)


def test_it_is_split_as_the_parameters_are(config):
    task = tasks.create(config, print)
    state = abstract_state(task, Layout(MeshConfig(data=1, fsdp=2, tensor=2), 2))
    found = jax.tree.map(lambda x: x.sharding.spec, (state.params, state.mean))
    assert found[0] == found[1]


def test_a_translation_has_one_too(tmp_path):
    run = gptjax.load(unpack_golden(tmp_path, 'translation') / 'translation')
    task = dataclasses.replace(run.task, config=replace(run.config, train={'average': 0.5}))
    state = jax.eval_shape(task.init_state, steps.run_key(0))
    assert jax.tree.structure(state.mean) == jax.tree.structure(state.params)
