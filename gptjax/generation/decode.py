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

from gptjax.generation.rules import Array, RowRules, choose, draw, gumbel_noise, scaled
from gptjax.models.block import apply
from gptjax.models.cache import NO_POSITION, Cache
from gptjax.models.decoder import Decoder


class Rows(flax.struct.PyTreeNode):
    """What the devices keep of a batch of texts between chunks."""

    cache: Cache
    logits_BV: jax.Array  # float32, of the next token
    counts_BV: jax.Array  # int32, how often each token is in the text so far


@functools.partial(jax.jit, static_argnames=('model', 'batch_size', 'slots'))
def empty_rows(model: Decoder, batch_size: int, slots: int) -> Rows:
    """Rows without any text, in one program: array by array takes a millisecond and a half."""
    shape = (batch_size, model.vocab_size)
    cache = Cache.empty(model.config, batch_size, slots)
    return Rows(cache, jnp.zeros(shape), jnp.zeros(shape, jnp.int32))


class Contexts(flax.struct.PyTreeNode):
    """New contexts for some rows: R of them, right-aligned."""

    tokens_RT: np.ndarray
    pos_RT: np.ndarray
    counts_RV: np.ndarray  # int32, how often each token is in the whole text


class Drawn(flax.struct.PyTreeNode):
    """What was drawn in K steps. Log-probabilities are the model's, before any rule."""

    tokens_KB: jax.Array
    scores_KB: jax.Array  # log-probabilities of the tokens, if asked for
    likeliest_KBN: jax.Array  # ids of the N likeliest tokens, if asked for
    likeliest_scores_KBN: jax.Array


class Counters(flax.struct.PyTreeNode):
    """What the host tells of each row with every chunk, all int32."""

    seed_B: np.ndarray
    sample_B: np.ndarray  # the row's number among those of its prompt; with the seed its key
    length_B: np.ndarray  # tokens in the context
    drawn_B: np.ndarray  # tokens drawn so far
    wanted_B: np.ndarray  # tokens to draw in this chunk


@functools.partial(jax.jit, static_argnames=('model', 'slots'))
def begin(model: Decoder, params: dict, contexts: Contexts, slot: Array, slots: int) -> Rows:
    """Rows that have these contexts, in the slots before `slot`."""
    n_new, width = contexts.tokens_RT.shape
    fresh = Cache.empty(model.config, n_new, width)
    x_RTD, fresh = apply(model, params, contexts.tokens_RT, contexts.pos_RT, fresh, method='hidden')
    logits_RV = next_logits(model, apply(model, params, x_RTD[:, -1:], method='logits'))

    def moved(leaf: jax.Array) -> jax.Array:
        return jnp.roll(leaf, slot - width, axis=1) if leaf.ndim else jnp.int32(slot)

    cache = jax.tree.map(moved, grown(fresh, slots))
    return Rows(cache, logits_RV, jnp.asarray(contexts.counts_RV))


@functools.partial(jax.jit, static_argnames='model', donate_argnames='rows')
def place(
    model: Decoder, params: dict, rows: Rows, contexts: Contexts, source_B: Array, slot: Array
) -> Rows:
    """Computes new contexts and puts them into their rows.

    Args:
      model: with its variables `params`.
      rows: donated.
      contexts: of some rows.
      source_B: which context each row gets; -1: it keeps its own.
      slot: the slot that is written next; other rows must not be in use if it changes.
    """
    return merge(begin(model, params, contexts, slot, rows.cache.pos_BS.shape[1]), rows, source_B)


def merge(new: Rows, rows: Rows, source_B: Array) -> Rows:
    """The rows with row source_B[b] of `new` as row b, unless that is -1."""
    n_new, batch = len(new.logits_BV), len(source_B)

    def chosen(new: jax.Array, old: jax.Array) -> jax.Array:  # (R x n, ...), (B x n, ...)
        if not old.ndim:
            return new
        grouped = new.reshape(n_new, -1, *new.shape[1:])[source_B]
        replaced = jnp.repeat(source_B >= 0, len(old) // batch).reshape(-1, *[1] * (old.ndim - 1))
        return jnp.where(replaced, grouped.reshape(old.shape), old)

    return jax.tree.map(chosen, new, rows)


@functools.partial(jax.jit, static_argnames='slots')
def grown(cache: Cache, slots: int) -> Cache:
    """The cache with more slots, after those that it has, oldest first."""
    used = cache.pos_BS.shape[1]

    def wider(old: jax.Array, fill: int = 0) -> jax.Array:
        widths = [(0, 0), (0, slots - used)] + [(0, 0)] * (old.ndim - 2)
        return jnp.pad(jnp.roll(old, -cache.slot, axis=1), widths, constant_values=fill)

    wide = jax.tree.map(wider, cache.replace(pos_BS=None, slot=None))
    return wide.replace(pos_BS=wider(cache.pos_BS, NO_POSITION), slot=jnp.int32(used))


@functools.partial(
    jax.jit, static_argnames=('model', 'chunk', 'banned', 'likeliest'), donate_argnames='rows'
)
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
    likeliest: int = 0,
) -> tuple[Rows, Drawn]:
    """Draws up to `chunk` tokens for each row.

    Args:
      model: with its variables `params`.
      rows: donated.
      counters: positions, keys and budgets.
      rules: how to draw.
      scores: whether log-probabilities are wanted; otherwise they may be zero.
      chunk: steps of the scan.
      banned: ids that are never drawn.
      likeliest: how many of the likeliest tokens are told beside each that is drawn.

    Returns:
      The rows, and what was drawn, of which a row's first `wanted_B` entries count.
    """
    batch, vocab_size = rows.logits_BV.shape

    def draw_noise() -> jax.Array:
        # All noise of the chunk at once: on a CPU each draw is a loop of a hundred tiny programs.
        key_B = jax.vmap(lambda seed, i: jax.random.fold_in(jax.random.key(seed), i))(
            counters.seed_B, counters.sample_B
        )
        count_KB = counters.drawn_B + jnp.arange(chunk)[:, None]
        return jax.vmap(gumbel_noise, (None, 0, None))(key_B, count_KB, vocab_size)

    no_noise = functools.partial(jnp.zeros, (chunk, batch, vocab_size))
    gumbel_KBV = jax.lax.cond(rules.draws, draw_noise, no_noise)

    def step(rows: Rows, i_and_gumbel: tuple) -> tuple[Rows, Drawn]:
        i, gumbel_BV = i_and_gumbel
        active_B = i < counters.wanted_B
        logits_BV = rows.logits_BV
        if banned:
            logits_BV = logits_BV.at[:, banned].set(-jnp.inf)

        def by_rules() -> tuple[Drawn, jax.Array]:
            token_B = choose(logits_BV, rules, gumbel_BV, rows.counts_BV)
            # Not by indexing, which XLA's CPU backend makes a loop over rows.
            is_token_BV = jnp.arange(vocab_size) == token_B[:, None]
            counts_BV = rows.counts_BV + (is_token_BV & active_B[:, None])
            chosen_B = jnp.sum(jnp.where(is_token_BV, rows.logits_BV, 0), axis=-1)
            top_BN, ids_BN = jax.lax.top_k(rows.logits_BV, likeliest)
            total_B = jax.nn.logsumexp(rows.logits_BV, axis=-1)
            scores = chosen_B - total_B, ids_BN, top_BN - total_B[:, None]
            return Drawn(token_B, *scores), counts_BV

        def plainly() -> tuple[Drawn, jax.Array]:
            token_B = draw(scaled(logits_BV, rules.temperature_B), rules, gumbel_BV)
            nothing = jnp.zeros((batch, likeliest), jnp.int32)
            return Drawn(token_B, jnp.zeros(batch), nothing, nothing * 0.0), rows.counts_BV

        # One branch for all that a plain draw does without, since each costs time at every step.
        drawn, counts_BV = jax.lax.cond(rules.adjusts | scores, by_rules, plainly)
        pos_B = jnp.where(active_B, counters.length_B + i, NO_POSITION)
        logits_BTV, cache = apply(
            model, params, drawn.tokens_KB[:, None], pos_B[:, None], rows.cache
        )
        logits_BV = jnp.where(active_B[:, None], next_logits(model, logits_BTV), rows.logits_BV)
        return Rows(cache, logits_BV, counts_BV), drawn

    return jax.lax.scan(step, rows, (jnp.arange(chunk), gumbel_KBV))


def next_logits(model: Decoder, logits_BTV: jax.Array) -> jax.Array:
    """Float32 logits (B, V) after the only position, without ids that pad the table."""
    return logits_BTV[:, 0, : model.vocab_size].astype(jnp.float32)
