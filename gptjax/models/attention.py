"""Attention: one function for training, prefill and decoding.

The suffixes of names are those of `block.py`; X is rows and heads, as two axes or as one.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.errors import UserError
from gptjax.models.cache import LayerCache
from gptjax.models.linear import compute_dtype, dense, residual_std
from gptjax.parallel.mesh import split_by_rows


def causal_mask(pos_BT: jax.Array, key_pos_BS: jax.Array) -> jax.Array:
    """The causal mask (B, T, S): True where a query may attend to a key, by their positions.

    The same rule serves training, prefill, decoding with a cache, and padding, whose position is
    `cache.NO_POSITION`.
    """
    return pos_BT[:, :, None] >= key_pos_BS[:, None, :]


def attend(
    q_XTH: jax.Array,
    k_XSH: jax.Array,
    v_XSH: jax.Array,
    mask_XTS: jax.Array,
    *,
    drop_weights: Callable | None = None,
    sow_weights: Callable | None = None,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762).

    Args:
      q_XTH, k_XSH, v_XSH: queries, keys and values in the compute type. X is rows and heads: two
        axes, or one (M = B x N).
      mask_XTS: True where a query may attend to a key; a row without any key gives the mean of all
        values.
      drop_weights: applied to the weights, for example a dropout layer.
      sow_weights: receives the weights (X, T, S), to look inside.

    Returns:
      (X, T, H) in the type of the values.
    """
    scores_XTS = jnp.einsum(
        '...TH,...SH->...TS', q_XTH, k_XSH, preferred_element_type=jnp.float32
    ) * (q_XTH.shape[-1] ** -0.5)
    lowest = jnp.finfo(jnp.float32).min
    weights_XTS = nn.softmax(jnp.where(mask_XTS, scores_XTS, lowest))
    if sow_weights is not None:
        sow_weights(weights_XTS)
    weights_XTS = weights_XTS.astype(v_XSH.dtype)
    if drop_weights is not None:
        weights_XTS = drop_weights(weights_XTS)
    return jnp.einsum('...TS,...SH->...TH', weights_XTS, v_XSH)


def why_not_cudnn(config: ModelConfig, train: bool, *, nvidia: bool | None = None) -> str:
    """Why cuDNN's flash attention cannot be used, here or (`nvidia`) elsewhere; empty if it can."""
    width = config.n_embd // config.n_head
    is_there = 'cuda' in _device().client.platform_version if nvidia is None else nvidia
    if not is_there:
        return 'there is no NVIDIA GPU'
    if compute_dtype(config) == 'float32':
        return 'the model computes in float32, and it needs bfloat16'
    if width % 8 or width > 128:
        return f'a head is {width} wide, and it needs a multiple of 8 up to 128'
    if train and config.dropout:
        return f'model.dropout={config.dropout}, and it drops no weights'
    return ''


def _device() -> jax.Device:
    return jax.devices()[0]


def uses_cudnn(config: ModelConfig, train: bool) -> bool:
    """Whether causal attention without a cache uses cuDNN (JAX never chooses it by itself).

    Raises:
      UserError: the configuration demands it, and it is impossible.
    """
    why_not = why_not_cudnn(config, train)
    if config.attention == 'cudnn' and why_not:
        raise UserError(f'model.attention=cudnn is impossible: {why_not}; use model.attention=auto')
    return config.attention != 'xla' and not why_not


def rotate(x_BNTH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Rotary positions (Su et al., 2021, https://arxiv.org/abs/2104.09864).

    Dimension i of the first half of a head is rotated with dimension i of the second half.
    """
    half = x_BNTH.shape[-1] // 2
    angle_BTH = pos_BT[..., None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angle_BTH)[:, None], jnp.sin(angle_BTH)[:, None]
    a, b = jnp.split(x_BNTH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BNTH.dtype)


def unit_rms(x: jax.Array) -> jax.Array:
    """x divided by its root mean square over the last axis, computed in float32."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + 1e-6)).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head attention, over the sequence itself or over the keys and values of another one."""

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        heads = (config.n_head, config.n_embd // config.n_head)
        self.query = dense(config, heads, None)
        self.key = dense(config, heads, None)
        self.value = dense(config, heads, None)
        self.out = dense(config, config.n_embd, None, axis=(-2, -1), std=residual_std(config))
        self.drop = nn.Dropout(config.dropout)

    def queries(self, x_BTD: jax.Array, pos_BT: jax.Array) -> jax.Array:
        """Queries (B, N, T, H), with rotary positions if the model has them."""
        return self._normalize_and_rotate(self.query(x_BTD).swapaxes(1, 2), pos_BT)

    def keys(self, x_BSD: jax.Array, pos_BS: jax.Array) -> jax.Array:
        """Keys (B, N, S, H), with rotary positions if the model has them."""
        return self._normalize_and_rotate(self.key(x_BSD).swapaxes(1, 2), pos_BS)

    def keys_values(
        self, x_BSD: jax.Array, pos_BS: jax.Array, value_BSD: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Keys of x and values of x (or of value_BSD), (B, N, S, H) each."""
        values = self.value(x_BSD if value_BSD is None else value_BSD)
        return self.keys(x_BSD, pos_BS), values.swapaxes(1, 2)

    def _normalize_and_rotate(self, x_BNTH: jax.Array, pos_BT: jax.Array) -> jax.Array:
        if self.config.qk_norm:
            x_BNTH = unit_rms(x_BNTH)
        return rotate(x_BNTH, pos_BT) if self.config.position == 'rotary' else x_BNTH

    def __call__(
        self,
        x_BTD: jax.Array,
        pos_BT: jax.Array,
        mask_BTS: jax.Array | None = None,
        cached: LayerCache | None = None,
        *,
        memory: tuple[jax.Array, jax.Array] | None = None,
        value_BTD: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Mixes information between positions.

        Args:
          x_BTD: the input of the layer.
          pos_BT: the position of each query, below block_size.
          mask_BTS: True where a query may attend to a key; None is the causal mask of T tokens in
            order.
          cached: keys and values of earlier tokens; the new ones are written to it, and attention
            is over all of them.
          memory: keys and values (B, N, S, H) to use instead of those of x.
          value_BTD: what the values are computed from, if not from x.
          train: whether dropout is on.

        Returns:
          (B, T, D), and the layer's cache with the new keys and values (None without a cache).
        """
        config = self.config
        q_BNTH = self.queries(x_BTD, pos_BT)
        if memory is None:
            memory = self.keys_values(x_BTD, pos_BT, value_BTD)
        k_BNSH, v_BNSH = memory
        looked_into = self.is_initializing() or self.is_mutable_collection('intermediates')
        if mask_BTS is None and not looked_into and uses_cudnn(config, train):
            qkv_BTNH = (x_BNTH.swapaxes(1, 2) for x_BNTH in (q_BNTH, k_BNSH, v_BNSH))
            y_BTNH = jax.nn.dot_product_attention(*qkv_BTNH, is_causal=True, implementation='cudnn')
            return self.out(y_BTNH), cached
        if mask_BTS is None:
            in_order_1T = jnp.arange(x_BTD.shape[1])[None]
            mask_BTS = causal_mask(in_order_1T, in_order_1T)
        if cached is None:
            inputs = q_BNTH, k_BNSH, v_BNSH, mask_BTS[:, None]
        else:
            # Heads are split as in the parameters, or XLA would gather those for each token.
            q_BNTH, k_BNSH, v_BNSH = (split_by_rows(x, 'tensor') for x in (q_BNTH, k_BNSH, v_BNSH))
            cached = cached.write(k_BNSH, v_BNSH)
            q_MTH = q_BNTH.reshape(-1, *q_BNTH.shape[2:])
            mask_MTS = jnp.repeat(mask_BTS, config.n_head, axis=0)
            inputs = q_MTH, cached.k_MSH, cached.v_MSH, mask_MTS
        y_XTH = attend(
            *inputs,
            drop_weights=functools.partial(self.drop, deterministic=not train),
            sow_weights=functools.partial(self.sow, 'intermediates', 'weights_BNTS'),
        )
        y_BNTH = y_XTH.reshape(q_BNTH.shape)
        if cached is not None:
            y_BNTH = split_by_rows(y_BNTH, 'tensor')
        return self.out(y_BNTH.swapaxes(1, 2)), cached
