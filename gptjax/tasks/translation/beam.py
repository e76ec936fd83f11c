"""Beam search: the likeliest targets of a source, by log-probability and length.

A hypothesis is finished when the end token is among the `width` best candidates of its step. A
source is done when it has `width` finished hypotheses or has reached the limit. A beam of one is
greedy decoding.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from gptjax.models.block import apply
from gptjax.models.cache import Cache
from gptjax.tasks.translation.decode import Decoding, next_logits, until_done
from gptjax.tasks.translation.seq2seq import Seq2Seq


class _Beam(flax.struct.PyTreeNode):
    """Hypotheses that go on (live) and those that are finished, K of each for every source."""

    cache: Cache  # of the live ones, rows B x K
    live_BKT: Array
    live_score_BK: Array  # log-probabilities
    done_BKT: Array
    done_score_BK: Array  # normalised by length; minus infinity where there is none
    closed_B: Array  # sources that nothing is added to any more


def length_norm(length: Array, penalty: float) -> Array:
    """What a log-probability is divided by (Wu et al., 2016, https://arxiv.org/abs/1609.08144)."""
    return ((5.0 + length) / 6.0) ** penalty


@functools.partial(jax.jit, static_argnames=('model', 'width', 'decoding'))
def beam_search(
    model: Seq2Seq,
    params: dict,
    source_BS: Array,
    *,
    lengths_B: Array,
    width: int,
    decoding: Decoding,
    penalty: float = 0.6,
) -> tuple[Array, Array]:
    """The `width` best targets of each source that were found, best first.

    A hypothesis that reaches the limit counts as finished.

    Args:
      lengths_B: tokens of each source; the rest of its row is padding.
      width: hypotheses that are followed at a time.
      penalty: the exponent of `length_norm`.

    Returns:
      Token ids (B, width, limit), after the end token that token again, and scores (B, width).
    """
    b, k, v = len(source_BS), width, model.target_vocab_size
    end, limit, slots = decoding.end, decoding.limit, decoding.slots
    memory = apply(model, params, source_BS, lengths_B, method='encode')

    def step(beam: _Beam, t: Array) -> _Beam:
        last_R = beam.live_BKT[:, :, jnp.maximum(t - 1, 0)].reshape(-1)  # at first the end token
        logits_RV, cache = next_logits(model, params, last_R, t=t, cache=beam.cache, memory=memory)
        log_probs_BKV = jax.nn.log_softmax(decoding.ban(logits_RV)).reshape(b, k, v)
        scores = (beam.live_score_BK[:, :, None] + log_probs_BKV).reshape(b, k * v)
        # At most one candidate of each hypothesis ends it, so of 2 K at least K go on.
        score_BC, index_BC = jax.lax.top_k(scores, min(2 * k, k * v))
        parent_BC, token_BC = index_BC // v, (index_BC % v).astype(jnp.int32)
        tokens_BCT = _take(beam.live_BKT, parent_BC).at[:, :, t].set(token_BC)
        ends_BC = token_BC == end
        among_best_C = jnp.arange(score_BC.shape[1]) < k
        finishes_BC = among_best_C & (ends_BC | (t >= limit - 1)) & jnp.isfinite(score_BC)
        finishes_BC &= ~beam.closed_B[:, None]

        new_BC = jnp.where(finishes_BC, score_BC / length_norm(t + 1.0, penalty), -jnp.inf)
        all_done = jnp.concatenate([beam.done_score_BK, new_BC], axis=1)
        done_score_BK, chosen_BK = jax.lax.top_k(all_done, k)
        done_BKT = _take(jnp.concatenate([beam.done_BKT, tokens_BCT], axis=1), chosen_BK)

        live_score_BK, chosen_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, score_BC), k)
        chosen_parent_BK = jnp.take_along_axis(parent_BC, chosen_BK, axis=1)
        return _Beam(
            _reorder(cache, chosen_parent_BK),
            _take(tokens_BCT, chosen_BK),
            live_score_BK,
            done_BKT,
            done_score_BK,
            jnp.isfinite(done_score_BK).all(1) | (t >= limit - 1),
        )

    nothing_BK = jnp.full((b, k), -jnp.inf)
    empty_BKT = jnp.full((b, k, slots), end, jnp.int32)
    beam = _Beam(
        Cache.empty(model.config, b * k, slots),
        empty_BKT,
        nothing_BK.at[:, 0].set(0.0),  # All begin alike; K equal ones would stay equal.
        empty_BKT,
        nothing_BK,
        jnp.zeros(b, bool),
    )
    beam = until_done(step, beam, lambda beam: beam.closed_B.all(), decoding)
    return beam.done_BKT[:, :, :limit], beam.done_score_BK


def _take(rows_BKT: Array, index_BC: Array) -> Array:
    return jnp.take_along_axis(rows_BKT, index_BC[:, :, None], axis=1)


def _reorder(cache: Cache, parent_BK: Array) -> Cache:
    """The cache of hypotheses that go on from their parents'; places are the same for all."""
    b, k = parent_BK.shape

    def reorder(rows: Array) -> Array:  # Rows, or rows x heads.
        x = rows.reshape(b, k, -1, *rows.shape[1:])
        index = parent_BK.reshape(b, k, *[1] * (x.ndim - 2))
        return jnp.take_along_axis(x, index, axis=1).reshape(rows.shape)

    k_MSH, v_MSH, tokens_BS = jax.tree.map(reorder, (cache.k_MSH, cache.v_MSH, cache.tokens_BS))
    return cache.replace(k_MSH=k_MSH, v_MSH=v_MSH, tokens_BS=tokens_BS)
