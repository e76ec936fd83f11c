"""Rules on logits. Each takes float32 logits (B, V) and returns them changed; they compose.

A token that a rule forbids gets -infinity. Every rule keeps the likeliest token. All values are
arrays with one entry for each row, neutral where a row does not want the rule, so requests with
different rules share one compiled program.
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import SampleConfig

Array = jax.Array | np.ndarray  # made by the host, traced on the devices
FEW = 256  # tokens, of which the likeliest are found without sorting all


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of one request; the defaults are plain sampling from the model's softmax."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0  # 1 is off
    min_p: float = 0.0  # 0 is off
    repetition_penalty: float = 1.0  # 1 is off
    # Added to logits, as OpenAI defines them; only the server has these. 0 is off.
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added)

    @classmethod
    def from_config(cls, config: SampleConfig) -> 'Rules':
        """The rules of the knobs of `sample`."""
        names = ('temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty')
        return cls(**{name: getattr(config, name) for name in names})


class RowRules(flax.struct.PyTreeNode):
    """The rules of several rows, and which kinds of work any of them needs.

    Work that no row needs is skipped when the program runs; the program is the same.
    """

    temperature_B: np.ndarray
    top_k_B: np.ndarray
    top_p_B: np.ndarray
    min_p_B: np.ndarray
    repetition_penalty_B: np.ndarray
    presence_penalty_B: np.ndarray
    frequency_penalty_B: np.ndarray
    bias_BV: jax.Array
    draws: np.bool_  # a row is not greedy
    adjusts: np.bool_  # a row has another rule than the temperature
    truncates: np.bool_  # a row has top-k or top-p, which rank the vocabulary

    @classmethod
    def of(cls, rows: Sequence[Rules], vocab_size: int = 1) -> 'RowRules':
        """The rules of rows as arrays; logit_bias needs the vocabulary's size."""

        def array(name: str, dtype: type = np.float32) -> np.ndarray:
            return np.array([getattr(rules, name) for rules in rows], dtype)

        top_k_B, top_p_B = array('top_k', np.int32), array('top_p')
        bias_BV = np.zeros((len(rows), vocab_size), np.float32)
        for row, rules in enumerate(rows):
            for token, added in rules.logit_bias:
                bias_BV[row, token] = added
        others = [dataclasses.replace(rules, temperature=1.0) for rules in rows]
        return cls(
            array('temperature'),
            np.where(top_k_B > 0, top_k_B, np.iinfo(np.int32).max),
            top_p_B,
            array('min_p'),
            array('repetition_penalty'),
            array('presence_penalty'),
            array('frequency_penalty'),
            jnp.asarray(bias_BV),
            draws=np.bool_(any(rules.temperature for rules in rows)),
            adjusts=np.bool_(any(rules != Rules() for rules in others)),
            truncates=np.bool_(top_k_B.any() or (top_p_B < 1).any()),
        )


def choose(
    logits_BV: jax.Array, rules: RowRules, gumbel_BV: jax.Array, counts_BV: jax.Array
) -> jax.Array:
    """Draws one token for each row.

    The rules apply in this order: repetition penalty, bias with presence and frequency penalties,
    temperature, top-k, top-p, min-p. The likeliest token after Gumbel noise is added is a draw from
    the softmax (Gumbel, 1954).

    Args:
      logits_BV: float32, of the model.
      rules: what to apply in each row.
      gumbel_BV: noise, not used in greedy rows.
      counts_BV: how often the row already has each token, or just whether it has it.

    Returns:
      (B,) int32.
    """
    logits_BV = penalize_repetition(logits_BV, counts_BV > 0, rules.repetition_penalty_B)
    logits_BV += rules.bias_BV - rules.frequency_penalty_B[:, None] * counts_BV
    logits_BV -= rules.presence_penalty_B[:, None] * (counts_BV > 0)
    logits_BV = jax.lax.cond(
        rules.truncates,
        lambda x_BV: truncate(x_BV, rules.top_k_B, rules.top_p_B),
        lambda x_BV: x_BV,
        scaled(logits_BV, rules.temperature_B),
    )
    return draw(min_p(logits_BV, rules.min_p_B), rules, gumbel_BV)


def draw(logits_BV: jax.Array, rules: RowRules, gumbel_BV: jax.Array) -> jax.Array:
    """The likeliest tokens (B,), int32, after noise is added in rows that are not greedy."""
    noisy_BV = logits_BV + jnp.where(rules.temperature_B[:, None] > 0, gumbel_BV, 0)
    return jnp.argmax(noisy_BV, axis=-1).astype(jnp.int32)


def scaled(logits_BV: jax.Array, temperature_B: Array) -> jax.Array:
    """Logits over the temperature, where it is not 0, and the likeliest one at 0."""
    # Relative to the likeliest: a tiny temperature then gives -infinity, never +infinity.
    logits_BV -= jnp.max(logits_BV, -1, keepdims=True)
    return logits_BV / jnp.where(temperature_B > 0, temperature_B, 1)[:, None]


def truncate(logits_BV: jax.Array, k_B: Array, p_B: Array) -> jax.Array:
    """Top-k, then top-p (Holtzman et al., 2019, https://arxiv.org/abs/1904.09751).

    Keeps the k likeliest tokens (of equal ones those with lower ids, as argmax does), and of these
    the likeliest until their probability reaches p. The vocabulary is sorted only for rows that
    keep more than FEW tokens: on a CPU that takes as long as the model.
    """
    vocab_size = logits_BV.shape[1]
    whole_B = (k_B >= vocab_size) & (p_B >= 1)

    def kept(n: int) -> tuple[jax.Array, Array]:
        """Which tokens are kept, if these are among the n likeliest; and whether they are."""
        top_BN, id_BN = jax.lax.top_k(logits_BV, n)
        rank_N = jnp.arange(n)
        top_BN = jnp.where(rank_N < k_B[:, None], top_BN, -jnp.inf)
        exp_BN, exp_BV = (jnp.exp(x - top_BN[:, :1]) for x in (top_BN, logits_BV))
        total_B = jnp.where(k_B < vocab_size, exp_BN.sum(-1), exp_BV.sum(-1))
        probs_BN = exp_BN / total_B[:, None]
        sum_BN = jnp.cumsum(probs_BN, axis=-1)
        # The likeliest token in any case, since a tiny p is zero in float32; and all of them with
        # p=1, where rounding may bring the sum of the others to 1.
        among_p_BN = (sum_BN - probs_BN < p_B[:, None]) | (rank_N == 0) | (p_B[:, None] >= 1)
        at_BN = (jnp.arange(len(id_BN))[:, None], id_BN)
        keep_BV = jnp.zeros(logits_BV.shape, bool).at[at_BN].set(among_p_BN & (exp_BN > 0))
        enough_B = (k_B >= vocab_size) & (sum_BN[:, -1] >= p_B)
        return keep_BV | whole_B[:, None], whole_B | (k_B <= n) | enough_B

    keep_BV, known_B = kept(min(FEW, vocab_size))
    if vocab_size > FEW:  # Row by row: what a row keeps does not depend on what others want.
        keep_BV = jax.lax.cond(
            jnp.all(known_B),
            lambda: keep_BV,
            lambda: jnp.where(known_B[:, None], keep_BV, kept(vocab_size)[0]),
        )
    return jnp.where(keep_BV, logits_BV, -jnp.inf)


def min_p(logits_BV: jax.Array, p_B: Array) -> jax.Array:
    """Drops tokens below p times the likeliest's probability (Nguyen et al., 2024)."""
    lowest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.minimum(jnp.log(p_B), 0)[:, None]
    return jnp.where(logits_BV >= lowest_B1, logits_BV, -jnp.inf)


def penalize_repetition(logits_BV: jax.Array, seen_BV: jax.Array, penalty_B: Array) -> jax.Array:
    """Weakens seen tokens: logits above zero are divided by the penalty, others multiplied.

    From CTRL (Keskar et al., 2019, https://arxiv.org/abs/1909.05858).
    """
    penalty_B1 = penalty_B[:, None]
    weaker_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
    return jnp.where(seen_BV, weaker_BV, logits_BV)


def gumbel_noise(key_B: jax.Array, count_B: Array, vocab_size: int) -> jax.Array:
    """Gumbel noise (B, V): a function of each row's key and of how many tokens it has drawn."""
    draw = jax.vmap(lambda key, n: jax.random.gumbel(jax.random.fold_in(key, n), (vocab_size,)))
    return draw(key_B, count_B)
