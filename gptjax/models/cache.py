"""The key-value cache of decoding: a value that goes in and comes out, never changed in place.

Suffixes: those of `block.py`, and M = B x N (rows and heads on one axis).
"""

import flax.struct
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.models.linear import compute_dtype

# The position of padding and of an empty slot: no query attends to a key at this position.
NO_POSITION = jnp.iinfo(jnp.int32).max


class LayerCache(flax.struct.PyTreeNode):
    """Keys and values of one layer, and the slot that is written next."""

    k_MSH: jax.Array
    v_MSH: jax.Array
    slot: jax.Array  # int32

    def write(self, k_BNTH: jax.Array, v_BNTH: jax.Array) -> 'LayerCache':
        """The cache with T new keys and values in the slots from `slot` on."""
        return self.replace(
            k_MSH=_write(self.k_MSH, k_BNTH.reshape(-1, *k_BNTH.shape[2:]), self.slot),
            v_MSH=_write(self.v_MSH, v_BNTH.reshape(-1, *v_BNTH.shape[2:]), self.slot),
        )


class Cache(flax.struct.PyTreeNode):
    """Keys and values of all layers, in a ring of slots that all rows fill in step.

    Which token a slot holds is told by `pos_BS`, not by the slot's index, so rows may stand at
    different positions. After the last slot the first one is written again.

    Each layer has an array of its own, with rows and heads on one axis as in the matrix products
    that read it: only then does XLA's CPU backend update it in place inside a loop.
    """

    k_MSH: tuple[jax.Array, ...]
    v_MSH: tuple[jax.Array, ...]
    pos_BS: jax.Array  # int32
    tokens_BS: jax.Array | None  # int32, for n-gram embeddings; None without them
    slot: jax.Array  # int32, the next one to write

    @classmethod
    def empty(cls, config: ModelConfig, batch_size: int, slots: int) -> 'Cache':
        """A cache in which no slot is written."""
        shape = (batch_size * config.n_head, slots, config.n_embd // config.n_head)
        # Arrays of their own for keys and values: a buffer can be donated only once.
        k_MSH, v_MSH = (
            tuple(jnp.zeros(shape, compute_dtype(config)) for _ in range(config.n_layer))
            for _ in range(2)
        )
        pos_BS = jnp.full((batch_size, slots), NO_POSITION, jnp.int32)
        tokens_BS = jnp.zeros_like(pos_BS) if config.ngram > 1 else None
        return cls(k_MSH, v_MSH, pos_BS, tokens_BS, jnp.int32(0))

    def layer(self, i: int) -> LayerCache:
        """The part of layer i."""
        return LayerCache(self.k_MSH[i], self.v_MSH[i], self.slot)

    def write(self, tokens_BT: jax.Array, pos_BT: jax.Array) -> 'Cache':
        """The cache with T new tokens at these positions; their keys and values come later."""
        tokens_BS = self.tokens_BS
        if tokens_BS is not None:
            tokens_BS = _write(tokens_BS, tokens_BT, self.slot)
        return self.replace(pos_BS=_write(self.pos_BS, pos_BT, self.slot), tokens_BS=tokens_BS)

    def advance(self, n: int, layers: list[LayerCache] | None = None) -> 'Cache':
        """The cache after n tokens were written, with what the layers made of them."""
        cache = self.replace(slot=(self.slot + n) % self.pos_BS.shape[1])
        if layers is None:
            return cache
        return cache.replace(
            k_MSH=tuple(layer.k_MSH for layer in layers),
            v_MSH=tuple(layer.v_MSH for layer in layers),
        )


def _write(slots: jax.Array, new: jax.Array, slot: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(slots, new.astype(slots.dtype), slot, axis=1)
