"""Language modelling: the decoder learns to tell the next token, and continues prompts."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import Config, MeshConfig, SampleConfig
from gptjax.errors import UnknownTextError, UserError
from gptjax.files import write_atomically
from gptjax.generation import sample
from gptjax.generation.text_stream import TextStream
from gptjax.models.attention import uses_cudnn, why_not_cudnn
from gptjax.models.decoder import Decoder
from gptjax.schema import flatten
from gptjax.text import batches, corpora, token_files, tokenizers
from gptjax.text.clean import clean
from gptjax.text.reading import file_sha256
from gptjax.training import steps
from gptjax.training.losses import chunked_cross_entropy, cross_entropy
from gptjax.training.metrics import plot_losses
from gptjax.training.optim import make_optimizer, make_schedule
from gptjax.training.sharding import Layout

EVAL_TOKENS = 8192  # computed at a time in an evaluation


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """See `gptjax.training.task.Task`; `stream_text` is how it generates."""

    config: Config
    tokenizer: tokenizers.Tokenizer
    train: token_files.Split | None  # None where the task comes from a work directory
    val: token_files.Split
    text_sha256: str

    @classmethod
    def create(cls, config: Config, say: Callable[[str], None]) -> 'LanguageModel':
        """The task with its text, which is fetched and encoded if need be.

        Raises:
          UserError: there is no such text, or one of its splits is too short.
        """
        source = corpora.source(config.data, say)
        corpus = token_files.prepare(source, config.data, say=say)
        needed = config.model.block_size + 1
        for name, split in (('training', corpus.train), ('validation', corpus.val)):
            if len(split) < needed:
                raise UserError(
                    f'the {name} split of {source.train[0]} has {len(split)} tokens, but '
                    f'model.block_size={needed - 1} needs at least {needed}; use a longer text, '
                    'a smaller --config.model.block_size or another --config.data.val_fraction'
                )
        return cls(config, corpus.tokenizer, corpus.train, corpus.val, corpus.sha256)

    @classmethod
    def load(cls, config: Config, workdir: Path) -> 'LanguageModel':
        """The task as `save` left it in a work directory."""
        about = json.loads((workdir / 'data.json').read_text())
        tokenizer = tokenizers.from_json((workdir / 'tokenizer.json').read_text())
        path = workdir / 'val.bin'
        if file_sha256(path) != about['val_sha256']:
            raise ValueError(f'{path} is not what was saved')
        val = token_files.open_split(path, about['dtype'], about['val_chars'])
        return cls(config, tokenizer, None, val, about['sha256'])

    def save(self, workdir: Path) -> None:
        """Leaves in a work directory all that sampling and evaluation need besides parameters."""
        tokenizer = self.tokenizer.to_json().encode()
        write_atomically(workdir / 'tokenizer.json', tokenizer)
        unfinished = workdir / '.val.bin'
        unfinished.unlink(missing_ok=True)
        try:
            os.link(self.val.path, unfinished)
        except OSError:  # Another file system.
            shutil.copyfile(self.val.path, unfinished)
        unfinished.replace(workdir / 'val.bin')
        dtype, val_chars = self.val.tokens.dtype.name, self.val.chars
        about = {'sha256': self.text_sha256, 'dtype': dtype, 'val_chars': val_chars}
        about['val_sha256'] = file_sha256(workdir / 'val.bin')
        write_atomically(workdir / 'data.json', json.dumps(about, indent=1).encode())

    @functools.cached_property
    def model(self) -> Decoder:
        """The decoder, without its parameters."""
        return Decoder(self.config.model, self.tokenizer.vocab_size)

    def init_state(self, key: jax.Array) -> steps.TrainState:
        """Fresh parameters and optimizer state."""
        params = self.model.init(key, jnp.zeros((1, 1), jnp.int32))
        return steps.init_state(params, self._optimizer, key)

    @functools.cached_property
    def train_step(self):
        """(state, batch) -> (state, metrics), pure."""
        config = self.config.train
        schedule = make_schedule(config)
        return steps.make_train_step(self.loss, self._optimizer, schedule, config.accumulate)

    def loss(self, params: dict, batch: dict, key: jax.Array | None = None):
        """(sum of nats, number of targets) of a batch; with a key, dropout is on."""
        train = key is not None and self.config.model.dropout > 0
        rngs = {'dropout': key} if train else None
        model, targets = self.model, (batch['targets'], batch['lengths'])
        x_BTD, _ = model.apply(params, batch['inputs'], train=train, rngs=rngs, method='hidden')

        def logits_fn(head, x_BTD):
            return model.apply({'params': head}, x_BTD, method='logits')

        head = {model.head_name: params['params'][model.head_name]}
        chunk = self.config.train.logits_chunk
        if chunk:
            return chunked_cross_entropy(logits_fn, head, x_BTD, *targets, chunk)
        return cross_entropy(logits_fn(head, x_BTD), *targets)

    def train_batch(self, step: int) -> batches.Batch:
        """This process's rows of a step's batch."""
        train, data = self.config.train, self.config.data
        place = {'process': jax.process_index(), 'processes': jax.process_count()}
        shape = {'batch_size': train.batch_size, 'block_size': self.config.model.block_size}
        if data.order == 'random':
            return batches.random_windows(
                self.train.tokens, seed=train.seed, step=step, **shape, **place
            )
        return batches.consecutive_windows(self.train.tokens, step=step, **shape, **place)

    def evaluate(self, params: dict, layout: Layout, *, whole: bool = False) -> dict[str, float]:
        """`val_loss` in nats per token; over the whole split also other units of it."""
        block_size = self.config.model.block_size
        rows = -(-EVAL_TOKENS // block_size // layout.rows) * layout.rows
        if whole:
            chosen = batches.whole_split(self.val.tokens, batch_size=rows, block_size=block_size)
        else:
            chosen = (
                batches.random_windows(
                    self.val.tokens,
                    seed=(self.config.train.seed, 1),
                    step=i,
                    batch_size=rows,
                    block_size=block_size,
                )
                for i in range(self.config.train.eval_batches)
            )
        sums = [layout.wait(self._eval_step(params, layout.put(batch))) for batch in chosen]
        nats, tokens = np.sum(jax.device_get(sums), axis=0, dtype=np.float64)
        val_loss = float(nats / tokens)
        if not whole:
            return {'val_loss': val_loss}
        chars = self.val.chars - len(self.tokenizer.decode(self.val.tokens[:1]))
        return {
            'val_loss': val_loss,
            'bits_per_char': float(nats / math.log(2) / chars),
            'perplexity': math.exp(min(val_loss, 700.0)),
            'tokens': int(tokens),
        }

    def describe_figures(self, figures: dict[str, float]) -> str:
        """The figures of `evaluate` as a line for people."""
        return (
            f'loss {figures["val_loss"]:.4f} nats per token, {figures["bits_per_char"]:.4f} bits '
            f'per character, perplexity {figures["perplexity"]:.3f}, over '
            f'{figures["tokens"]:,} tokens'
        )

    def plot(self, rows: list[dict], path: Path, title: str) -> None:
        """Draws the curves of a run."""
        plot_losses(rows, path, title)

    def stream_text(
        self, params: dict, prompts: Sequence[str], config: SampleConfig
    ) -> Iterator[list[str]]:
        """Continues prompts, `num_samples` times each, until a stop string or max_new_tokens.

        Prompts are checked at once, before the iterator is used.

        Args:
          params: of the model.
          prompts: texts; an empty one stands for the end of the document before or, without
            documents, for a line break (in a text that has none, for the first token).
          config: how to draw.

        Returns:
          The new text of each row, piece by piece, rows of a prompt next to each other.

        Raises:
          UnknownTextError: the vocabulary lacks a part of a prompt.
        """
        ids = [self._encode_prompt(prompt) for prompt in prompts]
        texts = [
            TextStream(self.tokenizer, config.stop, prompt_ids[-1])
            for prompt_ids in ids
            for _ in range(config.num_samples)
        ]
        stopped_B = np.zeros(len(texts), bool)
        params, put = self.place(params, len(texts))

        def pieces():
            hidden = self.tokenizer.hidden
            for new in sample.stream(self.model, params, ids, config, stopped_B, put, hidden):
                yield [text.push(new_ids) for text, new_ids in zip(texts, new, strict=True)]
                stopped_B[:] = [text.ended for text in texts]
            yield [text.finish() for text in texts]

        return pieces()

    def place(self, params: dict, rows: int) -> tuple[dict, Callable[[Any], Any]]:
        """The parameters and the `put` with which `sample.stream` splits rows over the devices."""
        layout = Layout(MeshConfig(), rows)
        # A jitted function takes host arrays of a single row to the device sooner than `put` can.
        return layout.copy(params), layout.put if layout.rows > 1 else lambda arrays: arrays

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued."""
        vocabulary = hashlib.sha256(self.tokenizer.to_json().encode()).hexdigest()[:12]
        named = {f'model.{name}': value for name, value in flatten(self.config.model)}
        return named | {
            'train.optimizer': self.config.train.optimizer,
            'tokenizer': f'{self.tokenizer.kind} ({self.tokenizer.vocab_size}, {vocabulary})',
            'text': '+'.join(sha256[:12] for sha256 in self.text_sha256.split('+')),
            'validation tokens': len(self.val),
        }

    def describe_model(self) -> str:
        """The model in some words, for people: also which implementations were chosen."""
        n_params, model = self.count_params(), self.config.model
        size = f'{n_params / 1e6:.1f}M' if n_params >= 1e5 else f'{n_params:,}'
        if uses_cudnn(model, train=True):
            return f"{size} parameters, cuDNN's flash attention"
        if jax.default_backend() == 'gpu':
            why = 'model.attention=xla' if model.attention == 'xla' else why_not_cudnn(model, True)
            return f"{size} parameters, XLA's attention ({why})"
        return f'{size} parameters'

    def describe_data(self) -> str:
        """The data in some words, for people."""
        vocabulary = f'a vocabulary of {self.tokenizer.vocab_size:,}'
        return f'{len(self.train):,} tokens to learn from, {len(self.val):,} held out, {vocabulary}'

    def count_params(self) -> int:
        """Numbers in the model."""
        state = jax.eval_shape(self.init_state, steps.run_key(0))
        return sum(x.size for x in jax.tree.leaves(state.params))

    def tokens_per_step(self) -> int:
        """Targets in a full batch."""
        return self.config.train.batch_size * self.config.model.block_size

    def flops_per_token(self) -> float:
        """6 N + 12 L T D (Chowdhery et al., 2022, appendix B), forward and backward.

        Tables that are only looked up in multiply nothing, so N is without them.
        """
        model = self.config.model
        params = jax.eval_shape(self.init_state, steps.run_key(0)).params['params']
        tables = {'embed', 'embed_pos'} - {self.model.head_name}
        looked_up = sum(params[name]['embedding'].size for name in tables & params.keys())
        return (
            6 * (self.count_params() - looked_up)
            + 12 * model.n_layer * model.block_size * model.n_embd
        )

    def _encode_prompt(self, prompt: str) -> np.ndarray:
        text = clean(prompt, self.config.data)
        self.tokenizer.check(text)
        ids = self.tokenizer.encode(text)
        if ids.size:
            return ids
        if self.tokenizer.end is not None:
            return np.array([self.tokenizer.end], np.int32)
        try:
            return self.tokenizer.encode('\n')
        except UnknownTextError:
            return np.zeros(1, np.int32)

    @functools.cached_property
    def _optimizer(self):
        return make_optimizer(self.config.train)

    @functools.cached_property
    def _eval_step(self):
        return jax.jit(self.loss)
