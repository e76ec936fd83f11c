"""Explains a language model on one text: a prompt and its continuation."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import jax
import numpy as np

from gptjax.config import Config, SampleConfig
from gptjax.errors import UserError
from gptjax.explain.across import across
from gptjax.explain.live import live_model
from gptjax.explain.page import Explained
from gptjax.explain.sizes import sizes
from gptjax.explain.views import all_views
from gptjax.generation.requests import Piece
from gptjax.generation.rules import Rules
from gptjax.models.bigram import Bigram
from gptjax.models.decoder import Decoder
from gptjax.text.display import name_tokens
from gptjax.text.prompts import encode_prompt
from gptjax.text.token_files import Corpus, cached_train
from gptjax.text.tokenizers import Tokenizer

MOST_TOKENS = 128  # of a text that the model continues


class LanguageModel(Protocol):
    """What an explanation needs of the task."""

    @property
    def config(self) -> Config: ...

    @property
    def corpus(self) -> Corpus: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def model(self) -> Decoder | Bigram: ...

    def variables(self, params: dict) -> dict: ...

    def stream(
        self, params: dict, prompts: Sequence[str], config: SampleConfig
    ) -> Iterator[Piece]: ...

    def describe_model(self) -> str: ...


def explain(
    task: LanguageModel, params: dict, texts: Sequence[str], *, sampling: SampleConfig, title: str
) -> Explained:
    """All views of a text in one context of the model.

    Args:
      task: the trained task.
      params: its parameters.
      texts: the prompt, which the model continues up to `sampling.max_new_tokens`, MOST_TOKENS in
        all or the end of the block; or the prompt and its continuation.
      sampling: the rules.
      title: of the page.

    Raises:
      UserError: the text is longer than the block, or the vocabulary lacks a part of it.
    """
    block_size, data = task.config.model.block_size, task.config.data
    prompt_T, *given = [encode_prompt(text, task.tokenizer, data) for text in texts]
    if given:
        wrote_T = given[0]
    else:
        room = min(block_size, max(MOST_TOKENS, len(prompt_T) + 1)) - len(prompt_T)
        _check_length(len(prompt_T) + 1, block_size)
        new = min(room, sampling.max_new_tokens)
        one = dataclasses.replace(sampling, num_samples=1, max_new_tokens=new)
        pieces = task.stream(params, texts, one)
        wrote_T = np.array([token for piece in pieces for token in piece.tokens], np.int32)
    tokens_T = np.concatenate([prompt_T, wrote_T])
    _check_length(len(tokens_T), block_size)
    train = cached_train(task.corpus.sha256, data, task.tokenizer)
    variables = jax.tree.map(lambda x: x.astype(np.float32), task.variables(params))
    numbers = all_views(
        task.model,
        variables,
        task.tokenizer,
        tokens_T=tokens_T,
        n_prompt=len(prompt_T),
        rules=Rules.from_config(sampling),
        train_S=None if train is None else train.tokens,
    )
    live, not_live = live_model(task.model, variables, task.tokenizer, data)
    whose = 'the continuation was given' if given else 'the model wrote the rest'
    return Explained(
        title=title,
        model=task.describe_model(),
        summary=f'{len(tokens_T)} tokens: {len(prompt_T)} of the prompt, {whose}. Their loss is '
        f'{numbers["loss"]:.4f} nats a token.',
        vocab_size=task.tokenizer.vocab_size,
        sizes=sizes(params['params'], task.config.model, len(tokens_T)),
        numbers=numbers,
        live=live,
        not_live=not_live,
    )


def with_checkpoints(
    task: LanguageModel, explained: Explained, checkpoints: Iterable[tuple[int, dict]]
) -> Explained:
    """The explanation with the predictions of other checkpoints, given as (step, parameters)."""
    variables = ((step, task.variables(params)) for step, params in checkpoints)
    moments = across(task.model, variables, np.asarray(explained.numbers['tokens']))
    named = name_tokens(task.tokenizer, {i for moment in moments for i in moment.ids_TK.flat})
    numbers = explained.numbers | {'across': moments}
    numbers['names'] = explained.numbers['names'] | named
    return dataclasses.replace(explained, numbers=numbers)


def _check_length(n_tokens: int, block_size: int) -> None:
    if not 2 <= n_tokens <= block_size:
        raise UserError(
            f'the text to explain has {n_tokens} tokens, and it takes 2 to '
            f'model.block_size={block_size}; give a {"longer" if n_tokens < 2 else "shorter"} one'
        )
