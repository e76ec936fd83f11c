"""Generation: one prefill, then chunks of a jitted `lax.scan` with the cache as its carry.

Every row of a batch lives by its own counters (`Counters`). A row that has to wait for the host
(its context is full, or it is done) computes along, but writes to slots that nobody sees. What a
row draws therefore depends on its own prompt, key and rules alone, whatever the chunk length and
whoever shares the batch.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import SampleConfig
from gptjax.generation.rules import Rules, choose
from gptjax.models.cache import NO_POSITION, Cache
from gptjax.models.decoder import Decoder


@flax.struct.dataclass
class Rows:
    """What the devices keep of a batch of texts from chunk to chunk."""

    cache: Cache
    logits_BV: jax.Array  # float32, of the token to draw next
    seen_BV: jax.Array | None  # bool, tokens in the text; only where a rule wants to know


@flax.struct.dataclass
class Counters:
    """What the host says of each row with every chunk, all int32."""

    sample_B: np.ndarray  # the row's number among those of its prompt; its key is made of it
    length_B: np.ndarray  # tokens in the context
    drawn_B: np.ndarray  # tokens drawn so far
    budget_B: np.ndarray  # tokens to draw in all


@flax.struct.dataclass
class Room:
    """Contexts to rebuild, and where all caches go, before a chunk."""

    full_B: np.ndarray  # bool, the rows to rebuild
    tokens_BT: np.ndarray  # their new contexts, aligned on the right
    pos_BT: np.ndarray


def stream(
    model: Decoder,
    params: dict,
    prompts: Sequence[np.ndarray],
    config: SampleConfig,
    stopped_B: np.ndarray | None = None,
    put: Callable[[Any], Any] = lambda arrays: arrays,
    hidden: tuple[int, ...] = (),
) -> Iterator[list[np.ndarray]]:
    """Generates tokens for several prompts at once, a chunk at a time.

    When a context reaches block_size it is rebuilt from its last half, so that every token's
    logits equal the full forward pass on exactly the context kept (see `kept_length`).

    Args:
      model: the decoder.
      params: its variables.
      prompts: token ids of each prompt, at least one; each prompt gives num_samples rows.
      config: how to draw.
      stopped_B: the caller may set entries of this bool array between chunks to end rows early.
      put: places arrays whose first axis is the rows on the devices, where there are several.
      hidden: ids that are never drawn.

    Yields:
      The new ids of each row, rows of a prompt next to each other; empty for a row that is done.
    """
    block_size, samples = model.config.block_size, config.num_samples
    chunk = min(config.chunk, config.max_new_tokens)
    history = [list(map(int, prompt)) for prompt in prompts for _ in range(samples)]
    sample_B = np.tile(np.arange(samples, dtype=np.int32), len(prompts))
    rules = Rules.from_config(config, hidden)
    if stopped_B is None:
        stopped_B = np.zeros(len(history), bool)

    length_B = np.array([kept_length(len(ids), block_size) for ids in history], np.int32)
    drawn_B = np.zeros(len(history), np.int32)
    tokens_BT, pos_BT = _aligned(history, length_B, block_size)
    slot = tokens_BT.shape[1]
    slots = _bucket(slot + config.max_new_tokens + chunk)
    if slots > block_size:  # Contexts may get full, and one may have to wait for a chunk's end.
        slots = block_size + chunk
    seen_BV = None
    if rules.repetition_penalty is not None:
        seen_BV = np.zeros((len(history), model.vocab_size), bool)
        for row, ids in zip(seen_BV, history, strict=True):
            row[ids] = True
    rows = Rows(*_prefill(model, params, *put((tokens_BT, pos_BT)), slots, 0), put(seen_BV))

    while True:
        budget_B = np.where(stopped_B, drawn_B, np.int32(config.max_new_tokens))
        if not (drawn_B < budget_B).any():
            return
        full_B = (length_B >= block_size) & (drawn_B < budget_B)
        room = None
        if full_B.any() or slot + chunk > slots:
            kept = np.int32(kept_length(block_size, block_size))
            length_B = np.where(full_B, kept, length_B)
            contexts = _aligned(history, np.where(full_B, length_B, 1), block_size)
            room = put(Room(full_B, *contexts))
            slot = max(contexts[0].shape[1], *length_B)
        counters = put(Counters(sample_B, length_B, drawn_B, budget_B))
        rows, tokens_KB = _decode_chunk(
            model, params, rows, room, slot, counters, config.seed, rules, chunk
        )
        slot += chunk
        new_B = np.clip(np.minimum(budget_B - drawn_B, block_size - length_B), 0, chunk)
        drawn_B, length_B = drawn_B + new_B, length_B + new_B
        tokens_KB = np.asarray(tokens_KB)
        new = [tokens_KB[:n, b] for b, n in enumerate(new_B)]
        for ids, new_ids in zip(history, new, strict=True):
            ids.extend(new_ids.tolist())
        yield new


def generate(
    model: Decoder, params: dict, prompts: Sequence[np.ndarray], config: SampleConfig, **options
) -> list[np.ndarray]:
    """All new ids of each row: the concatenation of `stream`, which has the same arguments."""
    chunks = list(stream(model, params, prompts, config, **options))
    return [np.concatenate(row) for row in zip(*chunks, strict=True)]


def kept_length(n_tokens: int, block_size: int) -> int:
    """How many of a text's last tokens are the context, if it grew token by token.

    A context that reaches block_size goes on with its last half.
    """
    half = block_size // 2
    if n_tokens < block_size:
        return n_tokens
    return half + (n_tokens - block_size) % (block_size - half)


def _aligned(history: list[list[int]], length_B: np.ndarray, block_size: int):
    """The last `length` tokens of each row, aligned on the right, and their places from 0."""
    width = min(_bucket(int(max(length_B))), block_size)
    tokens_BT = np.zeros((len(history), width), np.int32)
    for row, ids, length in zip(tokens_BT, history, length_B, strict=True):
        row[width - length :] = ids[len(ids) - length :]
    place_BT = np.arange(width) - (width - length_B[:, None])
    return tokens_BT, np.where(place_BT < 0, NO_POSITION, place_BT).astype(np.int32)


def _bucket(n: int) -> int:
    """The next power of two from 8 on: few shapes, so few compilations."""
    return max(8, 1 << (n - 1).bit_length())


@functools.partial(jax.jit, static_argnums=(0, 4))
def _prefill(model: Decoder, params, tokens_BT, pos_BT, slots: int, first_slot):
    """A new cache that holds the tokens from a slot on, and the logits of the last one."""
    cache = Cache.empty(model.config, len(tokens_BT), slots).replace(slot=jnp.int32(first_slot))
    x_BTD, cache = model.apply(params, tokens_BT, pos_BT, cache, method='hidden')
    logits_BTV = model.apply(params, x_BTD[:, -1:], method='logits')
    return cache, _next_logits(model, logits_BTV)


def _next_logits(model: Decoder, logits_BTV):
    """(B, V) float32 logits after the only position, without what pads the vocabulary."""
    return logits_BTV[:, 0, : model.vocab_size].astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 8), donate_argnums=2)
def _decode_chunk(
    model: Decoder,
    params,
    rows: Rows,
    room: Room | None,
    slot,
    counters: Counters,
    seed,
    rules: Rules,
    chunk: int,
):
    """Draws up to `chunk` tokens for each row; returns the rows and the tokens (chunk, B)."""
    if room is not None:
        rows = _make_room(model, params, rows, room, slot)
    gumbel_KBV = None
    if rules.temperature is not None:
        # All noise of the chunk at once: on a CPU each draw is a loop of a hundred tiny programs.
        key_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), counters.sample_B)
        count_KB = counters.drawn_B + jnp.arange(chunk)[:, None]
        shape = (model.vocab_size,)
        draw = jax.vmap(lambda key, n: jax.random.gumbel(jax.random.fold_in(key, n), shape))
        gumbel_KBV = jax.vmap(draw, (None, 0))(key_B, count_KB)
    space_B = model.config.block_size - counters.length_B
    wanted_B = jnp.minimum(counters.budget_B - counters.drawn_B, space_B)

    def step(rows: Rows, i_and_gumbel):
        i, gumbel_BV = i_and_gumbel
        active_B = i < wanted_B
        token_B = choose(rows.logits_BV, rules, gumbel_BV, rows.seen_BV)
        pos_B = jnp.where(active_B, counters.length_B + i, NO_POSITION)
        logits_BTV, cache = model.apply(params, token_B[:, None], pos_B[:, None], rows.cache)
        logits_BV = jnp.where(active_B[:, None], _next_logits(model, logits_BTV), rows.logits_BV)
        seen_BV = rows.seen_BV
        if seen_BV is not None:
            seen_BV |= jax.nn.one_hot(token_B, seen_BV.shape[1], dtype=bool) & active_B[:, None]
        return Rows(cache, logits_BV, seen_BV), token_B

    return jax.lax.scan(step, rows, (jnp.arange(chunk), gumbel_KBV))


def _make_room(model: Decoder, params, rows: Rows, room: Room, slot) -> Rows:
    """Moves the caches so that `slot` is the next one, and rebuilds those of full rows."""
    old, full_B = rows.cache, room.full_B
    n_slots = old.pos_BS.shape[1]
    first_slot = slot - room.tokens_BT.shape[1]
    fresh, logits_BV = _prefill(model, params, room.tokens_BT, room.pos_BT, n_slots, first_slot)

    def merge(fresh, old):
        moved = jnp.roll(old, slot - rows.cache.slot, axis=1)
        full = jnp.repeat(full_B, len(old) // len(full_B))  # Rows, or rows x heads.
        return jnp.where(full.reshape(-1, *[1] * (old.ndim - 1)), fresh, moved)

    pos_BS = merge(fresh.pos_BS, old.pos_BS)
    cache = Cache(
        jax.tree.map(merge, fresh.k_MSH, old.k_MSH),
        jax.tree.map(merge, fresh.v_MSH, old.v_MSH),
        jnp.where(
            jnp.arange(n_slots) < slot, pos_BS, NO_POSITION
        ),  # The roll brings old ones round.
        jax.tree.map(merge, fresh.tokens_BS, old.tokens_BS),
        jnp.int32(slot),
    )
    return Rows(cache, jnp.where(full_B[:, None], logits_BV, rows.logits_BV), rows.seen_BV)
