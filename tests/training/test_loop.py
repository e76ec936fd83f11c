"""The loop: resuming is exact, divergence is caught before it is saved, metrics are complete."""

import dataclasses
import time

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax import tasks
from gptjax.config import MeshConfig
from gptjax.metrics_log import read_metrics
from gptjax.parallel.mesh import Layout
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.loop import abstract_state, initial_state
from gptjax.training.metrics import DivergedError, Meter
from tests.conftest import replace
from tests.runs import train_in


@pytest.fixture(scope='module')
def task(tiny):
    return tasks.create(tiny, print)


def run(task, folder, state=None):
    """Trains in a folder and returns the final state."""
    layout = Layout(MeshConfig(data=1), 1)
    checkpoints = Checkpoints(folder / 'checkpoints', keep=9)
    state = initial_state(task, layout) if state is None else state
    return train_in(folder, task, layout, state, checkpoints).state


def with_steps(task, steps):
    # The schedule depends on the number of steps; a constant one makes runs comparable.
    return dataclasses.replace(
        task, config=replace(task.config, train={'steps': steps, 'schedule': 'constant'})
    )


@pytest.mark.parametrize(
    ('steps_per_call', 'save_every', 'saved'), [(1, 1, (1, 3, 5)), (4, 3, (3,))]
)
def test_resuming_at_any_step_equals_never_stopping(
    task, tmp_path, steps_per_call, save_every, saved
):
    train = {'save_every': save_every, 'steps_per_call': steps_per_call}
    config = replace(task.config, model={'dropout': 0.2}, train=train)
    task = dataclasses.replace(task, config=config)
    (tmp_path / 'whole').mkdir()
    expected = run(with_steps(task, 6), tmp_path / 'whole')
    layout = Layout(MeshConfig(data=1), 1)
    like = abstract_state(task, layout)
    for step in saved:
        _, state = Checkpoints(tmp_path / 'whole' / 'checkpoints').restore(like, [step])
        folder = tmp_path / f'from-{step}'
        folder.mkdir()
        resumed = run(with_steps(task, 6), folder, state)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(resumed), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('steps_per_call', [1, 2, 100])
def test_metrics_are_complete(task, tmp_path, steps_per_call):
    config = replace(task.config, train={'steps_per_call': steps_per_call})
    run(dataclasses.replace(task, config=config), tmp_path)
    rows = read_metrics(tmp_path / 'metrics.jsonl')
    assert [row['step'] for row in rows] == [2, 3, 4, 6]
    assert [row['step'] for row in rows if 'val_loss' in row] == [3, 6]
    for row in rows:
        assert {'elapsed_s', 'train_loss', 'learning_rate', 'grad_norm'} <= row.keys()
    assert {'step_ms', 'tokens_per_s'} <= rows[-2].keys()
    assert rows[-2]['tokens_per_s'] == pytest.approx(128e3 / rows[-2]['step_ms'], rel=1e-2)
    elapsed = [row['elapsed_s'] for row in rows]
    assert elapsed == sorted(elapsed)


def test_a_late_reading_times_the_steps_that_it_is_about(task, tmp_path):
    meter = Meter(1, 1.0, Layout(MeshConfig(data=1), 8))
    metrics = {'loss': np.ones(2)}
    meter.add(2, 2, metrics)  # Compiles.
    rows = []
    for step in (4, 6):
        time.sleep(0.1)  # These two steps are computed and waited for, and then ...
        rows.append(meter.read())  # ... the row of those before is written.
        meter.add(step, 2, metrics)
    rows.append(meter.read())
    assert [row['step'] for row in rows] == [2, 4, 6]
    assert [row['step_ms'] for row in rows[1:]] == pytest.approx([50, 50], rel=0.3)


def test_the_checkpoint_has_the_loss_of_its_step(task, tmp_path):
    run(task, tmp_path)
    checkpoints = Checkpoints(tmp_path / 'checkpoints')
    losses = {
        r['step']: r['val_loss']
        for r in read_metrics(tmp_path / 'metrics.jsonl')
        if 'val_loss' in r
    }
    assert {step: checkpoints.val_loss(step) for step in checkpoints.saved()} == losses


class Poisoned:
    """A task whose numbers go bad at some step."""

    def __init__(self, task, at, what):
        self._task, self._at, self._what = task, at, what

    def __getattr__(self, name):
        return getattr(self._task, name)

    def train_step(self, state, batch):
        new, metrics = self._task.train_step(state, batch)
        bad = jnp.where(new.step == self._at, jnp.nan, 0.0)
        if self._what == 'param_norm':
            new = new.replace(params=jax.tree.map(lambda x: x + bad, new.params))
        return new, metrics | {self._what: metrics[self._what] + bad}

    def validate(self, params, layout):
        figures = self._task.validate(params, layout)
        return {'val_loss': float('nan')} if self._what == 'val_loss' else figures


@pytest.mark.parametrize(
    ('what', 'at', 'saved'), [('loss', 4, [3]), ('grad_norm', 2, []), ('param_norm', 6, [3])]
)
def test_a_value_that_is_not_finite_stops_the_run_before_it_is_saved(
    task, tmp_path, what, at, saved
):
    with pytest.raises(DivergedError, match=f'{what} is nan at step {at}, .*learning_rate'):
        run(Poisoned(task, at, what), tmp_path)
    assert Checkpoints(tmp_path / 'checkpoints').saved() == saved


def test_a_real_divergence_names_its_step(task, tmp_path):
    config = replace(
        task.config,
        train={'optimizer': 'sgd', 'learning_rate': 1e30, 'grad_clip': 0.0, 'warmup_steps': 0},
    )
    with pytest.raises(DivergedError, match=r'is (nan|inf|-inf) at step \d+'):
        run(dataclasses.replace(task, config=config), tmp_path)
    assert Checkpoints(tmp_path / 'checkpoints').saved() == []


class Timed:
    """A task whose steps take a known time on the device, and note when they end."""

    STEP_S = 0.08

    def __init__(self, task):
        self._task, self.ended = task, []

    def __getattr__(self, name):
        return getattr(self._task, name)

    def train_step(self, state, batch):
        state, metrics = self._task.train_step(state, batch)

        def sleep(loss):
            time.sleep(self.STEP_S)
            self.ended.append(time.perf_counter())
            return loss

        loss = jax.experimental.io_callback(sleep, metrics['loss'], metrics['loss'])
        return state, metrics | {'loss': loss}


@pytest.mark.parametrize('log_every', [1, 4])
@pytest.mark.parametrize('steps_per_call', [1, 4])
def test_the_times_of_all_rows_add_up(task, tmp_path, steps_per_call, log_every):
    knobs = {'steps_per_call': steps_per_call, 'log_every': log_every}
    config = replace(task.config, train=knobs | {'eval_every': 24, 'save_every': 24})
    timed = Timed(with_steps(dataclasses.replace(task, config=config), 24))
    run(timed, tmp_path)
    measured, before = 0.0, min(steps_per_call, log_every)  # The first call compiles.
    for row in read_metrics(tmp_path / 'metrics.jsonl'):
        measured += max(row['step'] - before, 0) * row.get('step_ms', 0.0) / 1e3
        before = max(before, row['step'])
    took = timed.ended[-1] - timed.ended[min(steps_per_call, log_every) - 1]
    assert measured == pytest.approx(took, rel=0.05)
