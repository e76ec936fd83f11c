"""Losses, always in float32 and always as sums with their counts.

A sum and a count add up over micro-batches, devices and evaluation batches whatever each of them
masks; a mean does not.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

Sums = tuple[Array, Array]  # a sum and how many terms it has
LogitsFn = Callable[[Any, Array], Array]  # (params, x_BTD) -> logits_BTV
Parts = tuple[Array, ...]  # x_PBCD, targets_PBC, counts_PBC, or one part of each


def cross_entropy(
    logits_BTV: Array, targets_BT: Array, lengths_B: Array, smoothing: float = 0.0
) -> Sums:
    """Negative log-likelihood of the targets that count.

    Args:
      logits_BTV: in any float type.
      targets_BT: token ids.
      lengths_B: how many targets of each row count, from its start.
      smoothing: share of each target that is spread evenly over the vocabulary (Szegedy et al.,
        2015, https://arxiv.org/abs/1512.00567).

    Returns:
      (sum in nats, number of targets), both float32 scalars.
    """
    counts_BT = jnp.arange(targets_BT.shape[1]) < lengths_B[:, None]
    total = _sum_nll(logits_BTV, targets_BT, counts_BT)
    if smoothing:
        log_probs_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.float32))
        # Tokens that only pad the vocabulary have no probability, and get no share.
        even_BT = -jnp.mean(log_probs_BTV, axis=-1, where=~jnp.isneginf(log_probs_BTV))
        total = (1 - smoothing) * total + smoothing * jnp.sum(even_BT * counts_BT)
    return total, jnp.sum(counts_BT, dtype=jnp.float32)


def chunked_cross_entropy(
    logits_fn: LogitsFn, params: dict, x_BTD: Array, targets_BT: Array, lengths_B: Array, chunk: int
) -> Sums:
    """`cross_entropy` of logits_fn(params, x_BTD), of which few logits exist at a time.

    Each chunk's gradients are made right after its logits, while these are still there (Hsu et al.,
    2024, https://arxiv.org/abs/2410.10989): no logits are kept, and none are computed twice.

    Args:
      logits_fn: (params, x_BTD) -> logits_BTV, of each position by itself.
      params: what logits_fn needs and nothing else: a gradient of all of it is kept.
      x_BTD, targets_BT, lengths_B: as in `cross_entropy`.
      chunk: positions of each row whose logits are computed at a time.
    """
    b, t = targets_BT.shape
    chunk = min(chunk, t)  # Short rows are not padded up to it.
    parts = -(-t // chunk)

    def split(rows: Array) -> Array:
        # To (parts, B, chunk, ...); what is added is beyond every length.
        padding = [(0, 0), (0, parts * chunk - t)] + [(0, 0)] * (rows.ndim - 2)
        return jnp.pad(rows, padding).reshape(b, parts, chunk, *rows.shape[2:]).swapaxes(0, 1)

    counts_BT = jnp.arange(t) < lengths_B[:, None]
    total = _sum_nll_of_parts(logits_fn, params, tuple(map(split, (x_BTD, targets_BT, counts_BT))))
    return total, jnp.sum(counts_BT, dtype=jnp.float32)


def _sum_nll(logits_BTV: Array, targets_BT: Array, counts_BT: Array) -> Array:
    logits_BTV = logits_BTV.astype(jnp.float32)
    nll_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)
    return jnp.sum(nll_BT * counts_BT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_nll_of_parts(logits_fn: LogitsFn, params: dict, parts: Parts) -> Array:
    def add(total: Array, part: Parts) -> tuple[Array, None]:
        x_BCD, *rest = part
        return total + _sum_nll(logits_fn(params, x_BCD), *rest), None

    return jax.lax.scan(add, jnp.zeros(()), parts)[0]


def _parts_forward(logits_fn: LogitsFn, params: dict, parts: Parts) -> tuple[Array, Any]:
    def add(carry: Any, part: Parts) -> tuple[Any, Array]:
        x_BCD, *rest = part
        value_and_grad = jax.value_and_grad(
            lambda params, x_BCD: _sum_nll(logits_fn(params, x_BCD), *rest), argnums=(0, 1)
        )
        total, (d_params, dx_BCD) = value_and_grad(params, x_BCD)
        return jax.tree.map(jnp.add, carry, (total, d_params)), dx_BCD

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    (total, d_params), dx_PBCD = jax.lax.scan(add, zeros, parts)
    return total, (d_params, dx_PBCD)


def _parts_backward(_: LogitsFn, gradients: Any, d_total: Array) -> tuple[Any, tuple]:
    d_params, dx_PBCD = jax.tree.map(lambda g: (g * d_total).astype(g.dtype), gradients)
    return d_params, (dx_PBCD, None, None)


_sum_nll_of_parts.defvjp(_parts_forward, _parts_backward)
