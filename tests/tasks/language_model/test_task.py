"""The language model as a task: what training, and nothing else, does."""

import jax
import pytest

from gptjax import tasks
from gptjax.tasks.language_model import evaluation
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


def test_an_evaluation_keeps_few_logits(tiny, monkeypatch):
    task = tasks.create(tiny, print)
    batch = task.train_batch(0)
    params = jax.jit(lambda key: task.init_state(key).params)(jax.random.key(2))
    rows, length = batch['targets'].shape
    losses, found = [], []
    for chunk in (length, 2):
        monkeypatch.setattr(evaluation, 'EVAL_LOGITS', rows * chunk * task.model.vocab_size)
        losses.append(float(task.loss(params, batch)[0]))
        program = str(jax.make_jaxpr(task.loss)(params, batch))
        found.append(f'{rows},{length},{task.model.vocab_size}]' in program)
    assert found == [True, False]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_logits_of_an_evaluation_by_the_size_of_the_vocabulary():
    assert evaluation.logits_chunk((128, 64), 65) == 0  # all
    assert evaluation.logits_chunk((8, 1024), 50_257) == 83
    assert evaluation.logits_chunk((8, 1024), 10**9) == 1
