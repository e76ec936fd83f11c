"""Decoding of source texts, greedily or drawn: one jitted scan, which ends when all rows have.

The encoder's output and the keys and values of cross-attention are computed once for each source;
the rows of a source (samples here, hypotheses in `beam.py`) share them. A row's result depends on
its own source, key and rules alone, whatever the padding and whoever shares the batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gptjax.generation.rules import RowRules, choose, gumbel_noise
from gptjax.models.block import apply
from gptjax.models.cache import Cache
from gptjax.tasks.translation.seq2seq import Memory, Seq2Seq


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How targets are decoded, whichever way tokens are chosen."""

    end: int  # the token that begins and ends a target
    limit: int  # most tokens of a target, at most block_size
    chunk: int  # steps between two looks at whether all rows are done
    banned: tuple[int, ...] = ()  # ids that are never chosen

    @property
    def slots(self) -> int:
        """Slots that a cache needs, since whole chunks are decoded."""
        return -(-self.limit // self.chunk) * self.chunk

    def ban(self, logits_RV: Array) -> Array:
        """The logits with -infinity for banned ids."""
        return logits_RV.at[:, self.banned].set(-jnp.inf) if self.banned else logits_RV


def until_done(step: Callable, state: Any, done: Callable, decoding: Decoding) -> Any:
    """Scans `step`, (state, t) -> state, over t = 0, 1, ... until `done(state)` or the limit.

    `done` is asked once in a chunk, so there may be up to chunk - 1 steps after it holds.
    """

    def go_on(t_and_state: tuple) -> Array:
        t, state = t_and_state
        return (t < decoding.limit) & ~done(state)

    def scan(t_and_state: tuple) -> tuple:
        t, state = t_and_state
        times = t + jnp.arange(decoding.chunk)
        state, _ = jax.lax.scan(lambda state, t: (step(state, t), None), state, times)
        return t + decoding.chunk, state

    return jax.lax.while_loop(go_on, scan, (jnp.int32(0), state))[1]


def next_logits(
    model: Seq2Seq, params: dict, token_R: Array, *, t: Array, cache: Cache, memory: Memory
) -> tuple[Array, Cache]:
    """Float32 logits (R, V) of the token at position t + 1, after the one at t; and the cache."""
    token_R1 = token_R[:, None]
    inputs = token_R1, jnp.full_like(token_R1, t), cache, memory
    logits_R1V, cache = apply(model, params, *inputs, method='decode')
    return logits_R1V[:, 0, : model.target_vocab_size].astype(jnp.float32), cache


@functools.partial(jax.jit, static_argnames=('model', 'samples', 'decoding'))
def translate(
    model: Seq2Seq,
    params: dict,
    source_BS: Array,
    *,
    lengths_B: Array,
    rules: RowRules,
    samples: int,
    decoding: Decoding,
    seed: int = 0,
) -> Array:
    """Target token ids of each source, `samples` times, (B x samples, limit).

    What follows the end token in a row means nothing.

    Args:
      lengths_B: tokens of each source; the rest of its row is padding.
      rules: how to choose a token, one entry for all rows.
      samples: rows for each source; each has a key of its own, made of seed and number.
    """
    memory = apply(model, params, source_BS, lengths_B, method='encode')
    rows, vocab_size = len(source_BS) * samples, model.target_vocab_size
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(samples))

    def draw_noise(t: Array) -> Array:
        noise = gumbel_noise(keys, jnp.full(samples, t), vocab_size)
        return jnp.tile(noise, (len(source_BS), 1))

    def step(state: tuple, t: Array) -> tuple:
        token_R, done_R, tokens_RT, seen_RV, cache = state
        logits_RV, cache = next_logits(model, params, token_R, t=t, cache=cache, memory=memory)
        nothing = jnp.zeros((rows, vocab_size))
        gumbel_RV = jax.lax.cond(rules.draws, draw_noise, lambda _: nothing, t)
        token_R = choose(decoding.ban(logits_RV), rules, gumbel_RV, seen_RV)
        seen_RV = seen_RV.at[jnp.arange(rows), token_R].set(True)
        tokens_RT = jax.lax.dynamic_update_slice_in_dim(tokens_RT, token_R[:, None], t, axis=1)
        return token_R, done_R | (token_R == decoding.end), tokens_RT, seen_RV, cache

    state = (
        jnp.full(rows, decoding.end, jnp.int32),
        jnp.zeros(rows, bool),
        jnp.full((rows, decoding.slots), decoding.end, jnp.int32),
        jnp.zeros((rows, vocab_size), bool),
        Cache.empty(model.config, rows, decoding.slots),
    )
    tokens_RT = until_done(step, state, lambda state: state[1].all(), decoding)[2]
    return tokens_RT[:, : decoding.limit]
