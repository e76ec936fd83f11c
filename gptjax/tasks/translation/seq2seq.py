"""An encoder, and the decoder that looks at what it made of the source.

The suffixes of names are those of `layers.py`; S is the time of the source.
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig, TranslationConfig
from gptjax.models.attention import Attention, attend
from gptjax.models.block import Block, dense, norm, with_positions
from gptjax.models.decoder import Cache, Decoder


@flax.struct.dataclass
class Memory:
    """What decoding needs of some source texts, computed once for each of them."""

    keys_values: tuple[tuple[jax.Array, jax.Array], ...]  # of each block, (B, N, S, H) each
    visible_B1S: jax.Array  # bool; padding is not
    pointer_keys: jax.Array | None  # (B, 1, S, D), where tokens can be copied
    tokens_BS: jax.Array


class Encoder(nn.Module):
    """Blocks in which every token sees the whole text, but no padding."""

    config: ModelConfig
    n_layer: int

    def setup(self):
        config = self.config
        if config.position == 'learned':
            self.embed_pos = nn.Embed(
                config.block_size,
                config.n_embd,
                dtype=config.dtype,
                embedding_init=nn.initializers.normal(0.02),
            )
        self.blocks = [Block(config, name=f'block_{i}') for i in range(self.n_layer)]
        if config.norm_place != 'after':
            self.norm_final = norm(config, None)
        self.drop = nn.Dropout(config.dropout)

    def __call__(self, x_BSD, visible_B1S, *, train: bool = False):
        """Embedded tokens and which of them are no padding -> what is known of each, (B, S, D)."""
        config = self.config
        pos_BS = jnp.arange(x_BSD.shape[1])[None]
        table = self.embed_pos if config.position == 'learned' else None
        x_BSD = with_positions(config, x_BSD, pos_BS, table)
        x_BSD = self.drop(x_BSD, deterministic=not train)
        for block in self.blocks:
            x_BSD = block(x_BSD, pos_BS, visible_B1S, train=train)
        return x_BSD if config.norm_place == 'after' else self.norm_final(x_BSD)


class Seq2Seq(nn.Module):
    """The Transformer (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762)."""

    config: ModelConfig
    translation: TranslationConfig
    source_vocab_size: int
    target_vocab_size: int

    def setup(self):
        config, translation = self.config, self.translation
        self.encoder = Encoder(config, translation.n_encoder_layer or config.n_layer)
        self.decoder = Decoder(config, self.target_vocab_size, cross=True)
        if not translation.shared_vocab:
            self.embed_source = nn.Embed(
                self.source_vocab_size,
                config.n_embd,
                dtype=config.dtype,
                embedding_init=nn.initializers.normal(0.02),
            )
        if translation.copy:
            # One head as wide as the model: it says which token, not what kind of token.
            self.pointer = Attention(dataclasses.replace(config, n_head=1))
            self.gate = dense(config, 1, None, bias=True, std=0.0)

    def __call__(self, source_BS, lengths_B, tokens_BT, *, train: bool = False):
        """Teacher forcing: the logits (B, T, V) of the token after each of the target's.

        Args:
          source_BS: source token ids.
          lengths_B: how many of each row are no padding.
          tokens_BT: the target, from the token that begins it.
          train: whether dropout is on; it then needs the random key 'dropout'.
        """
        memory = self.encode(source_BS, lengths_B, train=train)
        return self.decode(tokens_BT, None, None, memory, train=train)[0]

    def encode(self, source_BS, lengths_B, *, train: bool = False) -> Memory:
        """What `decode` needs of the source; arguments as in `__call__`."""
        embed = self.decoder.embed if self.translation.shared_vocab else self.embed_source
        visible_B1S = (jnp.arange(source_BS.shape[1]) < lengths_B[:, None])[:, None]
        x_BSD = self.encoder(embed(source_BS), visible_B1S, train=train)
        pos_BS = jnp.arange(source_BS.shape[1])[None]
        pointer_keys = self.pointer.keys(x_BSD, pos_BS) if self.translation.copy else None
        keys_values = self.decoder.cross_keys_values(x_BSD, pos_BS)
        return Memory(keys_values, visible_B1S, pointer_keys, source_BS)

    def decode(
        self, tokens_BT, pos_BT, cache: Cache | None, memory: Memory, *, train: bool = False
    ):
        """As `Decoder.__call__`, with the memory of the source besides.

        There may be several rows for each of the memory's, next to each other (beams, samples).
        """
        others = [(*keys_values, memory.visible_B1S) for keys_values in memory.keys_values]
        x_BTD, cache = self.decoder.hidden(tokens_BT, pos_BT, cache, others, train=train)
        logits_BTV = self.decoder.logits(x_BTD)
        if self.translation.copy:
            if pos_BT is None:
                pos_BT = jnp.arange(tokens_BT.shape[1])[None]
            logits_BTV = self._or_copy(logits_BTV, x_BTD, pos_BT, memory)
        return logits_BTV, cache

    def _or_copy(self, logits_BTV, x_BTD, pos_BT, memory: Memory):
        """Mixes in a distribution over the source's tokens (See et al., 2017,
        https://arxiv.org/abs/1704.04368): attention whose values are the tokens themselves.
        """
        b, v = len(memory.tokens_BS), logits_BTV.shape[-1]
        pos_BT = jnp.clip(pos_BT, 0, self.config.block_size - 1)
        pos = pos_BT.reshape(b, -1) if len(x_BTD) > b else pos_BT
        copied_B1TV = attend(
            self.pointer.queries(x_BTD.reshape(b, -1, x_BTD.shape[-1]), pos),
            memory.pointer_keys,
            jax.nn.one_hot(memory.tokens_BS, v, dtype=x_BTD.dtype)[:, None],
            memory.visible_B1S[:, None],
            sow_weights=lambda weights: self.sow('intermediates', 'pointer_B1TS', weights),
        )
        share_BT1 = nn.sigmoid(self.gate(x_BTD).astype(jnp.float32))
        chosen_BTV = nn.softmax(logits_BTV.astype(jnp.float32))
        copied_BTV = copied_B1TV.reshape(logits_BTV.shape).astype(jnp.float32)
        # The logarithm of a probability is a logit; nothing may become minus infinity on the way,
        # because the gradient there is not a number.
        mixed_BTV = jnp.log((1 - share_BT1) * chosen_BTV + share_BT1 * copied_BTV + 1e-9)
        return jnp.where(jnp.isneginf(logits_BTV), -jnp.inf, mixed_BTV)
