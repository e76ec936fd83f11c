"""Linear maps: every matrix product with parameters goes through here."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from gptjax.config import ModelConfig

Axes = int | tuple[int, ...]
KeyPath = tuple[jax.tree_util.DictKey, ...]  # of a parameter: the names of modules


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _multiply(x: Array, w: Array, n: int) -> Array:
    return jax.lax.dot_general(x, w, ((range(x.ndim - n, x.ndim), range(n)), ((), ())))


def _multiply_forward(x: Array, w: Array, n: int) -> tuple[Array, tuple[Array, Array]]:
    return _multiply(x, w, n), (x, w)


def _multiply_backward(n: int, x_and_w: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, w = x_and_w
    # JAX's own rule gives the gradient of w transposed, and its transposition ends up in every use
    # of it: the norm, the clipping and both moments of AdamW stride through memory.
    batch = range(x.ndim - n)
    dw = jax.lax.dot_general(x, dy, ((batch, batch), ((), ())))
    dx = jax.lax.dot_general(dy, w, ((range(len(batch), dy.ndim), range(n, w.ndim)), ((), ())))
    return dx, dw


_multiply.defvjp(_multiply_forward, _multiply_backward)


def multiply(x: Array, w: Array, dims: Any, **_: object) -> Array:
    """`jax.lax.dot_general` of the last axes of x with the first of w, made for its gradient."""
    (contracted, _), _ = dims
    return _multiply(x, w, len(contracted))


def dense(
    config: ModelConfig,
    features: Axes,
    name: str | None,
    *,
    axis: Axes = -1,
    bias: bool | None = None,
    std: float = 0.02,
) -> nn.DenseGeneral:
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


def matrix_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(inputs, outputs) of a kernel, by the name of its module.

    A (D, N, H) kernel has D inputs; that of attention's `out`, (N, H, D), has N x H.
    """
    inputs = math.prod(shape[:-1] if name == 'out' else shape[:1])
    return inputs, math.prod(shape) // inputs


def residual_std(config: ModelConfig) -> float:
    """Initial scale of the last matrix of a residual branch (there are two in each block)."""
    scaled = 0.02 * (2 * config.n_layer) ** -0.5  # GPT-2
    return {'zero': 0.0, 'plain': 0.02, 'scaled': scaled}[config.residual_init]
