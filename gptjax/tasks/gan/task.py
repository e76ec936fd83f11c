"""Sentences from noise: a generator learns against a critic, and is measured against real ones."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from gptjax.config import Config, SampleConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.explain.page import Explained
from gptjax.explain.sizes import sizes
from gptjax.generation.requests import Piece
from gptjax.parallel.mesh import Layout, on_host
from gptjax.tasks import base
from gptjax.tasks.gan import curves, explain, from_noise, judge, likeness, sentences
from gptjax.tasks.gan.model import Critic, Generator
from gptjax.tasks.gan.players import Players
from gptjax.tasks.gan.step import Adversaries
from gptjax.tasks.protocols import Report
from gptjax.tasks.reads import every
from gptjax.text import corpora
from gptjax.text.words import END, WordTokenizer
from gptjax.training import steps
from gptjax.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 256  # sentences written at a time
PREVIEW = 5  # sentences shown
DECISIVE = ('task', 'model.', 'gan.', 'train.optimizer')  # beginnings of knobs
READ = (
    *('model.', 'data.', 'train.', 'mesh.', 'gan.', 'gan_sampling.', 'sample.max_new_tokens'),
    *('sample.temperature', 'sample.num_samples', 'sample.seed', 'sample.unknown'),
    'sample.checkpoint',
)
UNREAD = (
    *('model.kind', 'model.n_layer', 'model.dropout', 'model.tied_head', 'model.head_bias'),
    *('model.vocab_multiple', 'model.ngram', 'model.scale_embedding', 'data.order'),
    *('data.shards', 'data.text_field', 'data.workers'),
    *('train.accumulate', 'train.average', 'train.eval_train', 'train.init_from', 'train.lora_'),
    *('train.matmul_dtype', 'train.scan_layers', 'train.remat', 'mesh.offload'),
)


@dataclasses.dataclass(frozen=True)
class Gan(base.BaseTask):
    """See `gptjax.tasks.protocols.Task`."""

    config: Config
    sentences: sentences.Sentences
    reads: ClassVar[frozenset[str]] = every(*READ, but=UNREAD)

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
        return cls(config, sentences.load(workdir))

    def save(self, workdir: Path) -> None:
        """Leaves in a work directory all that sampling and evaluation need besides parameters."""
        sentences.save(self.sentences, workdir)

    @property
    def tokenizer(self) -> WordTokenizer:
        """What the words are."""
        return self.sentences.tokenizer

    @functools.cached_property
    def adversaries(self) -> Adversaries:
        """Both models, without their parameters, and how they learn."""
        args = self.config.model, self.config.gan, self.tokenizer.vocab_size
        return Adversaries(self.config, Players(self.config, Generator(*args), Critic(*args)))

    def init_state(self, key: Array) -> steps.TrainState:
        """Fresh parameters and optimizer states of both players."""
        return self.adversaries.init_state(key)

    @property
    def train_step(self) -> steps.TrainStep:
        """(state, batch) -> (state, metrics), pure."""
        return self.adversaries.train_step

    def train_batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of a step's batch: one for each step of the critic."""
        train, turns = self.config.train, self.config.gan.n_critic
        shape = {'batch_size': train.batch_size, 'turns': turns} | base.own_rows()
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

    def draw(self, params: dict, count: int, layout: Layout) -> list[tuple]:
        """Some sentences as tuples of ids, the same at every call."""
        rows = -(-ROWS // layout.rows) * layout.rows
        sample = self._sampler(params, 0)
        written = []
        for first in range(0, count, rows):
            row_B = np.arange(first, first + rows, dtype=np.int32)
            ids_BT = layout.wait(sample(row_B=layout.put(row_B, whole=True)))
            written += sentences.word_lists(on_host(ids_BT))
        return written[:count]

    def _sampler(self, params: dict, seed: int) -> Callable[..., Array]:
        players, key = self.adversaries.players, steps.run_key(seed)
        return functools.partial(from_noise.sample, players.generator, players.author(params), key)

    def stream(self, params: dict, prompts: Sequence[str], config: SampleConfig) -> Iterator[Piece]:
        """Writes sentences that begin with the prompts, each in a single piece.

        `temperature` scales Gumbel noise, `max_new_tokens` cuts, `seed` decides the noise.

        Raises:
          UserError: the vocabulary lacks a part of a prompt, or the prompt is too long.
        """
        starts = [sentences.encode_prompt(text, self.tokenizer, self.config) for text in prompts]
        given = [start for start in starts for _ in range(config.num_samples)]
        forced_BT = np.full((len(given), self.config.model.block_size), from_noise.FREE, np.int32)
        for row, ids in zip(forced_BT, given, strict=True):
            row[1 : len(ids) + 1] = ids
        ids_BT = self._sampler(params, config.seed)(
            row_B=np.arange(len(forced_BT), dtype=np.int32),
            kind=self.config.gan_sampling.style,
            forced_BT=forced_BT,
            temperature=config.temperature,
        )
        pieces = []
        written = sentences.word_lists(on_host(ids_BT))
        for i, (ids, words) in enumerate(zip(given, written, strict=True)):
            new = words[len(ids) :][: config.max_new_tokens]
            text = self.tokenizer.to_bytes(new, ids[-1] if ids else None).decode()
            pieces.append(Piece(i, new, text, 'stop'))
        return iter(pieces)

    def explain(
        self, params: dict, texts: Sequence[str], config: SampleConfig, title: str
    ) -> Explained:
        """All that --mode=explain shows of a sentence: one that begins with a prompt, or all given.

        Raises:
          UserError: the vocabulary lacks a word, or there are too many of them.
        """
        given = sentences.encode_prompt(' '.join(texts), self.tokenizer, self.config)
        forced_1T = np.full((1, self.config.model.block_size), from_noise.FREE, np.int32)
        forced_1T[0, 1 : len(given) + 1] = given
        if len(texts) > 1:
            forced_1T[0, len(given) + 1] = END
        players, key = self.adversaries.players, steps.run_key(config.seed)
        author = players.author(params)
        row_B = jnp.zeros(1, jnp.int32)
        kind = self.config.gan_sampling.style
        noise, w_1TD = from_noise.drawn(players.generator, author, key, row_B, kind)
        ids_1T = self._sampler(params, config.seed)(
            row_B=row_B, kind=kind, forced_BT=forced_1T, temperature=config.temperature
        )
        numbers = explain.views(
            players,
            params,
            np.asarray(ids_1T[0]),
            noise,
            w_1TD=w_1TD,
            real_NT=self.sentences.val_NT[:ROWS],
            tokenizer=self.tokenizer,
            n_prompt=len(given) + 1,
            temperature=config.temperature,
        )
        whose = 'the sentence was given' if len(texts) > 1 else 'the generator chose the rest'
        return Explained(
            title=title,
            model=self.describe_model(),
            summary=f'{len(numbers["tokens"])} tokens: {len(given)} words of the prompt, {whose}.',
            vocab_size=self.tokenizer.vocab_size,
            sizes=sizes(params, self.config.model, len(numbers['tokens'])),
            numbers=numbers,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued."""
        named = {'tokenizer': self.tokenizer}
        found = base.fingerprint(self.config, DECISIVE, self.sentences.sha256, named)
        return found | {'held-out sentences': len(self.sentences.val_NT)}

    def describe_model(self) -> str:
        """The players in some words, for people."""
        params = base.abstract_params(self)
        generator, critic = (base.count(params[name]) for name in ('generator', 'critic'))
        return f'a generator of {generator:,} parameters against a critic of {critic:,}'

    def describe_data(self) -> str:
        """The data in some words, for people, with the memory that it takes."""
        rows, vocab = self.sentences.train_NT, self.tokenizer.vocab_size
        size = self.config.train.batch_size * self.config.model.block_size * 4  # bytes
        return (
            f'{len(rows):,} sentences to learn from, {len(self.sentences.val_NT):,} held out, a '
            f'vocabulary of {vocab:,}; a batch of ids is {size / 1e3:.1f} kB (one-hot: '
            f'{size * vocab / 1e6:.1f} MB)'
        )

    def tokens_per_step(self) -> int:
        """Places of a full batch, for the generator and for each step of the critic."""
        batch = self.config.train.batch_size * self.config.model.block_size
        return batch * (1 + self.config.gan.n_critic)

    def flops_per_token(self) -> float:
        """6 for each parameter, forward and backward: an estimate from below."""
        params = base.abstract_params(self)
        return 6.0 * sum(base.count(params[name]) for name in ('generator', 'critic'))


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
