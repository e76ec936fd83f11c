"""Device side of generation: contexts are put into rows, then chunks of tokens are decoded.

All rows of a batch take part in every step, each with its own position, key, rules and budget
(`Counters`). A row that has to wait for the host (its context is full, or it is done) is computed
too, but at positions that no query attends to. What a row draws is therefore a function of its own
prompt, key and rules, whatever the chunk length, the slot and the other rows.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gptjax.generation.rules import Array, RowRules, choose, gumbel_noise
from gptjax.models.block import apply
from gptjax.models.cache import NO_POSITION, Cache
from gptjax.models.decoder import Decoder


class Rows(flax.struct.PyTreeNode):
    """What the devices keep of a batch of texts between chunks."""

    cache: Cache
    logits_BV: jax.Array  # float32, of the next token
    seen_BV: jax.Array  # bool, the tokens of the text so far


@functools.partial(jax.jit, static_argnames=('model', 'batch_size', 'slots'))
def empty_rows(model: Decoder, batch_size: int, slots: int) -> Rows:
    """Rows without any text, in one program: array by array takes a millisecond and a half."""
    shape = (batch_size, model.vocab_size)
    cache = Cache.empty(model.config, batch_size, slots)
    return Rows(cache, jnp.zeros(shape), jnp.zeros(shape, bool))


class Contexts(flax.struct.PyTreeNode):
    """New contexts for some rows: R of them, right-aligned."""

    tokens_RT: np.ndarray
    pos_RT: np.ndarray
    seen_RV: np.ndarray  # bool, the tokens of the whole text of each
    replaced_B: np.ndarray  # bool, the rows that get one
    source_B: np.ndarray  # int32, which of the R each of these gets; not read if R = B


class Counters(flax.struct.PyTreeNode):
    """What the host tells of each row with every chunk, all int32."""

    seed_B: np.ndarray
    sample_B: np.ndarray  # the row's number among those of its prompt; with the seed its key
    length_B: np.ndarray  # tokens in the context
    drawn_B: np.ndarray  # tokens drawn so far
    wanted_B: np.ndarray  # tokens to draw in this chunk


@functools.partial(jax.jit, static_argnames='model', donate_argnames='rows')
def place(model: Decoder, params: dict, rows: Rows, contexts: Contexts, slot: jax.Array) -> Rows:
    """Computes new contexts and puts them into their rows, in the slots before `slot`.

    Args:
      model: with its variables `params`.
      rows: donated.
      contexts: if there is one for every row, context r is that of row r.
      slot: the slot that is written next; other rows must not be in use if it changes.
    """
    (n_new, width), batch = contexts.tokens_RT.shape, len(contexts.replaced_B)
    slots = rows.cache.pos_BS.shape[1]
    fresh = Cache.empty(model.config, n_new, width)
    x_RTD, fresh = apply(model, params, contexts.tokens_RT, contexts.pos_RT, fresh, method='hidden')
    logits_RV = next_logits(model, apply(model, params, x_RTD[:, -1:], method='logits'))

    def of_rows(new: Array) -> jax.Array:  # (R x n, ...) -> (B x n, ...); n is 1 or n_head.
        if n_new == batch:
            return jnp.asarray(new)
        grouped = new.reshape(n_new, -1, *new.shape[1:])[contexts.source_B]
        return grouped.reshape(-1, *new.shape[1:])

    def merge(new: Array, old: jax.Array) -> jax.Array:
        replaced = jnp.repeat(contexts.replaced_B, len(old) // batch)
        return jnp.where(replaced.reshape(-1, *[1] * (old.ndim - 1)), of_rows(new), old)

    def merge_slots(new: jax.Array, old: jax.Array, fill: int = 0) -> jax.Array:
        widths = [(0, 0), (0, slots - width)] + [(0, 0)] * (new.ndim - 2)
        padded = jnp.pad(new, widths, constant_values=fill)
        return merge(jnp.roll(padded, slot - width, axis=1), old)

    old = rows.cache
    cache = Cache(
        jax.tree.map(merge_slots, fresh.k_MSH, old.k_MSH),
        jax.tree.map(merge_slots, fresh.v_MSH, old.v_MSH),
        merge_slots(fresh.pos_BS, old.pos_BS, fill=NO_POSITION),
        jax.tree.map(merge_slots, fresh.tokens_BS, old.tokens_BS),
        jnp.int32(slot),
    )
    return Rows(cache, merge(logits_RV, rows.logits_BV), merge(contexts.seen_RV, rows.seen_BV))


@functools.partial(jax.jit, static_argnames='slots')
def widen(rows: Rows, slots: int) -> Rows:
    """The same rows with more slots."""
    cache, used = rows.cache, rows.cache.pos_BS.shape[1]

    def wider(old: jax.Array, fill: int = 0) -> jax.Array:
        widths = [(0, 0), (0, slots - used)] + [(0, 0)] * (old.ndim - 2)
        oldest_first = jnp.roll(old, -cache.slot, axis=1)
        return jnp.pad(oldest_first, widths, constant_values=fill)

    wide = jax.tree.map(wider, cache.replace(pos_BS=None, slot=None))
    pos_BS = wider(cache.pos_BS, NO_POSITION)
    return rows.replace(cache=wide.replace(pos_BS=pos_BS, slot=jnp.int32(used)))


@functools.partial(jax.jit, static_argnames=('model', 'chunk', 'banned'), donate_argnames='rows')
def decode_chunk(
    model: Decoder,
    params: dict,
    rows: Rows,
    *,
    counters: Counters,
    rules: RowRules,
    scores: np.bool_,
    chunk: int,
    banned: tuple[int, ...] = (),
) -> tuple[Rows, jax.Array, jax.Array]:
    """Draws up to `chunk` tokens for each row.

    Args:
      model: with its variables `params`.
      rows: donated.
      counters: positions, keys and budgets.
      rules: how to draw.
      scores: whether log-probabilities are wanted; otherwise they may be zero.
      chunk: steps of the scan.
      banned: ids that are never drawn.

    Returns:
      The rows, the tokens (chunk, B), of which a row's first `wanted_B` count, and their
      log-probabilities under the model, before any rule.
    """
    shape = (chunk, *rows.logits_BV.shape)

    def draw_noise() -> jax.Array:
        # All noise of the chunk at once: on a CPU each draw is a loop of a hundred tiny programs.
        key_B = jax.vmap(lambda seed, i: jax.random.fold_in(jax.random.key(seed), i))(
            counters.seed_B, counters.sample_B
        )
        count_KB = counters.drawn_B + jnp.arange(chunk)[:, None]
        return jax.vmap(gumbel_noise, (None, 0, None))(key_B, count_KB, model.vocab_size)

    gumbel_KBV = jax.lax.cond(rules.draws, draw_noise, lambda: jnp.zeros(shape))
    row_B = jnp.arange(shape[1])

    def step(rows: Rows, i_and_gumbel: tuple) -> tuple[Rows, tuple[jax.Array, jax.Array]]:
        i, gumbel_BV = i_and_gumbel
        active_B = i < counters.wanted_B
        logits_BV = rows.logits_BV
        if banned:
            logits_BV = logits_BV.at[:, banned].set(-jnp.inf)
        token_B = choose(logits_BV, rules, gumbel_BV, rows.seen_BV)
        pos_B = jnp.where(active_B, counters.length_B + i, NO_POSITION)
        logits_BTV, cache = apply(model, params, token_B[:, None], pos_B[:, None], rows.cache)
        logits_BV = jnp.where(active_B[:, None], next_logits(model, logits_BTV), rows.logits_BV)
        # One branch for both, since each costs time at every step.
        score_B, seen_BV = jax.lax.cond(
            rules.adjusts | scores,
            lambda x_BV, seen_BV: (
                log_probability(x_BV, token_B),
                seen_BV.at[row_B, token_B].max(active_B),
            ),
            lambda x_BV, seen_BV: (x_BV[:, 0] * 0, seen_BV),
            rows.logits_BV,
            rows.seen_BV,
        )
        return Rows(cache, logits_BV, seen_BV), (token_B, score_B)

    rows, (tokens_KB, scores_KB) = jax.lax.scan(step, rows, (jnp.arange(chunk), gumbel_KBV))
    return rows, tokens_KB, scores_KB


def log_probability(logits_BV: jax.Array, token_B: jax.Array) -> jax.Array:
    """Log-probabilities (B,) of tokens in the softmax of the logits."""
    # Not by indexing, which XLA's CPU backend makes a loop over rows.
    is_token_BV = jnp.arange(logits_BV.shape[1]) == token_B[:, None]
    chosen_B = jnp.sum(jnp.where(is_token_BV, logits_BV, 0), axis=-1)
    return chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)


def next_logits(model: Decoder, logits_BTV: jax.Array) -> jax.Array:
    """Float32 logits (B, V) after the only position, without ids that pad the table."""
    return logits_BTV[:, 0, : model.vocab_size].astype(jnp.float32)
