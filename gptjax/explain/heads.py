"""What each attention head does: where it looks on repeated tokens, and the loss without it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gptjax.models.block import apply
from gptjax.models.decoder import Decoder
from gptjax.training.losses import cross_entropy

ROWS, MOST_REPEATED = 4, 50  # texts of random tokens, and how many tokens each repeats
LABELLED_FROM = 0.4  # mean attention weight


@dataclasses.dataclass(frozen=True)
class HeadScores:
    """Mean attention weights of all heads (L, N) on random tokens that come twice.

    These are the three detectors of Olsson et al. (2022, https://arxiv.org/abs/2209.11895).
    """

    previous_LN: np.ndarray  # on the token just before
    duplicate_LN: np.ndarray  # in the second half, on the same token in the first
    induction_LN: np.ndarray  # in the second half, on the token that followed it there

    def label(self, layer: int, head: int) -> str:
        """'previous token', 'duplicate token', 'induction' or nothing."""
        scores = {
            'previous token': self.previous_LN[layer, head],
            'duplicate token': self.duplicate_LN[layer, head],
            'induction': self.induction_LN[layer, head],
        }
        best = max(scores, key=lambda name: float(scores[name]))
        return best if scores[best] >= LABELLED_FROM else ''


def score_heads(model: Decoder, variables: dict, seed: int = 0) -> HeadScores | None:
    """The scores of all heads; None if the block has no room for two times two tokens."""
    n = min(model.config.block_size // 2, MOST_REPEATED)
    if n < 2:
        return None
    tokens_RT = np.random.default_rng(seed).integers(model.vocab_size, size=(ROWS, n))
    tokens_RT = np.concatenate([tokens_RT, tokens_RT], 1)

    @jax.jit
    def run(variables: dict) -> list[tuple[Array, Array, Array]]:
        _, looked = apply(model, variables, tokens_RT, mutable=['intermediates'])
        found = []
        for i in range(model.config.n_layer):
            (weights_RNTS,) = looked['intermediates'][f'block_{i}']['attn']['weights_BNTS']
            found.append(mean_weights(weights_RNTS, n))
        return found

    found = jax.device_get(run(variables))
    return HeadScores(*(np.stack(scores) for scores in zip(*found, strict=True)))


def mean_weights(weights_RNTS: Array, n: int) -> tuple[Array, Array, Array]:
    """Mean weights of each head (N,) on three places, in texts of n tokens that come twice.

    Of the token before; in the second half of the same token; of the one that followed it.
    """
    previous, duplicate, induction = (
        jnp.diagonal(weights_RNTS, -back, 2, 3) for back in (1, n, n - 1)
    )
    # The first entry of the last one belongs to the first half.
    induction = induction[..., 1:]
    return previous.mean((0, 2)), duplicate.mean((0, 2)), induction.mean((0, 2))


def losses_without(
    model: Decoder, variables: dict, tokens_T: np.ndarray
) -> tuple[float, np.ndarray]:
    """Nats per token of a text, and how much more without each head (L, N).

    A head is left out by zeros in its part of the output projection.
    """
    layers, heads = model.config.n_layer, model.config.n_head
    inputs, targets = jnp.asarray(tokens_T[None, :-1]), jnp.asarray(tokens_T[None, 1:])

    @jax.jit
    def run(variables: dict, kept_MLN: Array) -> Array:
        def loss(kept_LN: Array) -> Array:
            logits_BTV, _ = apply(model, _with_heads(variables, kept_LN), inputs)
            nats, count = cross_entropy(logits_BTV, targets, jnp.array([targets.shape[1]]))
            return nats / count

        return jax.lax.map(loss, kept_MLN)

    kept_MLN = 1.0 - np.eye(layers * heads, dtype=np.float32).reshape(-1, layers, heads)
    kept_MLN = np.concatenate([np.ones((1, layers, heads), np.float32), kept_MLN])
    whole, *others = np.asarray(run(variables, kept_MLN))
    return float(whole), np.array(others).reshape(layers, heads) - whole


def _with_heads(variables: dict, kept_LN: Array) -> dict:
    """The variables with the output of each head multiplied by `kept`."""
    params: dict[str, Any] = dict(variables['params'])
    for i, kept_N in enumerate(kept_LN):
        attn = params[f'block_{i}']['attn']
        kernel_NHD = attn['out']['kernel'] * kept_N[:, None, None]
        attn = {**attn, 'out': {**attn['out'], 'kernel': kernel_NHD}}
        params[f'block_{i}'] = {**params[f'block_{i}'], 'attn': attn}
    return {**variables, 'params': params}
