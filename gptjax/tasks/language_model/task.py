"""Language modelling: the decoder learns to tell the next token, and continues prompts."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from gptjax import run_files
from gptjax.config import Config, ModelConfig, SampleConfig
from gptjax.console import Say
from gptjax.devices import copies_pay_in_decoding
from gptjax.errors import UserError
from gptjax.explain import inspection, language_model
from gptjax.explain.page import Explained
from gptjax.generation.engine import Engine, submit_all
from gptjax.generation.requests import Piece
from gptjax.models import lora
from gptjax.models.attention import uses_cudnn, why_not_cudnn
from gptjax.models.bigram import Bigram
from gptjax.models.block import apply
from gptjax.models.decoder import Decoder
from gptjax.models.linear import compute_dtype, reduced
from gptjax.parallel.mesh import Layout, rounded_up
from gptjax.report import language_model as report
from gptjax.tasks import base
from gptjax.tasks.language_model import evaluation, init_from, preview
from gptjax.tasks.protocols import Report
from gptjax.tasks.reads import every
from gptjax.text import batches, corpora, run_data, shards, token_files, tokenizers
from gptjax.text.prompts import encode_prompt
from gptjax.training import steps
from gptjax.training.losses import Sums, chunked_cross_entropy, cross_entropy

DECISIVE = ('model.', 'train.optimizer', 'train.lora_')  # beginnings of knobs
MAX_ROWS = 64  # texts generated at a time; more wait their turn
MODELS: dict[str, type[Decoder] | type[Bigram]] = {'decoder': Decoder, 'bigram': Bigram}


@dataclasses.dataclass(frozen=True)
class LanguageModel(base.LossTask):
    """See `gptjax.tasks.protocols.Task`."""

    config: Config
    corpus: token_files.Corpus
    reads: ClassVar[frozenset[str]] = every(
        *('model.', 'data.', 'train.', 'sample.', 'mesh.', 'bench.', 'plan.'),
        but=('sample.beam', 'sample.length_penalty', 'sample.long_lines'),
    )

    @classmethod
    def create(cls, config: Config, say: Say) -> 'LanguageModel':
        """The task with its text, which is fetched and encoded if need be.

        Raises:
          UserError: there is no such text, or one of its splits is too short.
        """
        tokenizer = None
        if config.train.init_from:
            config, tokenizer = init_from.adopt(config)
        if config.data.shards:
            corpus, where = shards.prepare(config.data, tokenizer, say), config.data.shards
        else:
            source = corpora.source(config.data, say)
            corpus = token_files.prepare(source, config.data, tokenizer=tokenizer, say=say)
            where = str(source.train[0])
        needed = config.model.block_size + 1
        for name, split in zip(('training', 'validation'), corpus.splits, strict=True):
            if len(split) < needed:
                raise UserError(
                    f'the {name} split of {where} has {len(split)} tokens, but '
                    f'model.block_size={needed - 1} needs at least {needed}; use a longer text, '
                    'a smaller model.block_size or another data.val_fraction'
                )
        return cls(config, corpus)

    @classmethod
    def load(cls, config: Config, workdir: Path) -> 'LanguageModel':
        """The task as `save` left it in a work directory."""
        return cls(config, run_data.load(workdir))

    def save(self, workdir: Path) -> None:
        """Leaves in a work directory all that sampling and evaluation need besides parameters."""
        run_data.save(self.corpus, workdir)

    def with_text(self, path: Path) -> 'LanguageModel':
        """The same task, to be evaluated on all of another text."""
        split = token_files.encode_all(path, self.tokenizer, self.config.data)
        return dataclasses.replace(self, corpus=dataclasses.replace(self.corpus, val=split))

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """Of the text."""
        return self.corpus.tokenizer

    @functools.cached_property
    def model(self) -> Decoder | Bigram:
        """The model, without its parameters."""
        return MODELS[self.config.model.kind](self.config.model, self.tokenizer.vocab_size)

    def pretrained(self, layout: Layout) -> dict:
        """The parameters to start from, if not from fresh ones."""
        if not self.config.train.init_from:
            return {}
        workdir = Path(self.config.train.init_from)
        source = LanguageModel.load(run_files.load_config(workdir), workdir)
        _, params = run_files.restore(source, workdir, 'best', layout)
        return init_from.crop_positions(source.variables(params), self.config.model)

    def variables(self, params: dict) -> dict:
        """What the model is applied to: a LoRA change is added to what it changes."""
        return lora.merge(params, self.config.train.lora_alpha)

    def weights(self, params: dict, config: SampleConfig) -> dict:
        """The variables to sample and evaluate with, in the type that `sample.weights` names."""
        dtype = config.weights.replace('auto', compute_dtype(self.config.model))
        return reduced(self.variables(params), dtype)

    def init_state(self, key: Array) -> steps.TrainState:
        """Fresh parameters and optimizer state."""
        params = dict(self.model.init(key, jnp.zeros((1, 1), jnp.int32)))
        if rank := self.config.train.lora_rank:
            key_lora = jax.random.fold_in(key, 1)
            targets = self.config.train.lora_targets
            params |= {lora.COLLECTION: lora.init(params['params'], rank, targets, key_lora)}
        return steps.init_state(params, self.optimizer, key)

    def loss(self, params: dict, batch: steps.Batch, key: Array | None = None) -> Sums:
        """(sum of nats, number of targets) of a batch; a key means training."""
        if lora.COLLECTION in params:  # Only the change learns: no gradient of the rest is made.
            params = params | {'params': jax.lax.stop_gradient(params['params'])}
        params = self.factors(self.variables(params), key)
        model, targets = self.model, (batch['targets'], batch['lengths'])
        train, chunk = self.config.train, self.config.train.logits_chunk
        if key is None:
            chunk = evaluation.logits_chunk(batch['targets'].shape, model.vocab_size)
        in_loop = key is not None and (train.scan_layers or train.remat != 'none')
        how = self.dropout(key) | {'remat': train.remat if in_loop else ''}
        x_BTD, _ = apply(model, params, batch['inputs'], **how, method='hidden')

        def logits_fn(head: dict, x_BTD: Array) -> Array:
            return apply(model, {'params': head}, x_BTD, method='logits')

        head = {model.head_name: params['params'][model.head_name]}
        if chunk:
            return chunked_cross_entropy(logits_fn, head, x_BTD, *targets, chunk)
        return cross_entropy(logits_fn(head, x_BTD), *targets)

    def train_batch(self, step: int) -> batches.Batch:
        """This process's rows of a step's batch."""
        train, (split, _) = self.config.train, self.corpus.splits
        shape = {'batch_size': train.batch_size, 'block_size': self.config.model.block_size}
        shape |= base.own_rows()
        order = self.config.data.order
        if order == 'random':
            return batches.random_windows(split.tokens, seed=train.seed, step=step, **shape)
        seed = train.seed if order == 'shuffled' else None
        return batches.consecutive_windows(split.tokens, seed=seed, step=step, **shape)

    def validate(self, params: dict, layout: Layout) -> dict[str, float]:
        """`val_loss` in nats per token of some windows, or of all with train.eval_batches=0."""
        whole, train = not self.config.train.eval_batches, self.corpus.train
        measured = {'val_loss': self._val.tokens}
        if self.config.train.eval_train and train is not None:
            measured['train_eval_loss'] = train.tokens[: len(self._val) if whole else None]
        figures = {}
        for name, tokens_T in measured.items():
            windows = evaluation.windows(tokens_T, self.config, layout.rows, whole)
            nats, count = self.measure(params, layout, windows)
            figures[name] = nats / count
        return figures

    def examine(self, params: dict, layout: Layout) -> Report:
        """The loss of the whole validation split in several units."""
        weights = self.weights(params, self.config.sample)
        windows = evaluation.windows(self._val.tokens, self.config, layout.rows, True)
        nats, count = self.measure(weights, layout, windows)
        figures = evaluation.figures(nats, count, self._val, self.tokenizer)
        return Report(figures, evaluation.describe(figures))

    @property
    def _val(self) -> token_files.Split:
        if self.corpus.val is None:
            raise UserError('an imported model has no held-out text; give one with data.path=FILE')
        return self.corpus.val

    def stream(self, params: dict, prompts: Sequence[str], config: SampleConfig) -> Iterator[Piece]:
        """Continues prompts until a stop string, an end token or max_new_tokens.

        Raises:
          UnknownTextError: the vocabulary lacks a part of a prompt.
        """
        ids = [encode_prompt(prompt, self.tokenizer, self.config.data) for prompt in prompts]
        rows = min(len(ids) * config.num_samples, MAX_ROWS)
        engine = self.engine(params, config, rows=rows)
        submit_all(engine, ids, config)
        return engine.run()

    def engine(self, params: dict, config: SampleConfig, *, rows: int) -> Engine:
        """An engine for this model, with `rows` rows split over the devices where that pays."""
        rows = rounded_up(rows, self.config.mesh)
        variables, layout = self.placed(params, config, rows=rows)
        calls = -(-config.max_new_tokens // config.chunk)
        shape = {'rows': rows, 'chunk': -(-config.max_new_tokens // calls)}  # No steps left over.
        return Engine(self.model, variables, **shape, tokenizer=self.tokenizer, layout=layout)

    def placed(self, params: dict, config: SampleConfig, *, rows: int) -> tuple[dict, Layout]:
        """The variables on the devices that decode `rows` rows, and how these are split."""
        copies = copies_pay_in_decoding(base.count(params), rows)
        layout = Layout(self.config.mesh, rows, copies=copies)
        return layout.place(self.weights(params, config)), layout

    def forward(self, params: dict, text: str, *, attention: bool = False) -> inspection.Forward:
        """The logits after each token of a text, and with `attention` all attention weights."""
        tokens = encode_prompt(text, self.tokenizer, self.config.data)
        variables = self.variables(params)
        return inspection.forward(self.model, variables, tokens, attention=attention)

    def score(self, params: dict, text: str) -> inspection.Score:
        """The log-probability of each token of a text."""
        tokens = encode_prompt(text, self.tokenizer, self.config.data)
        return inspection.score(self.model, self.variables(params), tokens)

    def explain(
        self, params: dict, texts: Sequence[str], config: SampleConfig, title: str
    ) -> Explained:
        """All that --mode=explain shows of a text: a prompt, and what the user or it continues."""
        return language_model.explain(self, params, texts, sampling=config, title=title)

    def across(self, explained: Explained, checkpoints: Iterable[tuple[int, dict]]) -> Explained:
        """The explanation with what other checkpoints, (step, parameters), make of its text."""
        return language_model.with_checkpoints(self, explained, checkpoints)

    def by_token(self, params: dict, texts: Sequence[str]) -> report.ByToken | None:
        """Where the loss on the validation split comes from, and what generated texts copy."""
        if self.corpus.val is None:
            return None
        weights = self.weights(params, self.config.sample)
        return report.by_token(self, weights, self.corpus.val, texts)

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued."""
        named = {'tokenizer': self.tokenizer}
        found = base.fingerprint(self.config, DECISIVE, self.corpus.sha256, named)
        return found | {'validation tokens': len(self.corpus.val or ())}

    def describe_model(self) -> str:
        """The model in some words, for people: also which implementations were chosen."""
        words = base.in_words(self.count_params())
        if self.config.train.lora_rank:
            words += f', of which a LoRA change of rank {self.config.train.lora_rank} is trained'
        if self.config.model.kind == 'bigram':
            return f'a bigram table of {words}'
        return words + _attention_in_words(self.config.model)

    def preview(self) -> Report:
        """Sizes, split, vocabulary, frequent tokens and an excerpt."""
        return preview.of_corpus(self.corpus)

    def describe_data(self) -> str:
        """The data in some words, for people."""
        vocabulary = f'a vocabulary of {self.tokenizer.vocab_size:,}'
        train, val = map(len, self.corpus.splits)
        return f'{train:,} tokens to learn from, {val:,} held out, {vocabulary}'

    def tokens_per_step(self) -> int:
        """Targets in a full batch."""
        return self.config.train.batch_size * self.config.model.block_size

    def flops_per_token(self) -> float:
        """6 N + 12 L T D (Chowdhery et al., 2022, appendix B), forward and backward.

        Tables that are only looked up in multiply nothing, so N is without them.
        """
        model = self.config.model
        params = base.abstract_params(self)['params']
        multiplied = [x for name, x in params.items() if name not in self.model.looked_up]
        return 6 * base.count(multiplied) + 12 * model.n_layer * model.block_size * model.n_embd


def _attention_in_words(config: ModelConfig) -> str:
    """Who computes attention, where there is a choice; empty where there is none."""
    if uses_cudnn(config, train=True):
        return ", cuDNN's flash attention"
    if jax.default_backend() == 'gpu':
        why = 'model.attention=xla' if config.attention == 'xla' else why_not_cudnn(config, True)
        return f", XLA's attention ({why})"
    return ''
