"""The optimizer's state in the host's memory: the same run, and the device has room for others."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from gptjax import run_files, tasks
from gptjax.chips import CHIPS
from gptjax.config import MeshConfig
from gptjax.errors import UserError
from gptjax.plan import memory, plan, report, roofline, search, shapes
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.trainer import train_run
from gptjax.training.loop import StepRunner, abstract_state, initial_state, layout_of, multi_step_on
from tests.conftest import replace

SIZES = {'data': 1, 'fsdp': 1, 'tensor': 1}


def task_with(config, **mesh):
    return tasks.create(dataclasses.replace(config, mesh=MeshConfig(**mesh)), print)


def after(task, steps):
    """The state after some steps."""
    layout = layout_of(task)
    state = initial_state(task, layout)
    runner = StepRunner(task, layout, state)
    for i in range(steps):
        state, _, _ = runner.run(state, i, 1)
    return state


@pytest.mark.parametrize(
    ('optimizer', 'mesh'),
    [('adamw', {'data': 1}), ('adamw', {'data': 2, 'fsdp': 2, 'tensor': 2}), ('muon', {'fsdp': 2})],
)
def test_a_run_is_the_same_to_the_bit(tiny, optimizer, mesh):
    config = replace(tiny, train={'optimizer': optimizer, 'steps_per_call': 2})
    states = [after(task_with(config, **mesh, offload=offload), 3) for offload in (False, True)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    kept, waiting = ([x.sharding for x in jax.tree.leaves(state)] for state in states)
    assert [x.spec for x in waiting] == [x.spec for x in kept]
    assert {x.memory_kind for x in kept} == {'device'}


def test_only_arrays_of_the_optimizer_wait_on_the_host(tiny):
    state = after(task_with(tiny, data=1, offload=True), 1)
    kinds = jax.tree.map(lambda x: x.sharding.memory_kind, state)
    assert set(jax.tree.leaves((kinds.params, kinds.step, kinds.key))) == {'device'}
    for x in jax.tree.leaves(state.opt_state):
        assert x.sharding.memory_kind == ('pinned_host' if x.ndim else 'device')


def test_a_run_is_saved_and_goes_on_with_and_without(tiny, tmp_path, capsys):
    config = replace(tiny, train={'schedule': 'constant'})
    offloading = dataclasses.replace(config, mesh=MeshConfig(data=1, offload=True))
    whole = dataclasses.replace(config, mesh=MeshConfig(data=1))
    train_run(whole, tmp_path / 'whole')
    said = "on one device, the optimizer's state in the host's memory"
    assert said not in capsys.readouterr().err
    train_run(replace(offloading, train={'steps': 3}), tmp_path / 'parts')
    assert said in capsys.readouterr().err
    train_run(replace(whole, train={'steps': 5}), tmp_path / 'parts')
    train_run(offloading, tmp_path / 'parts')
    task = tasks.create(whole, print)
    like = abstract_state(task, layout_of(task))
    found = [run_files.checkpoints(tmp_path / x).resume(like)[1] for x in ('whole', 'parts')]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_a_gpu_is_told_which_arrays_wait_on_the_host(tiny):
    task = task_with(tiny, data=1, offload=True)
    layout = layout_of(task)
    state = abstract_state(task, layout)
    batches = jax.tree.map(lambda x: np.asarray(x)[None], task.train_batch(0))
    step = jax.jit(multi_step_on(layout, task), donate_argnums=0)
    text = step.trace(state, batches, 1).lower(lowering_platforms=('cuda',)).as_text()
    moves = re.findall(r'_xla_buffer_placement = "(\w+)"', text)
    arrays = sum(x.ndim > 0 for x in jax.tree.leaves(state.opt_state))
    assert (moves.count('device'), moves.count('pinned_host')) == (arrays, arrays)


def test_a_plan_has_the_state_on_the_device_for_the_update_alone(tiny):
    config = dataclasses.replace(tiny, mesh=MeshConfig(offload=True))
    task = shapes.of_vocabulary(config, 64)
    assert isinstance(task, LanguageModel)
    arrays, target = shapes.leaves(task), memory.target_of(config)
    kept, moved = (
        memory.of_device(
            dataclasses.replace(config, mesh=MeshConfig(offload=offload)),
            *(arrays, SIZES),
            vocab_size=64,
            target=target,
        )
        for offload in (False, True)
    )
    passing = kept.copies + kept.activations + kept.logits
    assert kept.total - moved.total == min(kept.optimizer, passing)
    found = search.evaluate(task, arrays, SIZES, flops=1e9)
    assert found.step.offload_s == 2 * moved.optimizer / 64e9
    assert found.step.step_s == max(found.step[:3]) + found.step.offload_s


def test_a_plan_tells_the_way_to_the_host_and_the_mean(tiny, tmp_path):
    config = replace(tiny, data={'tokenizer': 'byte', 'path': ''}, train={'average': 0.9})
    config = dataclasses.replace(config, mesh=MeshConfig(data=1, offload=True))
    made = plan.make(config, print)
    params = 4 * made['parameters']
    assert (made['bytes']['mean'], made['offload']) == (params, True)
    text = report.table(made)
    rows = ('optimizer state (on the device for the update only)', 'running mean of the parameters')
    for row in (*rows, 'optimizer state to and from the host', ', accumulate=1, offload'):
        assert row in text
    report.draw(made, tmp_path / 'plan.png')
    slow = roofline.Step(1.0, 1.0, 1.0, offload_s=2.0)
    assert slow.step_s == 3.0
    assert roofline.in_words(slow, CHIPS['h100']).startswith('the link to the host, at 64 GB/s')


def test_a_chip_whose_host_is_not_known_is_refused(tiny):
    config = replace(tiny, plan={'chip': 'v5e'}, mesh={'offload': True})
    with pytest.raises(UserError, match=r'plan.chip=v5e reads .* plan for one of a100, h100, h200'):
        plan.make(config, print)


def test_a_plan_offloads_where_only_that_fits(tiny):
    big = {'n_embd': 2048, 'n_head': 16, 'n_layer': 72, 'block_size': 2048, 'n_hidden': 8192}
    train = {'batch_size': 8, 'logits_chunk': 256}
    config = replace(tiny, plan={'devices': 1, 'chip': 'h100'}, model=big, train=train)
    best = search.best(shapes.of_vocabulary(config, 50_257), 1000)
    assert best[0].fits and best[0].memory.offload
    assert not any(x.fits for x in best if not x.memory.offload)
    smaller = search.best(shapes.of_vocabulary(replace(config, model={'n_layer': 8}), 50_257), 1)
    assert not smaller[0].memory.offload
