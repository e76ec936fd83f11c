"""Linear maps: every matrix product with parameters goes through here."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from gptjax import chips
from gptjax.config import Config, ModelConfig

Axes = int | tuple[int, ...]
PART = 192  # terms of a sum, see `multiply_row`
CACHED = 6_000_000  # parameters; 3.6M are faster without parts, and 10.7M with them
PRODUCT = 'product'  # by which train.remat finds the products with parameters
KeyPath = tuple[jax.tree_util.DictKey, ...]  # of a parameter: the names of modules


def compute_dtype(config: ModelConfig) -> str:
    """The type of computation, with `auto` resolved for the devices that JAX has."""
    if config.dtype != 'auto':
        return config.dtype
    device = jax.devices()[0]
    if device.platform == 'gpu':  # NVIDIA's first that multiplies bfloat16 is 8.0 (A100).
        return 'bfloat16' if float(device.compute_capability) >= 8 else 'float32'
    return 'float32' if device.platform == 'cpu' else 'bfloat16'


def matmul_dtype(config: Config) -> str:
    """The type to which training rounds what it multiplies with weights, `auto` resolved."""
    if config.train.matmul_dtype != 'auto':
        return config.train.matmul_dtype
    rounds = jax.default_backend() == 'cpu' and chips.BFLOAT16 & chips.cpu_flags()
    return 'bfloat16' if rounds else compute_dtype(config.model)


def multiply(x: Array, w: Array, dims: Any, **_: object) -> Array:
    """`jax.lax.dot_general` of the last axes of x with the first of w, made for its gradient.

    If w has a smaller type than x, everything that is multiplied, also for the gradients, is
    rounded to it, and sums are in the type of x.
    """
    (contracted, _), _ = dims
    return checkpoint_name(_multiply(x, w, len(contracted), False), PRODUCT)


def multiply_row(x: Array, w: Array, dims: Any, **options: object) -> Array:
    """As `multiply`; one row of a CPU is multiplied in parts of the sum.

    XLA's CPU backend then reads the matrix faster from memory, but slower from the cache.
    """
    (contracted, _), _ = dims
    n = len(contracted)
    inputs = math.prod(w.shape[:n])
    if x.size != inputs or x.dtype != w.dtype or jax.default_backend() != 'cpu':
        return multiply(x, w, dims, **options)
    parts = next(p for p in range(max(1, inputs // PART), 0, -1) if inputs % p == 0)
    x_PI, w_PIO = x.reshape(parts, -1), w.reshape(parts, inputs // parts, -1)
    return jnp.einsum('PI,PIO->PO', x_PI, w_PIO).sum(0).reshape(*x.shape[:-n], *w.shape[n:])


def unembed(x_BTD: Array, table_VD: Array) -> Array:
    """Products (B, T, V) with all rows of an embedding table; types as in `multiply`."""
    return _multiply(x_BTD, promote(table_VD, dtype=x_BTD.dtype)[0], 1, True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _multiply(x: Array, w: Array, n: int, outputs_first: bool) -> Array:
    inputs = range(w.ndim - n, w.ndim) if outputs_first else range(n)
    return _dot(x, w, (range(x.ndim - n, x.ndim), inputs), w.dtype)


def _multiply_backward(
    n: int, outputs_first: bool, x_and_w: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    x, w = x_and_w
    batch = range(x.ndim - n)
    outputs = range(w.ndim - n) if outputs_first else range(n, w.ndim)
    dx = _dot(dy, w, (range(len(batch), dy.ndim), outputs), w.dtype)
    # JAX's own rule gives the gradient of w transposed, and its transposition ends up in every use
    # of it: the norm, the clipping and both moments of AdamW stride through memory.
    pair = (dy, x) if outputs_first else (x, dy)
    return dx, _dot(*pair, (batch, batch), w.dtype).astype(w.dtype)


_multiply.defvjp(lambda x, w, *how: (_multiply(x, w, *how), (x, w)), _multiply_backward)


def _dot(a: Array, b: Array, axes: tuple[Sequence[int], Sequence[int]], factors: Any) -> Array:
    return jax.lax.dot_general(
        *(a.astype(factors), b.astype(factors), (axes, ((), ()))), preferred_element_type=a.dtype
    )


def promote(*arrays: Any, dtype: Any = None, **_: object) -> list[Any]:
    """flax's promotion of inputs and parameters to the compute type, but smaller types stay."""
    wanted = jnp.dtype(dtype)
    return [
        x if x is None or x.dtype.itemsize < wanted.itemsize else x.astype(wanted) for x in arrays
    ]


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
        dtype=compute_dtype(config),
        dot_general=multiply_row if _exceeds_cache(config) else multiply,
        promote_dtype=promote,
        kernel_init=nn.initializers.normal(std) if std else nn.initializers.zeros,
        name=name,
    )


def _exceeds_cache(config: ModelConfig) -> bool:
    """Whether the weights of all blocks are too many to stay in a CPU's cache."""
    hidden = config.n_hidden or 4 * config.n_embd
    return config.n_layer * config.n_embd * (4 * config.n_embd + 2 * hidden) > CACHED


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


def is_multiplied(path: KeyPath) -> bool:
    """Whether the variable is a matrix of a product, not a table, bias or scale."""
    return path[-1].key == 'kernel' or [key.key for key in path[-2:]] == ['embed', 'embedding']


def reduced(variables: Any, dtype: str) -> Any:
    """The same variables with all matrices of products in another type."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.astype(dtype) if is_multiplied(path) else x, variables
    )
