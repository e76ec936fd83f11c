"""Sentences from noise: a generator learns against a critic, and is measured against real ones."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from gptjax.config import Config, SampleConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.files import DamagedError, read_object, write_atomically
from gptjax.generation.engine import Piece
from gptjax.parallel.mesh import Layout
from gptjax.tasks import sizes
from gptjax.tasks.base import BaseTask, hashes, knobs, own_rows
from gptjax.tasks.gan import curves, from_noise, judge, likeness, sentences
from gptjax.tasks.gan.model import Critic, Generator
from gptjax.tasks.gan.players import Players
from gptjax.tasks.gan.step import Adversaries
from gptjax.tasks.gan.writer import Writer
from gptjax.tasks.protocols import Report
from gptjax.tasks.reads import every
from gptjax.text import corpora, tokenizers
from gptjax.text.clean import clean
from gptjax.text.reading import file_sha256
from gptjax.text.words import WordTokenizer
from gptjax.training import steps
from gptjax.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 256  # sentences written at a time
SPLITS = ('train', 'val')
PREVIEW = 5  # sentences shown
UNREAD = (
    *('model.kind', 'model.n_layer', 'model.dropout', 'model.tied_head', 'model.head_bias'),
    *('model.vocab_multiple', 'model.ngram', 'model.ngram_rows', 'model.scale_embedding'),
    *('train.accumulate', 'train.eval_train', 'train.init_from'),
    *('train.lora_rank', 'train.lora_alpha', 'train.lora_targets', 'data.order'),
)
SAMPLING = ('max_new_tokens', 'temperature', 'num_samples', 'seed', 'unknown', 'checkpoint')


@dataclasses.dataclass(frozen=True)
class Gan(BaseTask):
    """See `gptjax.tasks.protocols.Task`."""

    config: Config
    sentences: sentences.Sentences
    reads: ClassVar[frozenset[str]] = every(
        *('model', 'data', 'train', 'mesh', 'gan', 'gan_sampling'), but=UNREAD
    ).union(f'sample.{name}' for name in SAMPLING)

    @classmethod
    def create(cls, config: Config, say: Say) -> 'Gan':
        """The task with its sentences.

        Raises:
          UserError: there are none that fit, or a knob of `model` does not suit a GAN.
        """
        check(config)
        source = corpora.source(config.data, say)
        return cls(config, sentences.prepare(source, config, say))

    @classmethod
    def load(cls, config: Config, workdir: Path) -> 'Gan':
        """The task as `save` left it in a work directory."""
        about = read_object(workdir / 'data.json', sha256=str, train_sha256=str, val_sha256=str)
        tokenizer = tokenizers.from_json((workdir / 'tokenizer.json').read_text())
        paths = [workdir / 'sentences' / f'{name}.npy' for name in SPLITS]
        for name, path in zip(SPLITS, paths, strict=True):
            if file_sha256(path) != about[f'{name}_sha256']:
                raise DamagedError(f'{path} is not what was saved')
        train, val = (np.load(path, allow_pickle=False) for path in paths)
        assert isinstance(tokenizer, WordTokenizer)
        return cls(config, sentences.Sentences(tokenizer, train, val, about['sha256']))

    def save(self, workdir: Path) -> None:
        """Leaves in a work directory all that sampling and evaluation need besides parameters."""
        write_atomically(workdir / 'tokenizer.json', self.tokenizer.to_json().encode())
        sentences.save(workdir / 'sentences', self.sentences)
        about = {'sha256': self.sentences.sha256}
        for name in SPLITS:
            about[f'{name}_sha256'] = file_sha256(workdir / 'sentences' / f'{name}.npy')
        write_atomically(workdir / 'data.json', json.dumps(about, indent=1).encode())

    @property
    def tokenizer(self) -> WordTokenizer:
        """What the words are."""
        return self.sentences.tokenizer

    @functools.cached_property
    def adversaries(self) -> Adversaries:
        """Both models, without their parameters, and how they learn."""
        config = self.config
        args = (config.model, config.gan, self.tokenizer.vocab_size)
        return Adversaries(config, Players(config, Generator(*args), Critic(*args)))

    @functools.cached_property
    def _writer(self) -> Writer:
        return Writer(self.config, self.adversaries.players.generator)

    def init_state(self, key: jax.Array) -> steps.TrainState:
        """Fresh parameters and optimizer states of both players."""
        return self.adversaries.init_state(key)

    @property
    def train_step(self) -> steps.TrainStep:
        """(state, batch) -> (state, metrics), pure."""
        return self.adversaries.train_step

    def train_batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of a step's batch: one for each step of the critic."""
        train = self.config.train
        shape = {'batch_size': train.batch_size, 'turns': self.config.gan.n_critic} | own_rows()
        return sentences.random_rows(self.sentences.train_NT, seed=train.seed, step=step, **shape)

    def validate(self, params: dict, layout: Layout) -> dict[str, float]:
        """Distances from held-out sentences; `val_loss` is the mean of the four."""
        return self._measure(params, ROWS * self.config.train.eval_batches, layout)[1]

    def examine(self, params: dict, layout: Layout) -> Report:
        """Also figures that take long, the baselines, and the judge's perplexity, if there is one.

        `compared` has the figures of each row of the table.
        """
        sampling = self.config.gan_sampling
        ours, figures = self._measure(params, sampling.samples, layout)
        learnt, held_out = self._word_lists
        rows = judge.compare(self.config, self.tokenizer, ours, learnt=learnt, held_out=held_out)
        figures |= rows['generator'] | {'compared': rows}
        text = (
            f'{sampling.samples:,} sentences, mean distance from held-out ones '
            f'{figures["val_loss"]:.4f} (0 is alike, 1 is nothing in common)\n\n'
            + likeness.table(rows)
        )
        return Report(figures, text if sampling.judge else f'{text}\n\n{judge.HOW_TO_JUDGE}')

    @functools.cached_property
    def _word_lists(self) -> list[list[tuple[int, ...]]]:
        """The sentences learnt from, and those held out."""
        splits = self.sentences.train_NT, self.sentences.val_NT
        return [sentences.word_lists(rows) for rows in splits]

    def _measure(self, params: dict, count: int, layout: Layout) -> tuple[list, dict[str, float]]:
        ours = self.draw(params, count, layout)
        learnt, held_out = self._word_lists
        figures = likeness.figures(ours, held_out, learnt)
        distances = [value for name, value in figures.items() if name.endswith('distance')]
        return ours, {'val_loss': float(np.mean(distances))} | figures

    def preview(self) -> Report:
        """Sizes, vocabulary and some sentences."""
        learnt, held_out = self._word_lists
        shown = [self.tokenizer.decode(ids) for ids in learnt[:PREVIEW]]
        figures = {
            'train_sentences': len(learnt),
            'val_sentences': len(held_out),
            'vocab_size': self.tokenizer.vocab_size,
            'mean_words': float(np.mean([len(ids) for ids in learnt])),
            'sentences': shown,
        }
        return Report(figures, '\n  '.join([self.describe_data(), *shown]))

    def verdict(self, rows: list[Row]) -> str:
        """None: what players lose to each other says nothing of fitting."""
        del rows
        return ''

    def plot(self, rows: list[Row], title: str) -> 'Figure':
        """Both losses, the penalty, and how like real sentences the generated ones get."""
        return curves.plot(rows, title)

    def draw(self, params: dict, count: int, layout: Layout, seed: int = 0) -> list[tuple]:
        """Some sentences as tuples of ids, the same at every call."""
        rows = -(-ROWS // layout.rows) * layout.rows
        key, author = steps.run_key(seed), self.adversaries.players.author(params)
        written = []
        for first in range(0, count, rows):
            # Each process puts a block of them, so that together they are in order.
            row_B = np.arange(first, first + rows, dtype=np.int32)
            own_B = np.split(row_B, jax.process_count())[jax.process_index()]
            row_B = layout.put(own_B)
            ids_BT = layout.wait(self._writer.as_in_training(author, key, row_B))
            written += sentences.word_lists(multihost_utils.process_allgather(ids_BT, tiled=True))
        return written[:count]

    def stream(self, params: dict, prompts: Sequence[str], config: SampleConfig) -> Iterator[Piece]:
        """Writes sentences that begin with the prompts, each in a single piece.

        `temperature` scales Gumbel noise, `max_new_tokens` cuts, `seed` decides the noise.

        Raises:
          UserError: the vocabulary lacks a part of a prompt, or the prompt is too long.
        """
        time, n = self.config.model.block_size, config.num_samples
        prompt_ids = [self._encode_prompt(prompt) for prompt in prompts]
        forced_BT = np.full((len(prompts) * n, time), from_noise.FREE, np.int32)
        for i, ids in enumerate(prompt_ids):
            forced_BT[i * n : (i + 1) * n, 1 : len(ids) + 1] = ids
        row_B = np.arange(len(forced_BT), dtype=np.int32)
        author = self.adversaries.players.author(params)
        ids_BT = self._writer.as_asked(
            author, steps.run_key(config.seed), row_B, forced_BT, config.temperature
        )
        pieces = []
        for i, row in enumerate(np.asarray(ids_BT)):
            (words,) = sentences.word_lists(row[None])
            given = prompt_ids[i // n]
            new = words[len(given) : len(given) + config.max_new_tokens]
            after = int(given[-1]) if len(given) else None
            text = self.tokenizer.to_bytes(new, after).decode()
            pieces.append(Piece(i, new, text, 'stop'))
        return iter(pieces)

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued."""
        tokenizer, text = hashes(self.tokenizer, self.sentences.sha256)
        return knobs(self.config, 'task', 'model.', 'gan.', 'train.optimizer') | {
            'tokenizer': tokenizer,
            'text': text,
            'held-out sentences': len(self.sentences.val_NT),
        }

    def describe_model(self) -> str:
        """The players in some words, for people."""
        params = sizes.abstract_params(self)
        generator, critic = (sizes.count(params[name]) for name in ('generator', 'critic'))
        return f'a generator of {generator:,} parameters against a critic of {critic:,}'

    def describe_data(self) -> str:
        """The data in some words, for people, with the memory that it takes."""
        rows, vocab = self.sentences.train_NT, self.tokenizer.vocab_size
        dense = self.config.train.batch_size * self.config.model.block_size * vocab * 4
        batch = self.config.train.batch_size * self.config.model.block_size * 4
        return (
            f'{len(rows):,} sentences to learn from, {len(self.sentences.val_NT):,} held out, a '
            f'vocabulary of {vocab:,}; a batch of ids is {batch / 1e3:.1f} kB (one-hot: '
            f'{dense / 1e6:.1f} MB)'
        )

    def tokens_per_step(self) -> int:
        """Places of a full batch, for the generator and for each step of the critic."""
        batch = self.config.train.batch_size * self.config.model.block_size
        return batch * (1 + self.config.gan.n_critic)

    def flops_per_token(self) -> float:
        """6 for each parameter, forward and backward: an estimate from below."""
        params = sizes.abstract_params(self)
        return 6.0 * sum(sizes.count(params[name]) for name in ('generator', 'critic'))

    def _encode_prompt(self, prompt: str) -> np.ndarray:
        words = sentences.to_words(clean(prompt, self.config.data), self.config.gan)
        text = ' '.join(words)
        self.tokenizer.check(text)
        most = self.config.model.block_size - 2
        if len(words) > most:
            raise UserError(
                f'the prompt has {len(words)} words, and a sentence has at most {most}; shorten it'
            )
        return self.tokenizer.encode(text)


def check(config: Config) -> None:
    """Raises UserError for values of knobs that do not suit this task."""
    model, train = config.model, config.train
    if model.position == 'learned':
        raise UserError('model.position=learned has no table here; use model.position=sinusoidal')
    if train.optimizer == 'muon':
        raise UserError(
            f'train.optimizer=muon is not for task={config.task}; use train.optimizer=adam'
        )
    if model.n_embd % 2:
        raise UserError(
            f'model.n_embd={model.n_embd} is odd, and the critic has sines and cosines of the '
            f'positions; try model.n_embd={model.n_embd + 1}'
        )
