"""The parts of a Transformer, as small Linen modules and pure functions.

The suffix of a name is its shape: B batch, T query time, S key time, D model, N heads, H head
width, F hidden, V vocabulary.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.models.attention import Attention
from gptjax.models.linear import dense, residual_std

# The position of an empty cache slot or of padding: as a key, nobody may see it.
NOBODY = jnp.iinfo(jnp.int32).max


def gelu_exact(x):
    """x times the normal distribution function (Hendrycks and Gimpel, 2016), by way of erf.

    JAX's own goes by way of erfc, which costs XLA's CPU backend a third of a small train step.
    """
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS = {
    'gelu': functools.partial(nn.gelu, approximate=True),
    'gelu_exact': gelu_exact,
    'relu': nn.relu,
    'relu2': lambda x: jnp.square(nn.relu(x)),  # So et al., 2021, https://arxiv.org/abs/2109.08668
}


def sinusoids(pos_BT, n_embd: int):
    """Sine and cosine of the position in turns, (B, T, n_embd); frequencies fall with the width."""
    angle_BTD = pos_BT[..., None] * 10_000.0 ** (-jnp.arange(0, n_embd, 2) / n_embd)
    return jnp.stack([jnp.sin(angle_BTD), jnp.cos(angle_BTD)], -1).reshape(*pos_BT.shape, n_embd)


def with_positions(config: ModelConfig, x_BTD, place_BT, table: nn.Embed | None):
    """Embedded tokens, scaled, with what says where they are (rotary positions come later)."""
    if config.scale_embedding:
        x_BTD *= config.n_embd**0.5
    if config.position == 'learned':
        x_BTD += table(place_BT)
    elif config.position == 'sinusoidal':
        x_BTD += sinusoids(place_BT, config.n_embd).astype(x_BTD.dtype)
    return x_BTD


def norm(config: ModelConfig, name: str | None) -> nn.Module:
    """Layer norm (with the configuration's biases) or RMS norm, statistics in float32."""
    if config.norm == 'rms':
        return nn.RMSNorm(dtype=config.dtype, name=name)
    return nn.LayerNorm(epsilon=1e-5, use_bias=config.bias, dtype=config.dtype, name=name)


class FeedForward(nn.Module):
    """Two linear maps with an activation between, on each position by itself."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD):
        config = self.config
        h_BTF = dense(config, config.n_hidden or 4 * config.n_embd, 'up')(x_BTD)
        h_BTF = ACTIVATIONS[config.activation](h_BTF)
        return dense(config, config.n_embd, 'down', std=residual_std(config))(h_BTF)


def add_branch(config: ModelConfig, x_BTD, branch, norm_branch, drop=lambda y_BTD: y_BTD):
    """The residual stream with what a branch makes of it."""
    match config.norm_place:
        case 'before':
            return x_BTD + drop(branch(norm_branch(x_BTD)))
        case 'after':
            return norm_branch(x_BTD + drop(branch(x_BTD)))
        case 'branch':
            return x_BTD + norm_branch(drop(branch(x_BTD)))


class Block(nn.Module):
    """Attention, then the feed-forward layer, each added to the residual stream.

    With `cross` there is attention over another sequence between them.
    """

    config: ModelConfig
    cross: bool = False

    def setup(self):
        config = self.config
        self.norm_attn, self.attn = norm(config, None), Attention(config)
        if self.cross:
            self.norm_cross, self.cross_attn = norm(config, None), Attention(config)
        self.norm_mlp, self.mlp = norm(config, None), FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def __call__(self, x_BTD, pos_BT, visible_BTS, store=None, other=None, *, train: bool = False):
        """The arguments are those of `Attention`.

        `other` is of the other sequence: keys, values and which of them are visible, (B, 1, S).
        There may be more rows of x than of it: they then belong to it in groups, as beams do.
        """

        drop = functools.partial(self.drop, deterministic=not train)
        add = functools.partial(add_branch, self.config, drop=drop)

        def cross_attend(y_BTD):
            *memory, other_visible_BTS = other
            rows = len(memory[0])
            pos = pos_BT.reshape(rows, -1) if len(y_BTD) > rows else pos_BT
            y = y_BTD.reshape(rows, -1, y_BTD.shape[-1])
            mixed = self.cross_attn(y, pos, other_visible_BTS, memory=memory, train=train)
            return mixed.reshape(y_BTD.shape)

        x_BTD = add(
            x_BTD,
            lambda y_BTD: self.attn(y_BTD, pos_BT, visible_BTS, store, train=train),
            self.norm_attn,
        )
        if self.cross:
            x_BTD = add(x_BTD, cross_attend, self.norm_cross)
        return add(x_BTD, self.mlp, self.norm_mlp)
