"""Spectral normalisation as a function of the parameters: nothing to keep between steps."""

import jax
import jax.numpy as jnp
from jax import Array

from gptjax.models.linear import KeyPath, matrix_shape

ITERATIONS = 8


def spectrally_normalized(params: dict) -> dict:
    """Divides each matrix by its largest singular value (Miyato et al., 2018, 1802.05957).

    Power iteration from a fixed start, anew each time, so that a resumed run needs no vectors of
    the one before; the value has a gradient, its vectors have none, as in the source. The table of
    words stays: its scale is the data's.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, w: w / _largest_singular_value(path, w) if path[-1].key == 'kernel' else w,
        params,
    )


def _largest_singular_value(path: KeyPath, kernel: Array) -> Array:
    matrix = kernel.reshape(matrix_shape(path[-2].key, kernel.shape))
    frozen = jax.lax.stop_gradient(matrix)

    def turn(_: int | Array, v: Array) -> Array:
        u = frozen @ v
        v = frozen.T @ (u / (jnp.linalg.norm(u) + 1e-12))
        return v / (jnp.linalg.norm(v) + 1e-12)

    # Not all ones: a matrix whose rows add up to zero would turn that into nothing.
    start = jnp.cos(jnp.arange(matrix.shape[1], dtype=matrix.dtype) + 1)
    v = jax.lax.fori_loop(0, ITERATIONS, turn, start / jnp.linalg.norm(start))
    v = jax.lax.stop_gradient(v)
    u = frozen @ v
    return u / (jnp.linalg.norm(u) + 1e-12) @ matrix @ v + 1e-6
