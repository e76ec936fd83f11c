"""An encoder, and a decoder whose blocks also attend to the encoder's output.

The suffixes of names are those of `models/block.py`; S is the source's time.
"""

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from gptjax.config import ModelConfig, TranslationConfig
from gptjax.models.attention import Attention, attend
from gptjax.models.block import Block, add_branch, make_blocks, norm, position_table, with_positions
from gptjax.models.cache import Cache, LayerCache
from gptjax.models.decoder import Decoder
from gptjax.models.linear import compute_dtype, dense


class Memory(flax.struct.PyTreeNode):
    """What decoding needs of source texts, computed once for each of them."""

    keys_values: tuple[tuple[Array, Array], ...]  # of each block, (B, N, S, H) each
    mask_B1S: Array  # bool; False for padding
    pointer_keys: Array | None  # (B, 1, S, D), where tokens can be copied
    tokens_BS: Array


class CrossBlock(Block):
    """A block that also attends to a source, after self-attention."""

    def setup(self) -> None:
        super().setup()
        self.norm_cross, self.cross_attn = norm(self.config, None), Attention(self.config)

    # Its decoder alone calls it, with what it needs besides the arguments of a block.
    def __call__(  # type: ignore[override]
        self,
        x_BTD: Array,
        pos_BT: Array,
        mask_BTS: Array | None = None,
        cached: LayerCache | None = None,
        *,
        memory: tuple[Array, Array, Array],
        train: bool = False,
    ) -> tuple[Array, LayerCache | None]:
        """As `Block`, with the keys and values of a source, and which of them are not padding.

        There may be several rows for each source (beams, samples), next to each other: they attend
        to it as queries of one longer row.
        """
        k_BNSH, v_BNSH, mask_B1S = memory

        def cross_attend(y_BTD: Array) -> tuple[Array, None]:
            sources = len(mask_B1S)
            pos = pos_BT.reshape(sources, -1) if len(y_BTD) > sources else pos_BT
            y = y_BTD.reshape(sources, -1, y_BTD.shape[-1])
            mixed, _ = self.cross_attn(y, pos, mask_B1S, memory=(k_BNSH, v_BNSH), train=train)
            return mixed.reshape(y_BTD.shape), None

        drop = functools.partial(self.dropout, deterministic=not train)
        add = functools.partial(add_branch, self.config.norm_place, drop=drop)
        attend = functools.partial(self.attn, train=train)
        x_BTD, cached = add(
            x_BTD, lambda y: attend(y, pos_BT, mask_BTS, cached), norm_branch=self.norm_attn
        )
        x_BTD, _ = add(x_BTD, cross_attend, norm_branch=self.norm_cross)
        return add(x_BTD, lambda y: (self.mlp(y), cached), norm_branch=self.norm_mlp)


class CrossDecoder(Decoder):
    """A decoder of `CrossBlock`s."""

    def make_blocks(self) -> list[Block]:
        """Blocks with cross-attention."""
        return [CrossBlock(self.config, name=f'block_{i}') for i in range(self.config.n_layer)]

    def cross_keys_values(self, x_BSD: Array, pos_BS: Array) -> tuple[tuple[Array, Array], ...]:
        """Keys and values of an encoded source, for the cross-attention of each block."""
        return tuple(block.cross_attn.keys_values(x_BSD, pos_BS) for block in self.blocks)


class Encoder(nn.Module):
    """Blocks in which every token attends to the whole text, but to no padding."""

    config: ModelConfig
    n_layer: int

    def setup(self) -> None:
        config = self.config
        self.embed_pos = position_table(config)
        self.blocks = make_blocks(config, self.n_layer)
        if config.norm_place != 'after':
            self.norm_final = norm(config, None)
        self.drop = nn.Dropout(config.dropout)

    def __call__(self, x_BSD: Array, mask_B1S: Array, *, train: bool = False) -> Array:
        """Embedded tokens -> encoded tokens (B, S, D); the mask is False for padding."""
        pos_BS = jnp.arange(x_BSD.shape[1])[None]
        x_BSD = with_positions(self.config, x_BSD, pos_BS, self.embed_pos)
        x_BSD = self.drop(x_BSD, deterministic=not train)
        for block in self.blocks:
            x_BSD, _ = block(x_BSD, pos_BS, mask_B1S, train=train)
        return x_BSD if self.config.norm_place == 'after' else self.norm_final(x_BSD)


class Seq2Seq(nn.Module):
    """The Transformer (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762)."""

    config: ModelConfig
    translation: TranslationConfig
    source_vocab_size: int
    target_vocab_size: int

    def setup(self) -> None:
        config, translation = self.config, self.translation
        self.encoder = Encoder(config, translation.n_encoder_layer or config.n_layer)
        self.decoder = CrossDecoder(config, self.target_vocab_size)
        if not translation.shared_vocab:
            size, d, init = self.source_vocab_size, config.n_embd, nn.initializers.normal(0.02)
            self.embed_source = nn.Embed(size, d, dtype=compute_dtype(config), embedding_init=init)
        if translation.copy:
            # One head as wide as the model: it says which token, not what kind of token.
            self.pointer = Attention(dataclasses.replace(config, n_head=1))
            self.gate = dense(config, 1, None, bias=True, std=0.0)

    def __call__(
        self, source_BS: Array, lengths_B: Array, tokens_BT: Array, *, train: bool = False
    ) -> Array:
        """Logits (B, T, V) of the token after each of the given target's (teacher forcing).

        `lengths_B` are the tokens of each source, the rest of its row is padding; a target begins
        with the token that begins all of them. With `train`, dropout needs the key 'dropout'.
        """
        memory = self.encode(source_BS, lengths_B, train=train)
        return self.decode(tokens_BT, None, None, memory, train=train)[0]

    def encode(self, source_BS: Array, lengths_B: Array, *, train: bool = False) -> Memory:
        """What `decode` needs of the source; arguments as in `__call__`."""
        embed = self.decoder.embed if self.translation.shared_vocab else self.embed_source
        mask_B1S = (jnp.arange(source_BS.shape[1]) < lengths_B[:, None])[:, None]
        x_BSD = self.encoder(embed(source_BS), mask_B1S, train=train)
        pos_BS = jnp.arange(source_BS.shape[1])[None]
        pointer_keys = self.pointer.keys(x_BSD, pos_BS) if self.translation.copy else None
        keys_values = self.decoder.cross_keys_values(x_BSD, pos_BS)
        return Memory(keys_values, mask_B1S, pointer_keys, source_BS)

    def decode(
        self,
        tokens_BT: Array,
        pos_BT: Array | None,
        cache: Cache | None,
        memory: Memory,
        *,
        train: bool = False,
    ) -> tuple[Array, Cache | None]:
        """As `Decoder.__call__`, with an encoded source.

        There may be several rows for each source, next to each other (beams, samples).
        """
        extra = [{'memory': (*pair, memory.mask_B1S)} for pair in memory.keys_values]
        x_BTD, cache = self.decoder.hidden(tokens_BT, pos_BT, cache, extra=extra, train=train)
        logits_BTV = self.decoder.logits(x_BTD)
        if self.translation.copy:
            if pos_BT is None:
                pos_BT = jnp.arange(tokens_BT.shape[1])[None]
            logits_BTV = self._or_copy(logits_BTV, x_BTD, pos_BT, memory)
        return logits_BTV, cache

    def _or_copy(self, logits_BTV: Array, x_BTD: Array, pos_BT: Array, memory: Memory) -> Array:
        """Mixes in a distribution over the source's tokens (See et al., 2017,
        https://arxiv.org/abs/1704.04368): attention whose values are the tokens themselves.
        """
        assert memory.pointer_keys is not None
        b, v = len(memory.tokens_BS), logits_BTV.shape[-1]
        pos_BT = jnp.clip(pos_BT, 0, self.config.block_size - 1)
        pos = pos_BT.reshape(b, -1) if len(x_BTD) > b else pos_BT
        copied_B1TV = attend(
            self.pointer.queries(x_BTD.reshape(b, -1, x_BTD.shape[-1]), pos),
            memory.pointer_keys,
            jax.nn.one_hot(memory.tokens_BS, v, dtype=x_BTD.dtype)[:, None],
            memory.mask_B1S[:, None],
            sow_weights=lambda weights: self.sow('intermediates', 'pointer_B1TS', weights),
        )
        share_BT1 = nn.sigmoid(self.gate(x_BTD).astype(jnp.float32))
        chosen_BTV = nn.softmax(logits_BTV.astype(jnp.float32))
        copied_BTV = copied_B1TV.reshape(logits_BTV.shape).astype(jnp.float32)
        # The logarithm of a probability is a logit; nothing may become minus infinity on the way,
        # because the gradient there is not a number.
        mixed_BTV = jnp.log((1 - share_BT1) * chosen_BTV + share_BT1 * copied_BTV + 1e-9)
        return jnp.where(jnp.isneginf(logits_BTV), -jnp.inf, mixed_BTV)
