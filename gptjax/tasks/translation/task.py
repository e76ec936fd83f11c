"""Translation: an encoder reads a line, the decoder writes another."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from gptjax.config import Config, SampleConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.explain.page import Explained
from gptjax.explain.sizes import sizes
from gptjax.generation.requests import Piece
from gptjax.generation.rules import Rules
from gptjax.models.block import apply
from gptjax.models.decoder import Decoder
from gptjax.parallel.mesh import Layout
from gptjax.tasks import base
from gptjax.tasks.protocols import Report
from gptjax.tasks.reads import every
from gptjax.tasks.translation import explain, pairs
from gptjax.tasks.translation.buckets import NO_PAIRS, Batch, Buckets, encode
from gptjax.tasks.translation.pairs import Pair
from gptjax.tasks.translation.scores import EXAMPLES, compare, describe, require_sacrebleu
from gptjax.tasks.translation.seq2seq import Seq2Seq
from gptjax.tasks.translation.translator import Translator
from gptjax.text.tokenizers import Tokenizer
from gptjax.training import steps
from gptjax.training.losses import Sums, cross_entropy

EVAL_PAIRS = 64  # computed at a time in an evaluation
LINES = 512  # translated before the first of them is printed
READ = ('model.', 'data.', 'translation.', 'train.', 'sample.', 'mesh.')
UNREAD = (
    *('model.kind', 'data.order', 'data.shards', 'data.text_field', 'data.workers'),
    *('train.logits_chunk', 'train.init_from', 'train.eval_train'),
    *('train.lora_', 'train.scan_layers', 'train.remat'),
)
DECISIVE = (  # beginnings of knobs
    *('model.', 'train.optimizer'),
    *('translation.shared_vocab', 'translation.n_encoder_layer', 'translation.copy'),
)


@dataclasses.dataclass(frozen=True)
class Translation(base.LossTask):
    """See `gptjax.tasks.protocols.Task`."""

    config: Config
    tokenizer: Tokenizer  # of the source
    target_tokenizer: Tokenizer
    train: Buckets  # empty where the task comes from a work directory
    val_pairs: tuple[Pair, ...]
    text_sha256: str
    reads: ClassVar[frozenset[str]] = every(*READ, but=UNREAD)

    @classmethod
    def create(cls, config: Config, say: Say) -> 'Translation':
        """The task with its pairs, which are fetched and encoded if need be.

        Raises:
          UserError: there are no such pairs, some are too long, or a knob cannot be used here.
        """
        require_sacrebleu()
        splits = pairs.read_splits(config.data, config.translation, say)
        tokenizers = pairs.learn(splits, config, say)
        train = encode(splits.train, tokenizers, config, split='training')
        task = cls(config, *tokenizers, train, splits.val, splits.sha256)
        task.val  # noqa: B018 - complains of what is too long before anything is trained
        shapes = len(train.shapes)
        if config.train.steps_per_call > 1 and shapes > 1:
            raise UserError(
                f'train.steps_per_call={config.train.steps_per_call} needs batches of one shape, '
                f'and there are {shapes}; use train.steps_per_call=1, or translation.buckets=1'
            )
        return task

    @classmethod
    def load(cls, config: Config, workdir: Path) -> 'Translation':
        """The task as `save` left it in a work directory."""
        tokenizers, val_pairs, sha256 = pairs.load(workdir)
        return cls(config, *tokenizers, NO_PAIRS, val_pairs, sha256)

    def save(self, workdir: Path) -> None:
        """Leaves in a work directory all that is needed there besides the parameters."""
        pairs.save(workdir, self._tokenizers, self.val_pairs, sha256=self.text_sha256)

    def with_text(self, path: Path) -> 'Translation':
        """The same task, to be evaluated on other pairs, in a TSV file."""
        return dataclasses.replace(self, val_pairs=tuple(pairs.read_pairs((path,))))

    @functools.cached_property
    def model(self) -> Seq2Seq:
        """The encoder and decoder, without their parameters."""
        sizes = self.tokenizer.vocab_size, self.target_tokenizer.vocab_size
        return Seq2Seq(self.config.model, self.config.translation, *sizes)

    @functools.cached_property
    def val(self) -> Buckets:
        """The held-out pairs, encoded."""
        return encode(self.val_pairs, self._tokenizers, self.config, split='validation')

    @property
    def _tokenizers(self) -> pairs.Tokenizers:
        return self.tokenizer, self.target_tokenizer

    def init_state(self, key: Array) -> steps.TrainState:
        """Fresh parameters and optimizer state."""
        one = jnp.zeros((1, 1), jnp.int32)
        return steps.init_state(dict(self.model.init(key, one, one[0], one)), self.optimizer, key)

    def loss(self, params: dict, batch: steps.Batch, key: Array | None = None) -> Sums:
        """(sum of nats, number of targets) of a batch; with a key, dropout and smoothing are on."""
        inputs = batch['source'], batch['source_lengths'], batch['inputs']
        logits_BTV = apply(self.model, self.factors(params, key), *inputs, **self.dropout(key))
        smoothing = self.config.translation.label_smoothing if key is not None else 0.0
        return cross_entropy(logits_BTV, batch['targets'], batch['lengths'], smoothing)

    def train_batch(self, step: int) -> Batch:
        """This process's rows of a step's batch."""
        train = self.config.train
        return self.train.batch(train.seed, step, train.batch_size, **base.own_rows())

    def validate(self, params: dict, layout: Layout) -> dict[str, float]:
        """`val_loss` in nats per target token of some batches, or of all with eval_batches=0."""
        nats, tokens = self._measure(params, layout, self.config.train.eval_batches)
        return {'val_loss': nats / tokens}

    def examine(self, params: dict, layout: Layout) -> Report:
        """The loss of all held-out pairs, BLEU and chrF of their translations, and examples.

        Translations are made as `config.sample` says; `copy` has the scores of the sources.
        """
        nats, tokens = self._measure(params, layout, 0)
        sources, references = map(list, zip(*self.val_pairs, strict=True))
        options = dataclasses.replace(self.config.sample, num_samples=1)
        outputs = [texts[0] for texts in self.translator(params, options)(sources)]
        figures = {
            'val_loss': nats / tokens,
            'perplexity': math.exp(min(nats / tokens, 700.0)),
            'tokens': int(tokens),
            **compare(sources, references, outputs),
        }
        return Report(figures, describe(figures, len(self.val_pairs)))

    def _measure(self, params: dict, layout: Layout, count: int) -> tuple[float, float]:
        """(sum of nats, number of target tokens) of some held-out batches; of all with 0."""
        rows, seed = -(-EVAL_PAIRS // layout.rows) * layout.rows, self.config.train.seed
        drawn = (self.val.batch(seed, i, rows, **base.own_rows()) for i in range(count))
        chosen = drawn if count else self.val.in_order(rows, **base.own_rows())
        return self.measure(params, layout, chosen)

    def prompts(self, given: Sequence[str]) -> tuple[str, ...]:
        """All lines, also empty ones, which give empty lines; without any, held-out sources."""
        return tuple(given) or tuple(source for source, _ in self.val_pairs[:EXAMPLES])

    def heading(self, prompt: str, *, number: int, count: int, given: bool) -> str:
        """Nothing, so that a line comes out for each that goes in; or a source of the task."""
        del number, count
        return '' if given else f'{prompt}\n  '

    def passages(self, prompt: str, text: str) -> list[tuple[str, str]]:
        """Source and translation apart: another language may have another direction."""
        return [(prompt, ''), ('', text)]

    def preview(self) -> Report:
        """Sizes, batch shapes, vocabularies and some pairs."""
        examples = self.val_pairs[:EXAMPLES]
        figures = {
            'train_pairs': len(self.train.sources),
            'val_pairs': len(self.val_pairs),
            'source_vocab_size': self.tokenizer.vocab_size,
            'target_vocab_size': self.target_tokenizer.vocab_size,
            'shapes': [list(shape) for shape in self.train.shapes],
            'padding': self.train.padding,
            'pairs': [list(pair) for pair in examples],
        }
        shown = [f'  {source}\n    {target}' for source, target in examples]
        return Report(figures, '\n'.join([self.describe_data(), 'Held out, for example', *shown]))

    def translator(self, params: dict, config: SampleConfig) -> Translator:
        """lines -> the texts of each."""
        data, mesh = self.config.data, self.config.mesh
        return Translator(self.model, params, *self._tokenizers, data, config, mesh)

    def stream(self, params: dict, prompts: Sequence[str], config: SampleConfig) -> Iterator[Piece]:
        """Translates lines; of a beam, the texts of a line are its best ones, best first.

        Raises:
          UserError: a line has unknown characters, or is over the block and not to be split.
        """
        translate = self.translator(params, config)
        translate.check(prompts)
        texts = (
            text
            for i in range(0, len(prompts), LINES)
            for several in translate(prompts[i : i + LINES])
            for text in several
        )
        return (Piece(row, (), text, 'stop') for row, text in enumerate(texts))

    def explain(
        self, params: dict, texts: Sequence[str], config: SampleConfig, title: str
    ) -> Explained:
        """All that --mode=explain shows of a line and its translation, the user's or its own."""
        source, *given = texts
        translate = self.translator(params, dataclasses.replace(config, num_samples=1))
        translate.check([source])
        ((target,),) = [given] if given else translate([source])
        pair = explain.encode(source, target, self._tokenizers, self.config)
        numbers = explain.views(
            self.model, params, pair, tokenizers=self._tokenizers, rules=Rules.from_config(config)
        )
        whose = 'the translation was given' if given else "the translation is the model's own"
        n_source, n_target = len(pair.source_S), len(pair.tokens_T) - 1
        return Explained(
            title=title,
            model=self.describe_model(),
            summary=f'{n_source} source tokens and {n_target} of the translation; {whose}. Its '
            f'loss is {numbers["loss"]:.4f} nats a token.',
            vocab_size=self.target_tokenizer.vocab_size,
            sizes=sizes(params['params'], self.config.model, n_target),
            numbers=numbers,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued."""
        named = {'source tokenizer': self.tokenizer, 'target tokenizer': self.target_tokenizer}
        found = base.fingerprint(self.config, DECISIVE, self.text_sha256, named)
        return found | {'validation pairs': len(self.val_pairs)}

    def describe_model(self) -> str:
        """The model in some words, for people."""
        return f'{base.in_words(self.count_params())}, an encoder and a decoder'

    def describe_data(self) -> str:
        """The data in some words, for people."""
        train = self.train
        return (
            f'{len(train.sources):,} pairs to learn from, {len(self.val_pairs):,} held out, '
            f'a vocabulary of {self.target_tokenizer.vocab_size:,}, {len(train.shapes)} shapes '
            f'of batches with {train.padding:.1%} padding'
        )

    def tokens_per_step(self) -> int:
        """Targets in a batch of pairs of average length."""
        return round(self.config.train.batch_size * self.train.lengths[:, 1].mean())

    def flops_per_token(self) -> float:
        """6 N (Kaplan et al., 2020) for each target token, and for what it has of the source's.

        Attention's own products, few at the lengths of sentences, are left out.
        """
        params = base.abstract_params(self)['params']
        source, target = self.train.lengths.sum(0)
        looked_up = Decoder(self.config.model, self.target_tokenizer.vocab_size).looked_up
        multiplied = [x for name, x in params['decoder'].items() if name not in looked_up]
        encoder, decoder = base.count(params['encoder']), base.count(multiplied)
        return 6.0 * (encoder * source / target + decoder)
