"""Sentences from noise: the generator and its critic, after an older system (docs/gan.md).

The suffixes of names are those of `models/block.py`. A row of T ids is <START> words <END> and
<PAD>; generator and critic work on what follows <START>, so there S = T - 1.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gptjax.config import GanConfig, ModelConfig
from gptjax.models.attention import Attention, unit_rms
from gptjax.models.block import Block, FeedForward, add_branch, make_blocks, norm, sinusoids
from gptjax.models.cache import Cache, LayerCache
from gptjax.models.linear import dense


class Noise(flax.struct.PyTreeNode):
    """All that is random in a batch of sentences, drawn once: each row's depends on its key alone.

    A position keeps its noise when it is computed again; the original drew it anew for every word.
    """

    style_BTD: jax.Array  # becomes w
    place_BTLD: jax.Array  # of each position: the appended one, then one for each noise block
    key_B: jax.Array  # typed keys, for Gumbel noise


def draw_noise(config: ModelConfig, gan: GanConfig, key: jax.Array, row_B: jax.Array) -> Noise:
    """The noise of some rows: a function of the key and of each row's number."""
    key_B = jax.vmap(functools.partial(jax.random.fold_in, key))(row_B)
    time, width = config.block_size, config.n_embd
    style_width = 1 if gan.noise_width == 'one' else width

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        match gan.noise:
            case 'normal':
                return jax.random.normal(key, shape)
            case 'uniform':
                return jax.random.uniform(key, shape, minval=-1.0)
            case _:  # truncated
                return jax.random.truncated_normal(key, -2.0, 2.0, shape)

    def draw_row(key: jax.Array) -> Noise:
        style_key, place_key, gumbel_key = jax.random.split(key, 3)
        style_TD = jnp.broadcast_to(draw(style_key, (time, style_width)), (time, width))
        place_TLD = draw(place_key, (time, 1 + gan.n_noise_layer, style_width))
        return Noise(
            style_TD, jnp.broadcast_to(place_TLD, (*place_TLD.shape[:2], width)), gumbel_key
        )

    return jax.vmap(draw_row)(key_B)


class NoiseBlock(nn.Module):
    """Self-attention; noise; attention whose queries and keys are the text, and whose values are w.

    The original took queries and keys from the noise and values from the text.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        pos_BT: jax.Array,
        mask_BTS: jax.Array | None,
        *,
        w_BTD: jax.Array,
        noise_BTD: jax.Array,
        cached: tuple[LayerCache | None, LayerCache | None] = (None, None),
    ) -> tuple[jax.Array, tuple[LayerCache | None, LayerCache | None]]:
        """The residual stream, and the caches of both attentions (None without)."""
        config = self.config
        attention = Attention(config, name='attn')
        cross = Attention(config, name='cross')
        mlp = FeedForward(config, name='mlp')
        add = functools.partial(add_branch, config.norm_place)
        x_BTD, cached_attn = add(
            x_BTD,
            lambda y_BTD: attention(y_BTD, pos_BT, mask_BTS, cached[0]),
            norm_branch=norm(config, 'norm_attn'),
        )
        x_BTD += noise_BTD * self.param(
            'noise_scale', nn.initializers.constant(0.1), x_BTD.shape[-1:]
        )
        x_BTD, cached_cross = add(
            x_BTD,
            lambda y_BTD: cross(y_BTD, pos_BT, mask_BTS, cached[1], value_BTD=w_BTD),
            norm_branch=norm(config, 'norm_cross'),
        )
        x_BTD, _ = add(
            x_BTD, lambda y_BTD: (mlp(y_BTD), None), norm_branch=norm(config, 'norm_mlp')
        )
        return x_BTD, (cached_attn, cached_cross)


class Generator(nn.Module):
    """Words and noise -> the hidden states that the next words are read from."""

    config: ModelConfig
    gan: GanConfig
    vocab_size: int

    def setup(self) -> None:
        config, gan = self.config, self.gan
        self.mapping = [
            # Small weights would make of eight layers a constant.
            dense(config, config.n_embd, f'map_{i}', bias=True, std=(2 / config.n_embd) ** 0.5)
            for i in range(gan.n_mapping)
        ]
        # Words have the size of the noise that is added to them.
        self.embed = nn.Embed(
            self.vocab_size,
            config.n_embd,
            dtype=config.dtype,
            embedding_init=nn.initializers.normal(1.0),
        )
        self.noise_scale = self.param(
            'noise_scale', nn.initializers.constant(0.5), (config.n_embd,)
        )
        self.noise_blocks = [
            NoiseBlock(config, name=f'noise_block_{i}') for i in range(gan.n_noise_layer)
        ]
        self.blocks = make_blocks(config, gan.n_plain_layer)
        self.norm_final = norm(config, None)
        self.head = dense(config, self.vocab_size, None, bias=True)

    @property
    def cache_config(self) -> ModelConfig:
        """What a cache of this generator has to hold: two attentions in each noise block."""
        layers = 2 * self.gan.n_noise_layer + self.gan.n_plain_layer
        return dataclasses.replace(self.config, n_layer=layers)

    def __call__(self, ids_BT: jax.Array, noise: Noise) -> jax.Array:
        """All logits (B, S, V), so that every parameter is made."""
        return self.logits(self.replay(ids_BT, self.style(noise.style_BTD), noise))

    def style(self, noise_BTD: jax.Array) -> jax.Array:
        """w: the noise after the mapping; with activations between, or the layers were one."""
        x_BTD = unit_rms(noise_BTD)
        for i, layer in enumerate(self.mapping):
            x_BTD = layer(nn.gelu(x_BTD) if i else x_BTD)
        return x_BTD

    def logits(self, x_BSD: jax.Array) -> jax.Array:
        """The output head, in float32."""
        return self.head(x_BSD).astype(jnp.float32)

    def trunk(
        self,
        x_BTD: jax.Array,
        pos_BT: jax.Array,
        mask_BTS: jax.Array | None,
        *,
        w_BTD: jax.Array,
        noise_BTLD: jax.Array,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, list[LayerCache]]:
        """The blocks, on embedded inputs, and the caches of all their attentions, if any."""
        layers: list[LayerCache] = []
        cached: Iterator[LayerCache | None] = (
            itertools.repeat(None) if cache is None else map(cache.layer, itertools.count())
        )
        if self.config.position == 'sinusoidal':
            x_BTD += sinusoids(pos_BT, self.config.n_embd).astype(x_BTD.dtype)
        for i, noise_block in enumerate(self.noise_blocks):
            x_BTD, pair = noise_block(
                x_BTD,
                pos_BT,
                mask_BTS,
                w_BTD=w_BTD,
                noise_BTD=noise_BTLD[:, :, i + 1],
                cached=(next(cached), next(cached)),
            )
            layers += [layer for layer in pair if layer is not None]
        for block in self.blocks:
            x_BTD, layer = block(x_BTD, pos_BT, mask_BTS, next(cached))
            layers += [layer] if layer is not None else []
        return self.norm_final(x_BTD), layers

    def replay(self, ids_BT: jax.Array, w_BTD: jax.Array, noise: Noise) -> jax.Array:
        """The hidden state (B, S, D) before each word of causal sentences, all at once."""
        x_BSD = self._causal_inputs(ids_BT[:, :-1], noise.place_BTLD[:, :-1])
        pos_BS = jnp.arange(x_BSD.shape[1])[None]
        return self.trunk(
            x_BSD, pos_BS, None, w_BTD=w_BTD[:, :-1], noise_BTLD=noise.place_BTLD[:, :-1]
        )[0]

    def step(
        self, token_B: jax.Array, t: jax.Array, w_BTD: jax.Array, noise: Noise, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """The hidden state (B, D) after one more word at place t, and the new cache."""
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=t, slice_size=1, axis=1)
        noise_BTLD = take(noise.place_BTLD)
        cache = cache.write(token_B[:, None], jnp.full((len(token_B), 1), t, jnp.int32))
        x_BTD, layers = self.trunk(
            self._causal_inputs(token_B[:, None], noise_BTLD),
            jnp.full((1, 1), t),
            cache.pos_BS[:, None, :] <= t,
            w_BTD=take(w_BTD),
            noise_BTLD=noise_BTLD,
            cache=cache,
        )
        return x_BTD[:, 0], cache.advance(1, layers)

    def rewritten(
        self, ids_BT: jax.Array, w_BTD: jax.Array, noise: Noise, t: jax.Array
    ) -> jax.Array:
        """The hidden state (B, D) of word t, from the words before it and fresh noise at t.

        As the original: all of these see each other, so nothing of it can be kept for t + 1.
        """
        pos_T = jnp.arange(ids_BT.shape[1])
        fresh_BTD = noise.place_BTLD[:, :, 0].astype(self.config.dtype)
        x_BTD = jnp.where((pos_T < t)[:, None], self.embed(ids_BT), self.noise_scale * fresh_BTD)
        mask_BTS = (pos_T <= t)[None, None, :]
        x_BTD, _ = self.trunk(
            x_BTD, pos_T[None], mask_BTS, w_BTD=w_BTD, noise_BTLD=noise.place_BTLD
        )
        return jax.lax.dynamic_index_in_dim(x_BTD, t, 1, keepdims=False)

    def _causal_inputs(self, ids_BT: jax.Array, place_BTLD: jax.Array) -> jax.Array:
        return self.embed(ids_BT) + self.noise_scale * place_BTLD[:, :, 0].astype(self.config.dtype)


class Critic(nn.Module):
    """Embedded sentences -> one number each: how real they look."""

    config: ModelConfig
    gan: GanConfig
    vocab_size: int

    def setup(self) -> None:
        config, gan = self.config, self.gan
        init = nn.initializers.normal(config.n_embd**-0.5)
        self.embed = nn.Embed(
            self.vocab_size, config.n_embd, dtype=config.dtype, embedding_init=init
        )
        self.join = dense(config, config.n_embd, None, bias=True, std=config.n_embd**-0.5)
        self.blocks = make_blocks(config, gan.n_critic_layer)
        if gan.pooling == 'none':
            self.class_token = self.param('class_token', init, (config.n_embd,))
        self.class_blocks = make_blocks(config, gan.n_class_layer, 'class_block')
        self.norm_final = norm(config, None)
        self.head = dense(config, 1, None, bias=True, std=config.n_embd**-0.5)

    def embed_ids(self, ids_BS: jax.Array) -> jax.Array:
        """Embedded words (B, S, D): what one-hot rows times the table would be."""
        return self.embed(ids_BS)

    def __call__(self, e_BSD: jax.Array) -> jax.Array:
        """Scores (B,), float32, of embedded words, or of mixtures of them; zeros are no word."""
        config, (b, s) = self.config, e_BSD.shape[:2]
        places_BSD = jnp.broadcast_to(sinusoids(jnp.arange(s)[None], config.n_embd), e_BSD.shape)
        x_BSD = self.join(jnp.concatenate([e_BSD, places_BSD.astype(e_BSD.dtype)], -1))

        def through(blocks: list[Block], x_BSD: jax.Array) -> jax.Array:
            pos_BS = jnp.arange(x_BSD.shape[1])[None]
            everything_BTS = jnp.ones((1, 1, x_BSD.shape[1]), bool)
            for block in blocks:
                x_BSD, _ = block(x_BSD, pos_BS, everything_BTS)
            return x_BSD

        x_BSD = through(self.blocks, x_BSD)
        if self.gan.pooling == 'none':
            token_B1D = jnp.broadcast_to(self.class_token, (b, 1, config.n_embd))
            x_BSD = jnp.concatenate([x_BSD, token_B1D.astype(x_BSD.dtype)], 1)
        x_BSD = self.norm_final(through(self.class_blocks, x_BSD))
        match self.gan.pooling:
            case 'none':
                x_BD = x_BSD[:, -1]
            case 'average':
                x_BD = x_BSD.mean(1)
            case 'max':
                x_BD = x_BSD.max(1)
        return self.head(x_BD)[:, 0].astype(jnp.float32)
