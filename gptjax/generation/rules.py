"""Rules on logits. Each takes (B, V) float32 logits and returns them changed; they compose.

A token that a rule forbids gets minus infinity. Every rule keeps the likeliest token.
"""

import flax.struct
import jax
import jax.numpy as jnp

from gptjax.config import SampleConfig


@flax.struct.dataclass
class Rules:
    """Which rules apply. Changing a value does not recompile, since it is traced; presence does."""

    temperature: float | None = None  # None is greedy
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = flax.struct.field(pytree_node=False, default=None)  # a shape: static
    # Ids that are never drawn.
    hidden: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def from_config(cls, config: SampleConfig, hidden: tuple[int, ...] = ()) -> 'Rules':
        """The rules that are not switched off."""
        return cls(
            hidden=hidden,
            temperature=config.temperature or None,
            top_p=config.top_p if config.top_p < 1 else None,
            min_p=config.min_p or None,
            repetition_penalty=(
                config.repetition_penalty if config.repetition_penalty != 1 else None
            ),
            top_k=config.top_k or None,
        )


def choose(logits_BV, rules: Rules, gumbel_BV, seen_BV):
    """Draws one token a row by the rules.

    Args:
      logits_BV: of the model, in any float type.
      rules: what to apply, in this order: hidden tokens, repetition penalty, temperature, top-k,
        top-p, min-p.
      gumbel_BV: noise; the likeliest token after adding it is a draw (Gumbel, 1954). None is fine
        where nothing is drawn.
      seen_BV: True for the tokens that the row already has.

    Returns:
      (B,) int32.
    """
    logits_BV = logits_BV.astype(jnp.float32)
    if rules.hidden:
        logits_BV = logits_BV.at[:, rules.hidden].set(-jnp.inf)
    if rules.repetition_penalty is not None:
        logits_BV = penalize_repetition(logits_BV, seen_BV, rules.repetition_penalty)
    if rules.temperature is None:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    # Relative to the likeliest, so that a tiny temperature gives minus and never plus infinity.
    logits_BV = (logits_BV - jnp.max(logits_BV, -1, keepdims=True)) / rules.temperature
    if rules.top_k is not None:
        logits_BV = top_k(logits_BV, rules.top_k)
    if rules.top_p is not None:
        logits_BV = top_p(logits_BV, rules.top_p)
    if rules.min_p is not None:
        logits_BV = min_p(logits_BV, rules.min_p)
    return jnp.argmax(logits_BV + gumbel_BV, axis=-1).astype(jnp.int32)


def top_k(logits_BV, k: int):
    """Keeps the k likeliest tokens; of equal ones, those with lower ids, as argmax does."""
    _, kept_BK = jax.lax.top_k(logits_BV, min(k, logits_BV.shape[-1]))
    rows_B1 = jnp.arange(len(logits_BV))[:, None]
    keep_BV = jnp.zeros(logits_BV.shape, bool).at[rows_B1, kept_BK].set(True)
    return jnp.where(keep_BV, logits_BV, -jnp.inf)


def top_p(logits_BV, p):
    """Keeps the likeliest tokens until their probability reaches p (Holtzman et al., 2019)."""
    order_BV = jnp.argsort(logits_BV, axis=-1, descending=True)
    probs_BV = jax.nn.softmax(jnp.take_along_axis(logits_BV, order_BV, axis=-1))
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    rank_BV = jnp.argsort(order_BV, axis=-1)
    # The likeliest one in any case: a tiny p is zero in float32.
    keep_BV = jnp.take_along_axis(before_BV < p, rank_BV, axis=-1) | (rank_BV == 0)
    return jnp.where(keep_BV, logits_BV, -jnp.inf)


def min_p(logits_BV, p):
    """Drops tokens below p times the likeliest's probability (Nguyen et al., 2024)."""
    lowest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.minimum(jnp.log(p), 0)
    return jnp.where(logits_BV >= lowest_B1, logits_BV, -jnp.inf)


def penalize_repetition(logits_BV, seen_BV, penalty):
    """Divides positive logits of seen tokens by the penalty, multiplies negative (CTRL, 2019)."""
    weaker_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(seen_BV, weaker_BV, logits_BV)
