"""Embeddings of the last few tokens together, from tables whose rows a hash chooses.

Attention takes hundreds of steps to learn where the tokens just before stand; a table has them from
the first step on (Huang et al., 2025, https://arxiv.org/abs/2501.16975; with a hash: Pagnoni et
al., 2024, https://arxiv.org/abs/2412.09871).
"""

import functools
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.models.linear import compute_dtype

Stored = tuple[jax.Array, jax.Array, jax.Array]
NONE = -1  # where a text has no token: before its first


class NgramEmbedding(nn.Module):
    """What the runs of 2, 3, ... `ngram` tokens add to the embedding of the last one of each."""

    config: ModelConfig
    embedding_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, stored: Stored | None = None) -> jax.Array:
        """(B, T, D).

        Args:
          tokens_BT: each row is a text from its first token on, if nothing else is said.
          stored: otherwise the places pos_BT of the tokens, and the tokens_BS and pos_BS of all
            that there are, these among them.
        """
        n = self.config.ngram - 1
        before_NBT = found(*stored, n) if stored else shifted(tokens_BT, n)
        runs_NBT = jnp.concatenate([before_NBT, tokens_BT[None]])
        size = (self.config.ngram_rows, self.config.n_embd)
        embed = functools.partial(
            nn.Embed, *size, dtype=compute_dtype(self.config), embedding_init=self.embedding_init
        )
        parts = (embed(name=f'last_{i}')(rows(runs_NBT[-i:], size[0])) for i in range(2, n + 2))
        return cast(jax.Array, sum(parts))  # By its type, sum may give 0.


def shifted(tokens_BT: jax.Array, n: int) -> jax.Array:
    """(n, B, T): the tokens n, ..., 1 places before each of a text that begins in column 0."""
    time = tokens_BT.shape[1]
    padded_BT = jnp.pad(tokens_BT, [(0, 0), (n, 0)], constant_values=NONE)
    return jnp.stack([padded_BT[:, i : i + time] for i in range(n)])


def found(pos_BT: jax.Array, tokens_BS: jax.Array, pos_BS: jax.Array, n: int) -> jax.Array:
    """As `shifted`, of tokens that are found by their places, wherever they are stored."""
    wanted_NBT = pos_BT - jnp.arange(n, 0, -1)[:, None, None]
    match_NBTS = wanted_NBT[..., None] == pos_BS[:, None, :]
    return jnp.sum(jnp.where(match_NBTS, tokens_BS[:, None, :] - NONE, 0), -1) + NONE


def rows(tokens_NBT: jax.Array, n_rows: int) -> jax.Array:
    """The table row (B, T) of each run of n tokens, by a hash: equal runs have equal rows."""
    hash_BT = jnp.uint32(0)
    for tokens_BT in tokens_NBT:
        hash_BT = (hash_BT + (tokens_BT - NONE).astype(jnp.uint32)) * jnp.uint32(0x9E3779B1)
        hash_BT ^= hash_BT >> 15
    return (hash_BT % n_rows).astype(jnp.int32)
