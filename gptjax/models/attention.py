"""Attention: one function for training, prefill and decoding, and who computes it.

The suffixes of names are those of `layers.py`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.errors import UserError
from gptjax.models.linear import dense, residual_std


def attend(q_XTH, k_XSH, v_XSH, visible_XTS, drop_weights=None, sow_weights=None):
    """Scaled dot-product attention (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762).

    Args:
      q_XTH, k_XSH, v_XSH: queries, keys and values in the compute type; X is the rows and heads,
        as two axes or as one.
      visible_XTS: True where a query may see a key; a row without any gives a plain average.
      drop_weights: applied to the weights, a dropout layer for example.
      sow_weights: receives the weights (X, T, S), for those who want to look inside.

    Returns:
      (X, T, H) in the type of the values.
    """
    scores_XTS = jnp.einsum(
        '...TH,...SH->...TS', q_XTH, k_XSH, preferred_element_type=jnp.float32
    ) * (q_XTH.shape[-1] ** -0.5)
    lowest = jnp.finfo(jnp.float32).min
    weights_XTS = nn.softmax(jnp.where(visible_XTS, scores_XTS, lowest))
    if sow_weights is not None:
        sow_weights(weights_XTS)
    weights_XTS = weights_XTS.astype(v_XSH.dtype)
    if drop_weights is not None:
        weights_XTS = drop_weights(weights_XTS)
    return jnp.einsum('...TS,...SH->...TH', weights_XTS, v_XSH)


def why_not_cudnn(config: ModelConfig, train: bool) -> str:
    """Why cuDNN's flash attention cannot compute causal attention here; empty if it can."""
    width = config.n_embd // config.n_head
    if 'cuda' not in _device().client.platform_version:
        return 'there is no NVIDIA GPU'
    if config.dtype == 'float32':
        return 'model.dtype=float32, and it needs bfloat16'
    if width % 8 or width > 128:
        return f'a head is {width} wide, and it needs a multiple of 8 up to 128'
    if train and config.dropout:
        return f'model.dropout={config.dropout}, and it drops no weights'
    return ''


def _device() -> jax.Device:
    return jax.devices()[0]


def uses_cudnn(config: ModelConfig, train: bool) -> bool:
    """Whether causal attention without a cache goes to cuDNN, which JAX never does by itself.

    Raises:
      UserError: the configuration demands it, and it is impossible.
    """
    why_not = why_not_cudnn(config, train)
    if config.attention == 'cudnn' and why_not:
        raise UserError(f'model.attention=cudnn is impossible: {why_not}; use model.attention=auto')
    return config.attention != 'xla' and not why_not


def rotate(x_BNTH, pos_BT):
    """Rotary positions (Su et al., 2021, https://arxiv.org/abs/2104.09864), half against half."""
    half = x_BNTH.shape[-1] // 2
    angle_BTH = pos_BT[..., None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angle_BTH)[:, None], jnp.sin(angle_BTH)[:, None]
    a, b = jnp.split(x_BNTH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BNTH.dtype)


def unit_rms(x):
    """x divided by the root of its mean square over the last axis, in float32 and back."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + 1e-6)).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head attention of queries over themselves and, with a cache, over what came before.

    Cross-attention is the same with the keys and values of another sequence.
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        heads = (config.n_head, config.n_embd // config.n_head)
        self.query = dense(config, heads, None)
        self.key = dense(config, heads, None)
        self.value = dense(config, heads, None)
        self.out = dense(config, config.n_embd, None, axis=(-2, -1), std=residual_std(config))
        self.drop = nn.Dropout(config.dropout)

    def queries(self, x_BTD, pos_BT):
        """(B, N, T, H), placed."""
        return self._place(self.query(x_BTD).swapaxes(1, 2), pos_BT)

    def keys(self, x_BSD, pos_BS):
        """(B, N, S, H), placed."""
        return self._place(self.key(x_BSD).swapaxes(1, 2), pos_BS)

    def keys_values(self, x_BSD, pos_BS, value_BSD=None):
        """What `__call__` may take as its memory: the keys and values of a sequence.

        The values are made of the sequence too, or of another.
        """
        values = self.value(x_BSD if value_BSD is None else value_BSD)
        return self.keys(x_BSD, pos_BS), values.swapaxes(1, 2)

    def _place(self, x_BNTH, pos_BT):
        if self.config.qk_norm:
            x_BNTH = unit_rms(x_BNTH)
        return rotate(x_BNTH, pos_BT) if self.config.position == 'rotary' else x_BNTH

    def __call__(
        self,
        x_BTD,
        pos_BT,
        visible_BTS,
        store=None,
        memory=None,
        *,
        train: bool = False,
        value_BTD=None,
    ):
        """Mixes information between positions.

        Args:
          x_BTD: the input of the layer.
          pos_BT: the place of each query, below block_size.
          visible_BTS: which keys each query may see; None for itself and those before it.
          store: takes new keys and values (each (B, N, T, H)) and returns all of them (each
            (B x N, S, H)); without it attention is over the T new ones alone.
          memory: keys and values (each (B, N, S, H)) to use instead of those of x.
          train: whether dropout is on.
          value_BTD: what the values are made of, if not of x.
        """
        config = self.config
        q_BNTH = self.queries(x_BTD, pos_BT)
        if memory is None:
            memory = self.keys_values(x_BTD, pos_BT, value_BTD)
        k_BNTH, v_BNTH = memory
        plain = not (self.is_initializing() or self.is_mutable_collection('intermediates'))
        if plain and visible_BTS is None and uses_cudnn(config, train):
            qkv_BTNH = (x_BNTH.swapaxes(1, 2) for x_BNTH in (q_BNTH, k_BNTH, v_BNTH))
            mixed_BTNH = jax.nn.dot_product_attention(
                *qkv_BTNH, is_causal=True, implementation='cudnn'
            )
            return self.out(mixed_BTNH)
        if visible_BTS is None:
            visible_BTS = jnp.tri(x_BTD.shape[1], dtype=bool)[None]
        q_XTH, k_XSH, v_XSH, visible_XTS = q_BNTH, k_BNTH, v_BNTH, visible_BTS[:, None]
        if store:
            k_XSH, v_XSH = store(k_BNTH, v_BNTH)
            q_XTH = q_BNTH.reshape(len(k_XSH), *q_BNTH.shape[2:])
            visible_XTS = jnp.repeat(visible_BTS, config.n_head, axis=0)
        mixed_XTH = attend(
            q_XTH,
            k_XSH,
            v_XSH,
            visible_XTS,
            drop_weights=functools.partial(self.drop, deterministic=not train),
            sow_weights=functools.partial(self.sow, 'intermediates', 'weights_BNTS'),
        )
        return self.out(mixed_XTH.reshape(q_BNTH.shape).swapaxes(1, 2))
