"""Sentences from noise: the generator and its critic, after an older system (docs/gan.md).

The suffixes of names are those of `models/block.py`. A row of T ids is <START> words <END> and
<PAD>; generator and critic work on what follows <START>, so there S = T - 1.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from gptjax.config import GanConfig, ModelConfig
from gptjax.models.attention import Attention, unit_rms
from gptjax.models.block import Block, add_branch, make_blocks, norm, sinusoids, with_positions
from gptjax.models.cache import Cache, LayerCache
from gptjax.models.linear import compute_dtype, dense

NOISES: dict[str, Callable] = {
    'normal': jax.random.normal,
    'uniform': functools.partial(jax.random.uniform, minval=-1.0),
    'truncated': lambda key, shape: jax.random.truncated_normal(key, -2.0, 2.0, shape),
}
POOLINGS = {
    'none': lambda x_BSD: x_BSD[:, -1],  # that of the class token
    'average': lambda x_BSD: x_BSD.mean(1),
    'max': lambda x_BSD: x_BSD.max(1),
}
LayerCaches = list[LayerCache | None]  # None without a cache


class Noise(flax.struct.PyTreeNode):
    """All that is random in a batch of sentences, drawn once: each row's depends on its key alone.

    A position keeps its noise when it is computed again; the original drew it anew for every word.
    """

    style_BTD: Array  # becomes w
    place_BTLD: Array  # of each position: the appended one, then one for each noise block
    key_B: Array  # typed keys, for Gumbel noise


def draw_noise(config: ModelConfig, gan: GanConfig, key: Array, row_B: Array) -> Noise:
    """The noise of some rows: a function of the key and of each row's number."""

    def draw(key: Array, *shape: int) -> Array:
        numbers = NOISES[gan.noise](key, (*shape, 1 if gan.noise_width == 'one' else config.n_embd))
        return jnp.broadcast_to(numbers, (*shape, config.n_embd))

    def draw_row(row: Array) -> Noise:
        style_key, place_key, gumbel_key = jax.random.split(jax.random.fold_in(key, row), 3)
        style_TD = draw(style_key, config.block_size)
        place_TLD = draw(place_key, config.block_size, 1 + gan.n_noise_layer)
        return Noise(style_TD, place_TLD, gumbel_key)

    return jax.vmap(draw_row)(row_B)


class NoiseBlock(Block):
    """Self-attention; noise; attention whose queries and keys are the text, and whose values are w.

    The original took queries and keys from the noise and values from the text.
    """

    def setup(self) -> None:
        super().setup()
        self.norm_cross, self.cross = norm(self.config, None), Attention(self.config)
        init = nn.initializers.constant(0.1)
        self.noise_scale = self.param('noise_scale', init, (self.config.n_embd,))

    # The generator alone calls it, with what it needs besides the arguments of a block.
    def __call__(  # type: ignore[override]
        self,
        x_BTD: Array,
        pos_BT: Array,
        mask_BTS: Array | None,
        cached: LayerCaches,
        *,
        w_BTD: Array,
        noise_BTD: Array,
    ) -> tuple[Array, LayerCaches]:
        """The residual stream, and the caches of both attentions."""
        add = functools.partial(add_branch, self.config.norm_place)
        x_BTD, cached_attn = add(
            x_BTD, lambda y: self.attn(y, pos_BT, mask_BTS, cached[0]), norm_branch=self.norm_attn
        )
        x_BTD += noise_BTD * self.noise_scale
        x_BTD, cached_cross = add(
            x_BTD,
            lambda y: self.cross(y, pos_BT, mask_BTS, cached[1], value_BTD=w_BTD),
            norm_branch=self.norm_cross,
        )
        x_BTD, _ = add(x_BTD, lambda y: (self.mlp(y), None), norm_branch=self.norm_mlp)
        return x_BTD, [cached_attn, cached_cross]


class Generator(nn.Module):
    """Words and noise -> the hidden states that the next words are read from."""

    config: ModelConfig
    gan: GanConfig
    vocab_size: int

    def setup(self) -> None:
        config, gan, d = self.config, self.gan, self.config.n_embd
        std = (2 / d) ** 0.5  # Small weights would make of eight layers a constant.
        self.mapping = [
            dense(config, d, f'map_{i}', bias=True, std=std) for i in range(gan.n_mapping)
        ]
        init = nn.initializers.normal(1.0)  # Words have the size of the noise added to them.
        self.embed = nn.Embed(self.vocab_size, d, dtype=compute_dtype(config), embedding_init=init)
        self.noise_scale = self.param('noise_scale', nn.initializers.constant(0.5), (d,))
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

    def __call__(self, ids_BT: Array, noise: Noise) -> Array:
        """All logits (B, S, V), so that every parameter is made."""
        return self.logits(self.replay(ids_BT, self.style(noise.style_BTD), noise))

    def style(self, noise_BTD: Array) -> Array:
        """w: the noise after the mapping; with activations between, or the layers were one."""
        x_BTD = unit_rms(noise_BTD)
        for i, layer in enumerate(self.mapping):
            x_BTD = layer(nn.gelu(x_BTD) if i else x_BTD)
        return x_BTD

    def logits(self, x_BSD: Array) -> Array:
        """The output head, in float32."""
        return self.head(x_BSD).astype(jnp.float32)

    def trunk(
        self,
        x_BTD: Array,
        pos_BT: Array,
        mask_BTS: Array | None,
        *,
        w_BTD: Array,
        noise_BTLD: Array,
        cache: Cache | None = None,
    ) -> tuple[Array, list]:
        """The residual stream after the blocks, and the caches of all their attentions."""
        count, layers = self.cache_config.n_layer, []
        old: LayerCaches = [cache.layer(i) if cache else None for i in range(count)]
        x_BTD = with_positions(self.config, x_BTD, pos_BT, None)
        for i, noise_block in enumerate(self.noise_blocks):
            both, noise_BTD = old[2 * i : 2 * i + 2], noise_BTLD[:, :, i + 1]
            x_BTD, new = noise_block(
                x_BTD, pos_BT, mask_BTS, both, w_BTD=w_BTD, noise_BTD=noise_BTD
            )
            layers += new
        for block in self.blocks:
            x_BTD, layer = block(x_BTD, pos_BT, mask_BTS, old[len(layers)])
            layers.append(layer)
        return self.norm_final(x_BTD), layers

    def replay(self, ids_BT: Array, w_BTD: Array, noise: Noise) -> Array:
        """The hidden state (B, S, D) before each word of causal sentences, all at once."""
        w_BSD, noise_BSLD = w_BTD[:, :-1], noise.place_BTLD[:, :-1]
        x_BSD = self.embed(ids_BT[:, :-1]) + self._input_noise(noise_BSLD)
        pos_BS = jnp.arange(x_BSD.shape[1])[None]
        return self.trunk(x_BSD, pos_BS, None, w_BTD=w_BSD, noise_BTLD=noise_BSLD)[0]

    def step(
        self, token_B: Array, t: Array, w_BTD: Array, noise: Noise, cache: Cache
    ) -> tuple[Array, Cache]:
        """The hidden state (B, D) after one more word at place t, and the new cache."""
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=t, slice_size=1, axis=1)
        w_B1D, noise_B1LD = take(w_BTD), take(noise.place_BTLD)
        cache = cache.write(token_B[:, None], jnp.full((len(token_B), 1), t, jnp.int32))
        x_B1D = self.embed(token_B[:, None]) + self._input_noise(noise_B1LD)
        place, mask_B1S = jnp.full((1, 1), t), cache.pos_BS[:, None, :] <= t
        x_B1D, layers = self.trunk(
            x_B1D, place, mask_B1S, w_BTD=w_B1D, noise_BTLD=noise_B1LD, cache=cache
        )
        return x_B1D[:, 0], cache.advance(1, layers)

    def rewritten(self, ids_BT: Array, w_BTD: Array, noise: Noise, t: Array) -> Array:
        """The hidden state (B, D) of word t, from the words before it and fresh noise at t.

        As the original: all of these see each other, so nothing of it can be kept for t + 1.
        """
        pos_T = jnp.arange(ids_BT.shape[1])
        fresh_BTD = self._input_noise(noise.place_BTLD)
        x_BTD = jnp.where((pos_T < t)[:, None], self.embed(ids_BT), fresh_BTD)
        mask_BTS = (pos_T <= t)[None, None, :]
        x_BTD, _ = self.trunk(
            x_BTD, pos_T[None], mask_BTS, w_BTD=w_BTD, noise_BTLD=noise.place_BTLD
        )
        return jax.lax.dynamic_index_in_dim(x_BTD, t, 1, keepdims=False)

    def _input_noise(self, place_BTLD: Array) -> Array:
        return self.noise_scale * place_BTLD[:, :, 0].astype(compute_dtype(self.config))


class Critic(nn.Module):
    """Embedded sentences -> one number each: how real they look."""

    config: ModelConfig
    gan: GanConfig
    vocab_size: int

    def setup(self) -> None:
        config, gan, d = self.config, self.gan, self.config.n_embd
        init = nn.initializers.normal(d**-0.5)
        self.embed = nn.Embed(self.vocab_size, d, dtype=compute_dtype(config), embedding_init=init)
        self.join = dense(config, d, None, bias=True, std=d**-0.5)
        self.blocks = make_blocks(config, gan.n_critic_layer)
        if gan.pooling == 'none':
            self.class_token = self.param('class_token', init, (d,))
        self.class_blocks = make_blocks(config, gan.n_class_layer, 'class_block')
        self.norm_final = norm(config, None)
        self.head = dense(config, 1, None, bias=True, std=d**-0.5)

    def __call__(self, e_BSD: Array) -> Array:
        """Scores (B,), float32, of embedded words, or of mixtures of them; zeros are no word."""
        b, s, d = e_BSD.shape
        places_BSD = jnp.broadcast_to(sinusoids(jnp.arange(s)[None], d), e_BSD.shape)
        x_BSD = self.join(jnp.concatenate([e_BSD, places_BSD.astype(e_BSD.dtype)], -1))

        def through(blocks: list[Block], x_BSD: Array) -> Array:
            n = x_BSD.shape[1]
            for block in blocks:
                x_BSD, _ = block(x_BSD, jnp.arange(n)[None], jnp.ones((1, 1, n), bool))
            return x_BSD

        x_BSD = through(self.blocks, x_BSD)
        if self.gan.pooling == 'none':
            token_B1D = jnp.broadcast_to(self.class_token, (b, 1, d))
            x_BSD = jnp.concatenate([x_BSD, token_B1D.astype(x_BSD.dtype)], 1)
        x_BSD = self.norm_final(through(self.class_blocks, x_BSD))
        return self.head(POOLINGS[self.gan.pooling](x_BSD))[:, 0].astype(jnp.float32)
