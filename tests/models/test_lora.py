"""LoRA: nothing at first, then a change of low rank; everything else stays as it is."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from gptjax import run_files, tasks
from gptjax.config import MeshConfig, to_json
from gptjax.errors import UserError
from gptjax.models import lora
from gptjax.parallel.mesh import Layout
from gptjax.training.loop import StepRunner, initial_state
from tests.conftest import replace


@pytest.fixture(scope='module')
def source(tiny, tmp_path_factory):
    """A work directory with a model with learned positions that was trained a little."""
    config = replace(
        tiny, model={'position': 'learned', 'residual_init': 'plain'}, train={'steps': 100}
    )
    workdir = tmp_path_factory.mktemp('source')
    task = tasks.create(config, print)
    task.save(workdir)
    run_files.config_path(workdir).write_text(to_json(config))
    layout = Layout(MeshConfig(data=1), 1)
    state = initial_state(task, layout)
    runner = StepRunner(task, layout, state)
    for i in range(100):
        state, _, _ = runner.run(state, i, 1)
    saved = run_files.checkpoints(workdir)
    saved.save(state, 1.0)
    saved.close()
    return workdir, config, state.params['params']


def test_a_change_of_low_rank_is_learnt_and_nothing_else(source, tmp_path):
    """It learns a text that is the first one backwards, so that other letters follow each other."""
    workdir, config, before = source
    backwards = tmp_path / 'backwards.txt'
    backwards.write_text(Path(config.data.path).read_text()[::-1])
    config = replace(config, data={'path': str(backwards)})
    train = {'init_from': str(workdir), 'lora_rank': 2, 'steps': 40}
    train['lora_targets'] = ('query', 'up', 'out')
    task = tasks.create(replace(config, train=train | {'learning_rate': 0.05}), print)
    layout = Layout(MeshConfig(data=1), 1)
    state = initial_state(task, layout)
    jax.tree.map(np.testing.assert_array_equal, state.params['params'], before)
    at_first = task.variables(state.params)['params']
    jax.tree.map(np.testing.assert_array_equal, at_first, before)
    runner = StepRunner(task, layout, state)
    first = last = None
    for i in range(40):
        state, metrics, _ = runner.run(state, i, 1)
        first = first or float(metrics['loss'][0])
        last = float(metrics['loss'][0])
    assert last < first - 1
    jax.tree.map(np.testing.assert_array_equal, state.params['params'], before)
    merged = task.variables(state.params)['params']
    for module, name in (('attn', 'query'), ('attn', 'out'), ('mlp', 'up')):
        change = (
            merged['block_1'][module][name]['kernel'] - before['block_1'][module][name]['kernel']
        )
        matrix = np.reshape(change, (16, -1))
        assert np.linalg.matrix_rank(matrix, tol=1e-5) == 2
    np.testing.assert_array_equal(
        merged['block_0']['attn']['key']['kernel'], before['block_0']['attn']['key']['kernel']
    )
    # Two of 14 kernels a block have averages of Adam, of low rank.
    sizes = [x.size for x in jax.tree.leaves(state.opt_state)]
    assert sum(sizes) < 3 * sum(x.size for x in jax.tree.leaves(state.params[lora.COLLECTION]))


def test_the_architecture_and_the_tokens_are_those_of_the_source(source):
    workdir, config, before = source
    other = replace(
        config,
        model={'n_layer': 7, 'position': 'rotary', 'block_size': 8, 'dropout': 0.5},
        data={'tokenizer': 'bpe'},
        train={'init_from': str(workdir)},
    )
    task = tasks.create(other, print)
    assert task.config.model == dataclasses.replace(config.model, block_size=8, dropout=0.5)
    assert task.tokenizer.kind == 'char'
    params = initial_state(task, Layout(MeshConfig(data=1), 1)).params['params']
    np.testing.assert_array_equal(
        params['embed_pos']['embedding'], before['embed_pos']['embedding'][:8]
    )


def test_mistakes_are_named(source, tmp_path):
    workdir, config, _ = source
    longer = replace(config, model={'block_size': 32}, train={'init_from': str(workdir)})
    with pytest.raises(UserError, match=r'block_size=32 is longer than the 16 positions that'):
        tasks.create(longer, print)
    with pytest.raises(UserError, match=r'there is no run in .*none \(no config.json\); name the'):
        tasks.create(replace(config, train={'init_from': str(tmp_path / 'none')}), print)
    with pytest.raises(UserError, match="lora_targets has 'queries', which is none of query, key"):
        replace(config, train={'init_from': 'x', 'lora_targets': ('queries',)})
    with pytest.raises(UserError, match='lora_rank=4 needs a model to change and matrices of it'):
        replace(config, train={'lora_rank': 4})
