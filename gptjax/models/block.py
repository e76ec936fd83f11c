"""The Transformer block and its parts, as small Linen modules and pure functions.

The suffix of a name is its shape: B batch, T query time, S key time, D model, N heads, H head
width, F hidden, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.models.attention import Attention
from gptjax.models.cache import LayerCache
from gptjax.models.linear import compute_dtype, dense, residual_std


def apply(model: nn.Module, variables: dict, *args: Any, **options: Any) -> Any:
    """`model.apply`, whose own type is that of all that any option may make it return."""
    return model.apply(variables, *args, **options)


def gelu_exact(x: jax.Array) -> jax.Array:
    """Exact GELU (Hendrycks and Gimpel, 2016), computed with erf.

    JAX's own uses erfc, which takes a third of a small train step on XLA's CPU backend.
    """
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'gelu': functools.partial(nn.gelu, approximate=True),
    'gelu_exact': gelu_exact,
    'relu': nn.relu,
    'relu2': lambda x: jnp.square(nn.relu(x)),  # So et al., 2021, https://arxiv.org/abs/2109.08668
}


def sinusoids(pos_BT: jax.Array, n_embd: int) -> jax.Array:
    """Sinusoidal positions (B, T, n_embd): sine and cosine in turns, lower frequencies later."""
    angle_BTD = pos_BT[..., None] * 10_000.0 ** (-jnp.arange(0, n_embd, 2) / n_embd)
    return jnp.stack([jnp.sin(angle_BTD), jnp.cos(angle_BTD)], -1).reshape(*pos_BT.shape, n_embd)


def with_positions(
    config: ModelConfig, x_BTD: jax.Array, pos_BT: jax.Array, table: nn.Embed | None
) -> jax.Array:
    """Embedded tokens, scaled, plus learned or sinusoidal positions (rotary ones come later)."""
    if config.scale_embedding:
        x_BTD *= config.n_embd**0.5
    if table is not None:
        x_BTD += table(pos_BT)
    elif config.position == 'sinusoidal':
        x_BTD += sinusoids(pos_BT, config.n_embd).astype(x_BTD.dtype)
    return x_BTD


def position_table(config: ModelConfig) -> nn.Embed | None:
    """The embedding of learned positions; None where positions are not learned."""
    if config.position != 'learned':
        return None
    init = nn.initializers.normal(0.02)
    return nn.Embed(
        config.block_size, config.n_embd, dtype=compute_dtype(config), embedding_init=init
    )


def norm(config: ModelConfig, name: str | None) -> nn.Module:
    """Layer norm (with the configuration's biases) or RMS norm, statistics in float32."""
    if config.norm == 'rms':
        return nn.RMSNorm(dtype=compute_dtype(config), name=name)
    return nn.LayerNorm(epsilon=1e-5, use_bias=config.bias, dtype=compute_dtype(config), name=name)


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, applied to each position separately."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        config = self.config
        h_BTF = dense(config, config.n_hidden or 4 * config.n_embd, 'up')(x_BTD)
        h_BTF = ACTIVATIONS[config.activation](h_BTF)
        return dense(config, config.n_embd, 'down', std=residual_std(config))(h_BTF)


class Block(nn.Module):
    """Attention, then the feed-forward layer, each normalised first (pre-norm)."""

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        self.norm_attn, self.attn = norm(config, None), Attention(config)
        self.norm_mlp, self.mlp = norm(config, None), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def __call__(
        self,
        x_BTD: jax.Array,
        pos_BT: jax.Array,
        mask_BTS: jax.Array | None = None,
        cached: LayerCache | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, LayerCache | None]:
        """The residual stream after the block, and the layer's cache; arguments as `Attention`."""
        drop = functools.partial(self.dropout, deterministic=not train)
        y_BTD, cached = self.attn(self.norm_attn(x_BTD), pos_BT, mask_BTS, cached, train=train)
        x_BTD = x_BTD + drop(y_BTD)
        x_BTD = x_BTD + drop(self.mlp(self.norm_mlp(x_BTD)))
        return x_BTD, cached


class OtherNormBlock(Block):
    """A block with its norms after the sum, norm(x + f(x)), or on the branch, x + norm(f(x))."""

    def __call__(
        self,
        x_BTD: jax.Array,
        pos_BT: jax.Array,
        mask_BTS: jax.Array | None = None,
        cached: LayerCache | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, LayerCache | None]:
        """As `Block`."""
        drop = functools.partial(self.dropout, deterministic=not train)
        add = functools.partial(add_branch, self.config.norm_place, drop=drop)
        attend = functools.partial(self.attn, train=train)
        x_BTD, cached = add(
            x_BTD, lambda y: attend(y, pos_BT, mask_BTS, cached), norm_branch=self.norm_attn
        )
        return add(x_BTD, lambda y: (self.mlp(y), cached), norm_branch=self.norm_mlp)


def add_branch(
    norm_place: str,
    x_BTD: jax.Array,
    branch: Callable,
    *,
    norm_branch: Callable,
    drop: Callable = lambda y_BTD: y_BTD,
) -> tuple[jax.Array, LayerCache | None]:
    """Adds a branch to the residual stream, with its norm at any of the three places.

    `branch` returns (output, cache) as `Attention` does.
    """
    y_BTD, cached = branch(norm_branch(x_BTD) if norm_place == 'before' else x_BTD)
    match norm_place:
        case 'before':
            return x_BTD + drop(y_BTD), cached
        case 'after':
            return norm_branch(x_BTD + drop(y_BTD)), cached
    return x_BTD + norm_branch(drop(y_BTD)), cached


def make_blocks(config: ModelConfig, count: int, prefix: str = 'block') -> list[Block]:
    """`count` blocks of the configured kind, named `<prefix>_0`, `<prefix>_1`, ..."""
    make = Block if config.norm_place == 'before' else OtherNormBlock
    return [make(config, name=f'{prefix}_{i}') for i in range(count)]
