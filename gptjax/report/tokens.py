"""Where a language model's loss comes from: by position, by kind of token, and its calibration."""

import dataclasses
import itertools
import unicodedata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptjax.text import batches
from gptjax.text.tokenizers import Tokenizer

MOST_TOKENS = 200_000
MOST_FLOPS = 2e12  # seconds on a CPU
MOST_AT_A_TIME = 4096  # tokens
MOST_LOGITS = 2**24  # at a time
BINS = 10  # of probabilities


@dataclasses.dataclass(frozen=True)
class Scored:
    """Each token that a text's windows predict, in order; M is all of them."""

    tokens_M: np.ndarray
    before_M: np.ndarray  # the token before each
    pos_M: np.ndarray  # of that one, in its window
    nats_M: np.ndarray  # loss
    top_M: np.ndarray  # the highest probability
    is_top_M: np.ndarray  # whether the token had it
    window_M: np.ndarray  # number of the window


@dataclasses.dataclass(frozen=True)
class Group:
    """Some of the tokens."""

    name: str
    count: int
    nats: float  # mean loss
    error: float  # standard error of it
    share: float  # of the whole loss


def score(
    logits_fn: Callable[[Any, jax.Array], jax.Array],
    variables: dict,
    tokens: np.ndarray,
    *,
    block_size: int,
    vocab_size: int,
    flops_per_token: float,
) -> Scored:
    """Predicts the first tokens of a text in consecutive windows, as the validation loss does.

    Args:
      logits_fn: (variables, tokens_BT) -> logits_BTV.
      variables: of the model.
      tokens: of the text, at least 2.
      block_size, vocab_size: of the model.
      flops_per_token: of a forward pass; at most about MOST_FLOPS are done.
    """
    windows = min(MOST_TOKENS, int(MOST_FLOPS / flops_per_token)) // block_size
    tokens = tokens[: max(1, windows) * block_size + 1]

    @jax.jit
    def run(variables: dict, inputs_BT: jax.Array, targets_BT: jax.Array) -> tuple:
        logits_BTV = logits_fn(variables, inputs_BT).astype(jnp.float32)
        nats_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)
        top_BT = jnp.exp(jnp.max(jax.nn.log_softmax(logits_BTV), axis=-1))
        return nats_BT, top_BT, jnp.argmax(logits_BTV, axis=-1) == targets_BT

    at_a_time = min(MOST_AT_A_TIME, MOST_LOGITS // vocab_size, len(tokens) + block_size)
    rows = max(1, at_a_time // block_size)
    found: list[list[np.ndarray]] = []
    for batch in batches.whole_split(tokens, batch_size=rows, block_size=block_size):
        results = jax.device_get(run(variables, batch['inputs'], batch['targets']))
        for i, n in enumerate(batch['lengths']):
            found.append([np.arange(n), *(x[i, :n] for x in results), np.full(n, len(found))])
    pos_M, nats_M, top_M, is_top_M, window_M = (
        np.concatenate(parts) for parts in zip(*found, strict=True)
    )
    return Scored(
        tokens[1:], tokens[:-1], pos_M, nats_M.astype(np.float64), top_M, is_top_M, window_M
    )


def by_position(scored: Scored) -> list[Group]:
    """The loss by how much context a prediction had, in spans that double."""
    last = int(scored.pos_M.max()) + 1
    edges = [0, *(2**i for i in range(last.bit_length() + 1) if 2**i < last), last]
    spans = [(a, b) for a, b in itertools.pairwise(edges) if a < b]
    names = [f'{a + 1}' if b == a + 1 else f'{a + 1} to {b}' for a, b in spans]
    labels_M = np.searchsorted(edges[1:], scored.pos_M, side='right')
    return _groups(scored, labels_M, names)


def by_kind(scored: Scored, tokenizer: Tokenizer) -> list[Group]:
    """The loss by what a token is, and for letters by what stands before it."""
    kinds = ['start of a word', 'inside a word', 'space', 'line break', 'digit', 'other sign']
    ids = np.unique(np.append(scored.tokens_M, scored.before_M[0]))
    first, last = np.zeros((2, tokenizer.vocab_size), int)
    for token in ids.tolist():
        text = tokenizer.decode([token])
        first[token] = _kind(text[:1] if text.isspace() else text.lstrip(' ')[:1])
        # What begins with a space begins a word.
        first[token] = 0 if first[token] == 1 and text[:1] == ' ' else first[token]
        last[token] = _kind(text[-1:])
    labels_M = first[scored.tokens_M]
    after_letter_M = last[scored.before_M] == 1
    if tokenizer.kind == 'word':
        after_letter_M[:] = False
    labels_M[(labels_M == 1) & ~after_letter_M] = 0
    return _groups(scored, labels_M, kinds)


def _kind(character: str) -> int:
    """The index of a character's kind; 1 for every letter."""
    if character in ('\n', '\r', '\u2028'):
        return 3
    if character.isspace():
        return 2
    category = unicodedata.category(character) if character else 'So'
    # Within a Persian word there are joiners.
    return {'L': 1, 'M': 1, 'N': 4}.get(category[0], 1 if category == 'Cf' else 5)


def _groups(scored: Scored, labels_M: np.ndarray, names: list[str]) -> list[Group]:
    total = float(np.sum(scored.nats_M))
    groups = []
    for i, name in enumerate(names):
        nats = scored.nats_M[labels_M == i]
        if len(nats):
            error = float(np.std(nats) / len(nats) ** 0.5)
            groups.append(
                Group(name, len(nats), float(nats.mean()), error, float(nats.sum()) / (total or 1))
            )
    return groups


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Whether predictions are right as often as their probability says (Guo et al., 2017)."""

    error: float  # expected calibration error, 0 to 1
    bins: list[tuple[float, float, int]]  # mean highest probability, share right, count


def calibration(scored: Scored) -> Calibration:
    """The model's likeliest tokens, in bins of equal width by their probability."""
    labels_M = np.minimum((scored.top_M * BINS).astype(int), BINS - 1)
    found = []
    for i in range(BINS):
        inside = labels_M == i
        if count := int(inside.sum()):
            means = float(scored.top_M[inside].mean()), float(scored.is_top_M[inside].mean())
            found.append((*means, count))
    gaps = sum(abs(said - right) * count for said, right, count in found)
    return Calibration(gaps / len(scored.top_M), found)


def standard_error(scored: Scored) -> float:
    """Of the mean loss in nats, over windows: tokens of a window are not independent."""
    counts = np.bincount(scored.window_M)
    means = np.bincount(scored.window_M, scored.nats_M) / counts
    return float(np.std(means, ddof=1) / len(means) ** 0.5) if len(means) > 1 else float('nan')
