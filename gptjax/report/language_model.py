"""What a report tells of a language model's loss, token by token."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gptjax.explain import language_model
from gptjax.explain.sources import find_sources
from gptjax.report import tokens
from gptjax.report.baselines import baselines
from gptjax.text.display import visible
from gptjax.text.token_files import Split, cached_train
from gptjax.text.tokenizers import Tokenizer


class LanguageModel(language_model.LanguageModel, Protocol):
    """What a report needs of the task."""

    def flops_per_token(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class ByToken:
    """Figures of the first tokens of the validation split."""

    count: int  # tokens
    is_part: bool  # of a longer split
    loss: float  # nats per token
    error: float  # standard error of the loss, over windows
    baselines: dict[str, float]  # losses of simpler predictors
    by_position: list[tokens.Group]
    by_kind: list[tokens.Group]
    calibration: tokens.Calibration
    copied: str  # a sentence about generated texts; see `longest_copy`


def by_token(task: LanguageModel, variables: dict, val: Split, texts: Sequence[str]) -> ByToken:
    """Predicts the validation split anew, or as much of it as takes seconds.

    `texts` are generated ones, to be looked for in the training text.
    """
    model, config, tokenizer = task.model, task.config, task.corpus.tokenizer
    scored = tokens.score(
        lambda variables, tokens_BT: model.apply(variables, tokens_BT)[0],
        *(variables, val.tokens),
        block_size=config.model.block_size,
        vocab_size=tokenizer.vocab_size,
        flops_per_token=task.flops_per_token() / 3,  # The forward pass alone.
    )
    train = cached_train(task.corpus.sha256, config.data, tokenizer)
    count = len(scored.tokens_M)
    train_S = None if train is None else train.tokens
    loss = float(scored.nats_M.mean())
    return ByToken(
        count,
        count + 1 < len(val),
        loss,
        tokens.standard_error(scored),
        {'model': loss} | baselines(scored.tokens_M, scored.before_M, train_S, tokenizer),
        tokens.by_position(scored),
        tokens.by_kind(scored, tokenizer),
        tokens.calibration(scored),
        longest_copy(train_S, tokenizer, texts),
    )


def longest_copy(train_S: np.ndarray | None, tokenizer: Tokenizer, texts: Sequence[str]) -> str:
    """A sentence about the longest passage that generated texts share with the training text.

    Empty if the training text is not at hand.
    """
    if train_S is None:
        return ''
    length, passage = 0, np.zeros(0, np.int32)
    for text in texts:
        ids_T = np.append(tokenizer.encode(tokenizer.drop_unknown(text)), 0)
        for t, source in enumerate(find_sources(train_S, ids_T), 1):
            if source.length > length:
                length, passage = source.length, ids_T[t - source.length : t]
    return (
        f'The longest passage of these samples that is in the training text too has {length} of '
        f'the {len(train_S):,} tokens there: {visible(tokenizer.to_bytes(passage.tolist()))}'
    )
