"""The language model as a task: what training, and nothing else, does."""

import jax
import pytest

from gptjax import tasks
from tests.conftest import replace


def test_training_rounds_what_it_multiplies_and_evaluation_does_not(tiny):
    key, losses = jax.random.key(2), {}
    for dtype in ('float32', 'bfloat16'):
        task = tasks.create(replace(tiny, train={'matmul_dtype': dtype}), print)
        params = jax.jit(lambda key, task=task: task.init_state(key).params)(key)
        batch = task.train_batch(0)
        losses[dtype] = [float(task.loss(params, batch, k)[0]) for k in (None, key)]
    exact, trained = losses['float32']
    assert losses['bfloat16'][0] == exact
    assert trained == pytest.approx(exact, rel=1e-6)
    assert 1e-7 < abs(losses['bfloat16'][1] / exact - 1) < 1e-3
