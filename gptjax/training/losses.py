"""Losses, always in float32 and always as sums with their counts.

A sum and a count add up over micro-batches, devices and evaluation batches whatever each of them
masks; a mean does not.
"""

import jax.numpy as jnp
import optax


def cross_entropy(logits_BTV, targets_BT, lengths_B):
    """Negative log-likelihood of the targets that count.

    Args:
      logits_BTV: in any float type.
      targets_BT: token ids.
      lengths_B: how many targets of each row count, from its start.

    Returns:
      (sum in nats, number of targets), both float32 scalars.
    """
    nll_BT = optax.softmax_cross_entropy_with_integer_labels(
        logits_BTV.astype(jnp.float32), targets_BT
    )
    counts_BT = jnp.arange(targets_BT.shape[1]) < lengths_B[:, None]
    return jnp.sum(nll_BT * counts_BT), jnp.sum(counts_BT, dtype=jnp.float32)
