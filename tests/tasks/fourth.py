"""A fourth task, as small as can be: it learns one number, the mean of some others.

Adding it takes this folder's worth of code and a line in `gptjax.tasks.TASKS`; the tests use it to
prove that training, evaluation, sampling and resuming need nothing else.
"""

import dataclasses
import json
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from gptjax.config import Config
from gptjax.files import read_object, write_atomically
from gptjax.generation.requests import Piece
from gptjax.tasks.base import LossTask
from gptjax.tasks.protocols import Report
from gptjax.tasks.reads import every
from gptjax.text.characters import ByteTokenizer
from gptjax.training import steps


@dataclasses.dataclass(frozen=True)
class Mean(LossTask):
    """Learns the mean of the bytes of a word."""

    config: Config
    word: str = 'gptjax'
    tokenizer: ClassVar = ByteTokenizer()
    reads: ClassVar = every('train.', 'mesh.')

    @classmethod
    def create(cls, config, say):
        return cls(config)

    @classmethod
    def load(cls, config, workdir):
        return cls(config, read_object(workdir / 'data.json', word=str)['word'])

    def save(self, workdir):
        write_atomically(workdir / 'data.json', json.dumps({'word': self.word}).encode())

    def fingerprint(self):
        return {'word': self.word}

    def init_state(self, key):
        return steps.init_state({'mean': jnp.zeros(())}, self.optimizer, key)

    def loss(self, params, batch, key=None):
        return jnp.sum((params['mean'] - batch['x']) ** 2), jnp.float32(batch['x'].size)

    def train_batch(self, step):
        x = np.frombuffer(self.word.encode(), np.uint8).astype(np.float32) / 100
        return {'x': np.resize(x, self.config.train.batch_size)}

    def validate(self, params, layout):
        total, count = self.eval_step(params, layout.put(self.train_batch(0)))
        return {'val_loss': float(total / count)}

    def examine(self, params, layout):
        figures = self.validate(params, layout)
        return Report(figures, f'squared error {figures["val_loss"]:.4f}')

    def stream(self, params, prompts, config):
        return (Piece(i, (), f'{float(params["mean"]):.2f}', 'stop') for i, _ in enumerate(prompts))

    def preview(self):
        return Report({'word': self.word}, self.word)

    def describe_model(self):
        return 'a number'

    def describe_data(self):
        return f'the word {self.word}'

    def tokens_per_step(self):
        return self.config.train.batch_size

    def flops_per_token(self):
        return 1.0
