"""The parts of a Transformer, as small Linen modules and pure functions.

The suffix of a name is its shape: B batch, T query time, S key time, D model, N heads, H head
width, F hidden, V vocabulary.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ModelConfig
from gptjax.errors import UserError

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
        raise UserError(
            f'model.attention=cudnn is impossible: {why_not}; use --config.model.attention=auto'
        )
    return config.attention != 'xla' and not why_not


def rotate(x_BNTH, pos_BT):
    """Rotary positions (Su et al., 2021, https://arxiv.org/abs/2104.09864), half against half."""
    half = x_BNTH.shape[-1] // 2
    angle_BTH = pos_BT[..., None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angle_BTH)[:, None], jnp.sin(angle_BTH)[:, None]
    a, b = jnp.split(x_BNTH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BNTH.dtype)


def sinusoids(pos_BT, n_embd: int):
    """Sine and cosine of the position in turns, (B, T, n_embd); frequencies fall with the width."""
    angle_BTD = pos_BT[..., None] * 10_000.0 ** (-jnp.arange(0, n_embd, 2) / n_embd)
    return jnp.stack([jnp.sin(angle_BTD), jnp.cos(angle_BTD)], -1).reshape(*pos_BT.shape, n_embd)


def unit_rms(x):
    """x divided by the root of its mean square over the last axis, in float32 and back."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + 1e-6)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _multiply(x, w, n: int):
    return jax.lax.dot_general(x, w, ((range(x.ndim - n, x.ndim), range(n)), ((), ())))


def _multiply_forward(x, w, n):
    return _multiply(x, w, n), (x, w)


def _multiply_backward(n, x_and_w, dy):
    x, w = x_and_w
    # JAX's own rule gives the gradient of w transposed, and its transposition ends up in every use
    # of it: the norm, the clipping and both of Adam's averages stride through memory.
    batch = range(x.ndim - n)
    dw = jax.lax.dot_general(x, dy, ((batch, batch), ((), ())))
    dx = jax.lax.dot_general(dy, w, ((range(len(batch), dy.ndim), range(n, w.ndim)), ((), ())))
    return dx, dw


_multiply.defvjp(_multiply_forward, _multiply_backward)


def multiply(x, w, dims, **_):
    """`jax.lax.dot_general` of the last axes of x with the first of w, made for its gradient."""
    (contracted, _), _ = dims
    return _multiply(x, w, len(contracted))


def dense(config: ModelConfig, features, name: str | None, *, axis=-1, bias=None, std=0.02):
    """A linear map over `axis`, in the compute type.

    Args:
      features: the new axes.
      name: of the parameters; None where `setup` names them.
      bias: whether there is one, if it is not for the configuration to say.
      std: weights start as N(0, std).
    """
    return nn.DenseGeneral(
        features,
        axis=axis,
        use_bias=config.bias if bias is None else bias,
        dtype=config.dtype,
        dot_general=multiply,
        kernel_init=nn.initializers.normal(std) if std else nn.initializers.zeros,
        name=name,
    )


def residual_std(config: ModelConfig) -> float:
    """Initial scale of the last matrix of a residual branch (there are two in each block)."""
    scaled = 0.02 * (2 * config.n_layer) ** -0.5  # GPT-2
    return {'zero': 0.0, 'plain': 0.02, 'scaled': scaled}[config.residual_init]


def norm(config: ModelConfig, name: str | None) -> nn.Module:
    """Layer norm (with the configuration's biases) or RMS norm, statistics in float32."""
    if config.norm == 'rms':
        return nn.RMSNorm(dtype=config.dtype, name=name)
    return nn.LayerNorm(epsilon=1e-5, use_bias=config.bias, dtype=config.dtype, name=name)


class Attention(nn.Module):
    """Multi-head attention of queries over themselves and, with a cache, over what came before."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, pos_BT, visible_BTS, store=None, *, train: bool = False):
        """Mixes information between positions.

        Args:
          x_BTD: the input of the layer.
          pos_BT: the place of each query, below block_size.
          visible_BTS: which keys each query may see; None for itself and those before it.
          store: takes new keys and values (each (B, N, T, H)) and returns all of them (each
            (B x N, S, H)); without it attention is over the T new ones alone.
          train: whether dropout is on.
        """
        config = self.config
        heads = (config.n_head, config.n_embd // config.n_head)

        def project(name):
            return dense(config, heads, name)(x_BTD).swapaxes(1, 2)

        out = dense(config, config.n_embd, 'out', axis=(-2, -1), std=residual_std(config))
        q_BNTH, k_BNTH, v_BNTH = project('query'), project('key'), project('value')
        if config.qk_norm:
            q_BNTH, k_BNTH = unit_rms(q_BNTH), unit_rms(k_BNTH)
        if config.position == 'rotary':
            q_BNTH, k_BNTH = rotate(q_BNTH, pos_BT), rotate(k_BNTH, pos_BT)
        plain = not (self.is_initializing() or self.is_mutable_collection('intermediates'))
        if plain and visible_BTS is None and uses_cudnn(config, train):
            qkv_BTNH = (x_BNTH.swapaxes(1, 2) for x_BNTH in (q_BNTH, k_BNTH, v_BNTH))
            mixed_BTNH = jax.nn.dot_product_attention(
                *qkv_BTNH, is_causal=True, implementation='cudnn'
            )
            return out(mixed_BTNH)
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
            drop_weights=nn.Dropout(config.dropout, deterministic=not train),
            sow_weights=functools.partial(self.sow, 'intermediates', 'weights_BNTS'),
        )
        return out(mixed_XTH.reshape(q_BNTH.shape).swapaxes(1, 2))


class FeedForward(nn.Module):
    """Two linear maps with an activation between, on each position by itself."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD):
        config = self.config
        h_BTF = dense(config, config.n_hidden or 4 * config.n_embd, 'up')(x_BTD)
        h_BTF = ACTIVATIONS[config.activation](h_BTF)
        return dense(config, config.n_embd, 'down', std=residual_std(config))(h_BTF)


class Block(nn.Module):
    """Attention, then the feed-forward layer, each added to the residual stream."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, pos_BT, visible_BTS, store=None, *, train: bool = False):
        """The arguments are those of `Attention`."""
        config = self.config
        attention = Attention(config, name='attn')
        feed_forward = FeedForward(config, name='mlp')

        def add(x_BTD, branch, norm_branch):
            drop = nn.Dropout(config.dropout, deterministic=not train)
            match config.norm_place:
                case 'before':
                    return x_BTD + drop(branch(norm_branch(x_BTD)))
                case 'after':
                    return norm_branch(x_BTD + drop(branch(x_BTD)))
                case 'branch':
                    return x_BTD + norm_branch(drop(branch(x_BTD)))

        x_BTD = add(
            x_BTD,
            lambda y_BTD: attention(y_BTD, pos_BT, visible_BTS, store, train=train),
            norm(config, 'norm_attn'),
        )
        return add(x_BTD, feed_forward, norm(config, 'norm_mlp'))
