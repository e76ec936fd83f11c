"""The losses of the two players and the gradient penalty."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def critic_loss(kind: str, real_B: Array, fake_B: Array) -> Array:
    """What the critic lowers, a mean over the rows.

    'wgan' is the Wasserstein distance's negative (Arjovsky et al., 2017,
    https://arxiv.org/abs/1701.07875), 'minimax' the cross-entropy of real against fake (Goodfellow
    et al., 2014, https://arxiv.org/abs/1406.2661), with scores as logits.
    """
    if kind == 'wgan':
        return jnp.mean(fake_B) - jnp.mean(real_B)
    return jnp.mean(jax.nn.softplus(-real_B)) + jnp.mean(jax.nn.softplus(fake_B))


def generator_loss(kind: str, fake_B: Array) -> Array:
    """What the generator lowers: the non-saturating form, from the sources of `critic_loss`."""
    return -jnp.mean(fake_B) if kind == 'wgan' else jnp.mean(jax.nn.softplus(-fake_B))


def gradient_penalty(score_fn: Callable[[Array], Array], x_BSD: Array, table_VD: Array) -> Array:
    """Mean of (norm of the gradient - 1)^2 (Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028).

    Args:
      score_fn: (B, S, D) -> scores (B,), each of its own row alone.
      x_BSD: where to look, between real and fake: mixtures of the table's rows.
      table_VD: the norm is that of the gradient with respect to the weights of the mixtures
        (B, S, V), which never exist: its square is g T'T g. With respect to x it would be in vain,
        since the table is learnt and can grow.
    """
    g_BSD = jax.grad(lambda x_BSD: score_fn(x_BSD).sum())(x_BSD).astype(jnp.float32)
    gram_DE = table_VD.T.astype(jnp.float32) @ table_VD.astype(jnp.float32)
    square_B = jnp.einsum('BSD,DE,BSE->B', g_BSD, gram_DE, g_BSD)
    # The root has no gradient at zero, where a critic that sees nothing is.
    return jnp.mean(jnp.square(jnp.sqrt(square_B + 1e-12) - 1))
