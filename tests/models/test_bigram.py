"""The bigram baseline learns what counting says."""

import jax
import numpy as np

from gptjax import tasks
from gptjax.config import MeshConfig, SampleConfig
from gptjax.generation.engine import generate
from gptjax.parallel.mesh import Layout
from gptjax.training.loop import StepRunner, initial_state
from tests.conftest import replace


def test_it_reaches_the_entropy_of_counted_bigrams(tiny):
    """Within 0.02 nats of slightly smoothed counts smoothing, and it samples by its table."""
    config = replace(
        tiny,
        model={'kind': 'bigram'},
        train={'steps': 300, 'batch_size': 32, 'learning_rate': 0.3, 'weight_decay': 0.0}
        | {'grad_clip': 0.0, 'eval_batches': 0},
    )
    task = tasks.create(config, print)
    layout = Layout(MeshConfig(data=1), 1)
    state = initial_state(task, layout)
    runner = StepRunner(task, layout, state)
    for i in range(300):
        state, _, _ = runner.run(state, i, 1)
    train, val = (np.asarray(split.tokens) for split in (task.corpus.train, task.corpus.val))
    counts = np.full((task.tokenizer.vocab_size,) * 2, 0.01)
    np.add.at(counts, (train[:-1], train[1:]), 1)
    nats = -np.log(counts / counts.sum(1, keepdims=True))
    expected = nats[val[:-1], val[1:]].mean()
    found = task.examine(state.params, layout).val_loss
    assert abs(found - expected) < 0.02
    engine = task.engine(state.params, SampleConfig(), rows=1)
    greedy = SampleConfig(max_new_tokens=40, temperature=0.0)
    (ids,) = generate(engine, [np.array([3])], greedy)
    table = np.asarray(state.params['params']['table']['embedding'])
    expected_ids, token = [], 3
    for _ in range(40):
        token = int(table[token].argmax())
        expected_ids.append(token)
    assert ids == expected_ids
    assert task.flops_per_token() < 12 * 16 * 16 * 3
    assert jax.tree.leaves(state.params)[0].shape == counts.shape
