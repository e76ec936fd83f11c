"""Decoding of source texts, greedily or drawn: one jitted scan, which ends when all rows have.

The encoder's output and the keys and values of cross-attention are computed once for each source;
the rows of a source (samples here, hypotheses in `beam.py`) share them. A row's result depends on
its own source, key and rules alone, whatever the padding and whoever shares the batch.
"""

import functools

import jax
import jax.numpy as jnp

from gptjax.generation.rules import Rules, choose
from gptjax.models.cache import Cache
from gptjax.tasks.translation.seq2seq import Memory, Seq2Seq


def until_done(step, state, done, limit: int, chunk: int):
    """Scans `step` over 0, 1, ... until `done` holds for the state, but not beyond `limit` steps.

    Args:
      step: (state, t) -> state; may be called up to chunk - 1 times too often.
      state: the scan's carry.
      done: state -> whether to stop; asked once in `chunk` steps.
    """

    def go_on(t_and_state):
        t, state = t_and_state
        return (t < limit) & ~done(state)

    def scan(t_and_state):
        t, state = t_and_state
        scanned = lambda state, t: (step(state, t), None)  # noqa: E731
        return t + chunk, jax.lax.scan(scanned, state, t + jnp.arange(chunk))[0]

    return jax.lax.while_loop(go_on, scan, (jnp.int32(0), state))[1]


def slots_for(limit: int, chunk: int) -> int:
    """Places that `until_done` may write to."""
    return -(-limit // chunk) * chunk


def next_logits(model: Seq2Seq, params, token_R, t, cache: Cache, memory: Memory):
    """Float32 logits (R, V) of the token at place t + 1, after the one at t; and the cache."""
    pos_R1 = jnp.full((len(token_R), 1), t, jnp.int32)
    logits_R1V, cache = model.apply(
        params, token_R[:, None], pos_R1, cache, memory, method='decode'
    )
    return logits_R1V[:, 0].astype(jnp.float32), cache


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))
def translate(
    model: Seq2Seq,
    params,
    source_BS,
    lengths_B,
    rules: Rules,
    end: int,
    samples: int,
    limit: int,
    chunk: int,
    seed=0,
):
    """Target token ids of each source, `samples` times, (B x samples, limit).

    Args:
      model: with its variables `params`.
      source_BS, lengths_B: source token ids, and how many of each row are no padding.
      rules: how to choose a token.
      end: the token that begins and ends a target; what follows it in a row means nothing.
      samples: rows of each source; each has a key of its own, made of seed and number.
      limit: tokens of a target, at most block_size.
      chunk: steps between two looks at whether all are done.
    """
    memory = model.apply(params, source_BS, lengths_B, method='encode')
    rows, slots = len(source_BS) * samples, slots_for(limit, chunk)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(samples))

    def gumbel(t):
        if rules.temperature is None:
            return None
        shape = (model.target_vocab_size,)
        draw = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, t), shape))
        return jnp.tile(draw(keys), (len(source_BS), 1))

    def step(state, t):
        token_R, done_R, tokens_RT, seen_RV, cache = state
        logits_RV, cache = next_logits(model, params, token_R, t, cache, memory)
        logits_RV = logits_RV[:, : model.target_vocab_size]
        token_R = choose(logits_RV, rules, gumbel(t), seen_RV)
        if seen_RV is not None:
            seen_RV |= jax.nn.one_hot(token_R, seen_RV.shape[1], dtype=bool)
        tokens_RT = jax.lax.dynamic_update_slice_in_dim(tokens_RT, token_R[:, None], t, axis=1)
        return token_R, done_R | (token_R == end), tokens_RT, seen_RV, cache

    seen_RV = None
    if rules.repetition_penalty is not None:
        seen_RV = jnp.zeros((rows, model.target_vocab_size), bool)
    state = (
        jnp.full(rows, end, jnp.int32),
        jnp.zeros(rows, bool),
        jnp.full((rows, slots), end, jnp.int32),
        seen_RV,
        Cache.empty(model.config, rows, slots),
    )
    tokens_RT = until_done(step, state, lambda state: state[1].all(), limit, chunk)[2]
    return tokens_RT[:, :limit]
