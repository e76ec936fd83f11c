"""The causal decoder: tokens and positions in, logits out, with the cache as an explicit value."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.models.attention import causal_mask
from gptjax.models.block import Block, make_blocks, norm, position_table, with_positions
from gptjax.models.cache import Cache, LayerCache
from gptjax.models.linear import compute_dtype, dense, unembed
from gptjax.models.ngram import NgramEmbedding
from gptjax.models.scan import scan_blocks


class Decoder(nn.Module):
    """A GPT (Radford et al., 2019), with the options of `ModelConfig`."""

    config: ModelConfig
    vocab_size: int

    @property
    def head_name(self) -> str:
        """The name of the parameters that `logits` uses."""
        return 'embed' if self.config.tied_head else 'head'

    @property
    def looked_up(self) -> frozenset[str]:
        """The names of the parameters that are tables, with which nothing is multiplied."""
        return frozenset(('embed', 'embed_ngrams', 'embed_pos')) - {self.head_name}

    def make_blocks(self) -> list[Block]:
        """The blocks; a subclass may have others."""
        return make_blocks(self.config, self.config.n_layer)

    def setup(self) -> None:
        config = self.config
        self.padded_size = -(-self.vocab_size // config.vocab_multiple) * config.vocab_multiple
        init = nn.initializers.normal(0.02)
        self.embed = nn.Embed(
            self.padded_size, config.n_embd, dtype=compute_dtype(config), embedding_init=init
        )
        if config.ngram > 1:
            self.embed_ngrams = NgramEmbedding(config, init)
        self.embed_pos = position_table(config)
        self.blocks = self.make_blocks()
        if config.norm_place != 'after':
            self.norm_final = norm(config, None)
        if not config.tied_head:
            self.head = dense(config, self.padded_size, None, bias=config.head_bias)
        self.drop = nn.Dropout(config.dropout)

    def __call__(
        self,
        tokens_BT: jax.Array,
        pos_BT: jax.Array | None = None,
        cache: Cache | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """Logits of the token after each position.

        Args:
          tokens_BT: token ids.
          pos_BT: the position of each token in its text, `cache.NO_POSITION` for padding. Without
            it positions are 0, 1, 2, ...; with a cache it is required.
          cache: earlier tokens, to which these attend and are added.
          train: whether dropout is on; it then needs the random key 'dropout'.

        Returns:
          logits (B, T, V) in the compute type, and the new cache (None without one).
        """
        x_BTD, cache = self.hidden(tokens_BT, pos_BT, cache, train=train)
        return self.logits(x_BTD), cache

    def hidden(
        self,
        tokens_BT: jax.Array,
        pos_BT: jax.Array | None = None,
        cache: Cache | None = None,
        *,
        extra: Sequence[dict[str, Any]] | None = None,
        train: bool = False,
        remat: str = '',
    ) -> tuple[jax.Array, Cache | None]:
        """As `__call__`, but stops before the output head: (B, T, D) and the new cache.

        `extra` has further arguments for each block, if the blocks of a subclass take any. With
        `remat`, a value of that knob, and without a cache, the blocks are computed in one loop.
        """
        config = self.config
        in_order = pos_BT is None
        if pos_BT is None:
            pos_BT = jnp.arange(tokens_BT.shape[1])[None]
        # Padding gets some position: nothing attends to it, but its values have to be finite.
        clipped_pos_BT = jnp.clip(pos_BT, 0, config.block_size - 1)
        key_pos_BS, key_tokens_BS = pos_BT, tokens_BT
        if cache is not None:
            cache = cache.write(tokens_BT, pos_BT)
            key_pos_BS = cache.pos_BS
            key_tokens_BS = tokens_BT if cache.tokens_BS is None else cache.tokens_BS

        x_BTD = self.embed(tokens_BT)
        if config.ngram > 1:
            x_BTD += self.embed_ngrams(
                tokens_BT, None if in_order else (pos_BT, key_tokens_BS, key_pos_BS)
            )
        x_BTD = with_positions(config, x_BTD, clipped_pos_BT, self.embed_pos)
        x_BTD = self.drop(x_BTD, deterministic=not train)

        # None is the same mask for tokens in order; flash attention may then replace it.
        mask_BTS = None if in_order else causal_mask(pos_BT, key_pos_BS)
        layers: list[LayerCache] = []
        if remat:
            own = [block.variables['params'] for block in self.blocks]
            how: dict[str, Any] = {'key': self.make_rng('dropout') if train else None}
            block = self.blocks[0].clone(parent=None, name=None)
            x_BTD = scan_blocks(block, own, x_BTD, clipped_pos_BT, mask_BTS, **how, remat=remat)
        for i, block in enumerate(() if remat else self.blocks):
            cached = cache.layer(i) if cache is not None else None
            arguments = extra[i] if extra else {}
            x_BTD, cached = block(x_BTD, clipped_pos_BT, mask_BTS, cached, train=train, **arguments)
            layers += [cached] if cached is not None else []
        if cache is not None:
            cache = cache.advance(tokens_BT.shape[1], layers)
        if config.norm_place != 'after':
            x_BTD = self.norm_final(x_BTD)
        return x_BTD, cache

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """The output head: (B, T, D) -> (B, T, V); ids that only pad the table get -infinity."""
        tied = self.config.tied_head
        logits_BTV = unembed(x_BTD, self.embed.embedding) if tied else self.head(x_BTD)
        if self.padded_size == self.vocab_size:
            return logits_BTV
        return jnp.where(jnp.arange(self.padded_size) < self.vocab_size, logits_BTV, -jnp.inf)
