"""The causal decoder: tokens and positions in, logits out, with the cache as an explicit value."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.models.block import NOBODY, Block, dense, norm, with_positions
from gptjax.models.ngram import NgramEmbedding


@flax.struct.dataclass
class Cache:
    """Keys and values of all layers, in slots that every row of the batch fills in step.

    A slot's place in the text is `pos_BS`, not its index; an empty slot stands at NOBODY.

    There is one array a layer, and rows and heads share its first axis (M = B x N), as in the
    matrix products that read it: only so does XLA's CPU backend update each in place in a loop.
    """

    k_MSH: tuple[jax.Array, ...]
    v_MSH: tuple[jax.Array, ...]
    pos_BS: jax.Array  # int32
    tokens_BS: jax.Array | None  # int32, for n-grams; None without
    slot: jax.Array  # int32, the next one to fill

    @classmethod
    def empty(cls, config: ModelConfig, batch_size: int, slots: int) -> 'Cache':
        """A cache that nobody has written to."""
        shape = (batch_size * config.n_head, slots, config.n_embd // config.n_head)
        layers = tuple(jnp.zeros(shape, config.dtype) for _ in range(config.n_layer))
        pos_BS = jnp.full((batch_size, slots), NOBODY)
        tokens_BS = jnp.zeros_like(pos_BS) if config.ngram > 1 else None
        return cls(layers, layers, pos_BS, tokens_BS, jnp.int32(0))


class Decoder(nn.Module):
    """A GPT (Radford et al., 2019), with the options of `ModelConfig`.

    With `cross` its blocks also attend to another sequence, whose keys and values are given.
    """

    config: ModelConfig
    vocab_size: int
    cross: bool = False

    @property
    def head_name(self) -> str:
        """The parameters that `logits` uses."""
        return 'embed' if self.config.tied_head else 'head'

    @property
    def looked_up(self) -> set[str]:
        """The parameters that are tables, and multiply nothing."""
        return {'embed', 'embed_ngrams', 'embed_pos'} - {self.head_name}

    def setup(self):
        config = self.config
        self.padded_size = -(-self.vocab_size // config.vocab_multiple) * config.vocab_multiple
        init = nn.initializers.normal(0.02)
        self.embed = nn.Embed(
            self.padded_size, config.n_embd, dtype=config.dtype, embedding_init=init
        )
        if config.ngram > 1:
            self.embed_ngrams = NgramEmbedding(config, init)
        if config.position == 'learned':
            self.embed_pos = nn.Embed(
                config.block_size, config.n_embd, dtype=config.dtype, embedding_init=init
            )
        self.blocks = [Block(config, self.cross, name=f'block_{i}') for i in range(config.n_layer)]
        if config.norm_place != 'after':
            self.norm_final = norm(config, None)
        if not config.tied_head:
            self.head = dense(config, self.padded_size, None, bias=config.head_bias)
        self.drop = nn.Dropout(config.dropout)

    def __call__(self, tokens_BT, pos_BT=None, cache: Cache | None = None, *, train: bool = False):
        """Logits of the token after each position.

        Args:
          tokens_BT: token ids.
          pos_BT: the place of each token in its text; NOBODY where there is none (padding).
            Without it the places are 0, 1, 2, ...; with a cache it is needed.
          cache: what came before. The new tokens see it and are added to it.
          train: whether dropout is on; it then needs the random key 'dropout'.

        Returns:
          logits (B, T, V) in the compute type, and the new cache (None without one).
        """
        x_BTD, cache = self.hidden(tokens_BT, pos_BT, cache, train=train)
        return self.logits(x_BTD), cache

    def hidden(
        self,
        tokens_BT,
        pos_BT=None,
        cache: Cache | None = None,
        others=None,
        *,
        train: bool = False,
    ):
        """As `__call__`, but stops before the output head: (B, T, D) and the new cache.

        `others` has for each block what its cross-attention needs, if there is any.
        """
        config = self.config
        in_order = pos_BT is None
        if in_order:
            pos_BT = jnp.arange(tokens_BT.shape[1])[None]
        # Padding gets some place: what is computed there is never seen, but has to be finite.
        place_BT = jnp.clip(pos_BT, 0, config.block_size - 1)

        key_pos_BS, key_tokens_BS = pos_BT, tokens_BT
        if cache is not None:
            key_pos_BS = _write(cache.pos_BS, pos_BT, cache.slot, axis=1)
            key_tokens_BS = jax.tree.map(
                lambda old_BS: _write(old_BS, tokens_BT, cache.slot, axis=1), cache.tokens_BS
            )
        x_BTD = self.embed(tokens_BT)
        if config.ngram > 1:
            stored = None if in_order else (pos_BT, key_tokens_BS, key_pos_BS)
            x_BTD += self.embed_ngrams(tokens_BT, stored)
        table = self.embed_pos if config.position == 'learned' else None
        x_BTD = with_positions(config, x_BTD, place_BT, table)
        x_BTD = self.drop(x_BTD, deterministic=not train)

        visible_BTS = None if in_order else pos_BT[:, :, None] >= key_pos_BS[:, None, :]
        keys, values = [], []
        for i, block in enumerate(self.blocks):

            def store(k_BNTH, v_BNTH, i=i):
                keys.append(_write_heads(cache.k_MSH[i], k_BNTH, cache.slot))
                values.append(_write_heads(cache.v_MSH[i], v_BNTH, cache.slot))
                return keys[i], values[i]

            other = others[i] if others else None
            x_BTD = block(
                x_BTD, place_BT, visible_BTS, store if cache else None, other, train=train
            )
        if cache is not None:
            slot = cache.slot + tokens_BT.shape[1]
            cache = Cache(tuple(keys), tuple(values), key_pos_BS, key_tokens_BS, slot)
        if config.norm_place != 'after':
            x_BTD = self.norm_final(x_BTD)
        return x_BTD, cache

    def cross_keys_values(self, x_BSD, pos_BS):
        """Of another sequence, for the cross-attention of each block."""
        return tuple(block.cross_attn.keys_values(x_BSD, pos_BS) for block in self.blocks)

    def logits(self, x_BTD):
        """The output head: (B, T, D) -> (B, T, V); tokens that only pad get minus infinity."""
        logits_BTV = self.embed.attend(x_BTD) if self.config.tied_head else self.head(x_BTD)
        if self.padded_size == self.vocab_size:
            return logits_BTV
        return jnp.where(jnp.arange(self.padded_size) < self.vocab_size, logits_BTV, -jnp.inf)


def _write_heads(slots_MSH, new_BNTH, slot):
    return _write(slots_MSH, new_BNTH.reshape(-1, *new_BNTH.shape[2:]), slot, axis=1)


def _write(slots, new, slot, axis: int):
    return jax.lax.dynamic_update_slice_in_dim(slots, new.astype(slots.dtype), slot, axis)
