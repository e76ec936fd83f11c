"""Log-probabilities of the tokens of a given text, for `echo`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.generation.rules import Array
from gptjax.models.block import apply
from gptjax.models.decoder import Decoder

# Log-probabilities of tokens, and (id, log-probability) of the likeliest ones in place of each.
Scores = tuple[list[float], list[tuple[tuple[int, float], ...]]]


def score(model: Decoder, params: dict, tokens: tuple[int, ...], likeliest: int) -> Scores:
    """Of each token but the first: its log-probability, and (id, log-probability) of the likeliest.

    There are at most block_size + 1 tokens. One program serves all lengths.
    """
    block_size, n = model.config.block_size, len(tokens) - 1
    padded = np.zeros(block_size + 1, np.int32)
    padded[: len(tokens)] = tokens
    scores_T, ids_TN, scores_TN = (
        np.asarray(x)[:n].tolist() for x in _score(model, params, padded, likeliest)
    )
    pairs = zip(ids_TN, scores_TN, strict=True)
    return scores_T, [tuple(zip(*pair, strict=True)) for pair in pairs]


@functools.partial(jax.jit, static_argnames=('model', 'likeliest'))
def _score(
    model: Decoder, params: dict, tokens_T: Array, likeliest: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits_1TV, _ = apply(model, params, tokens_T[None, :-1])
    logits_TV = logits_1TV[0, :, : model.vocab_size].astype(jnp.float32)
    total_T = jax.nn.logsumexp(logits_TV, axis=-1)
    chosen_T = jnp.take_along_axis(logits_TV, tokens_T[1:, None], axis=-1)[:, 0]
    top_TN, ids_TN = jax.lax.top_k(logits_TV, likeliest)
    return chosen_T - total_T, ids_TN, top_TN - total_T[:, None]
