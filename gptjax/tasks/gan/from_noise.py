"""Noise -> sentences: one scan for the whole of them, and the same states again for a gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gptjax.models.block import apply
from gptjax.models.cache import Cache
from gptjax.tasks.gan.model import Generator, Noise, draw_noise
from gptjax.text.words import END, PAD, START, UNKNOWN

FREE = -1  # in `forced`: the generator chooses


def style(model: Generator, params: dict, noise: Noise) -> Array:
    """w (B, T, D) of some noise."""
    return apply(model, params, noise.style_BTD, method='style')


def word_logits(model: Generator, params: dict, x_BSD: Array, t_S: Array) -> Array:
    """Logits (B, S, V) of the words at some places; minus infinity for what no sentence has there.

    Real sentences are `gan.min_words` long at least, so <END> comes no sooner.
    """
    logits_BSV = apply(model, params, x_BSD, method='logits')
    # Where what follows <END> is hidden from the critic, nobody needs padding.
    banned = [START, *([PAD] if model.gan.hide_after_end else [])]
    banned += [UNKNOWN] if model.gan.unknown == 'drop' else []
    logits_BSV = logits_BSV.at[..., jnp.array(banned)].set(-1e9)
    too_soon_S1 = jnp.expand_dims(t_S, -1) < model.gan.min_words
    ends_V = jnp.isin(jnp.arange(model.vocab_size), jnp.array([END, PAD]))
    return jnp.where(too_soon_S1 & ends_V, -1e9, logits_BSV)


def gumbel(key_B: Array, t: Array, vocab_size: int) -> Array:
    """Gumbel noise (B, V) of the word at place t: a function of the row's key and t."""
    return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, t), (vocab_size,)))(key_B)


def write(
    model: Generator,
    params: dict,
    w_BTD: Array,
    noise: Noise,
    forced_BT: Array | None = None,
    temperature: float | Array = 1.0,
) -> Array:
    """Writes sentences word by word in one scan: argmax, fed back.

    Args:
      forced_BT: ids that are given, FREE where none is; the first place is <START> anyway.
      temperature: scales Gumbel noise, where the configuration has it.

    Returns:
      ids (B, T) int32; what follows a row's first <END> means nothing.
    """
    b, time = w_BTD.shape[:2]
    if forced_BT is None:
        forced_BT = jnp.full((b, time), FREE)

    def step(carry: Any, t_and_forced: tuple) -> tuple:
        t, forced_B = t_and_forced
        if model.gan.causal:
            token_B, cache = carry
            x_BD, cache = apply(model, params, token_B, t, w_BTD, noise, cache, method='step')
        else:
            x_BD = apply(model, params, carry, w_BTD, noise, t + 1, method='rewritten')
        logits_BV = word_logits(model, params, x_BD, t)
        if model.gan.output.startswith('gumbel'):
            logits_BV += temperature * gumbel(noise.key_B, t, model.vocab_size)
        token_B = jnp.where(forced_B == FREE, jnp.argmax(logits_BV, -1), forced_B).astype(jnp.int32)
        if model.gan.causal:
            return (token_B, cache), token_B
        return carry.at[:, t + 1].set(token_B), token_B

    carry: Any = jnp.full((b, time), PAD).at[:, 0].set(START)
    if model.gan.causal:
        carry = carry[:, 0], Cache.empty(model.cache_config, b, time - 1)
    ids_SB: Array = jax.lax.scan(step, carry, (jnp.arange(time - 1), forced_BT[:, 1:].T))[1]
    return jnp.concatenate([jnp.full((b, 1), START), ids_SB.T], 1)


def replay(model: Generator, params: dict, ids_BT: Array, w_BTD: Array, noise: Noise) -> Array:
    """The hidden state (B, S, D) from which each word of finished sentences was chosen.

    A word that was fed back has no gradient, so this has the gradients of the loop that wrote it:
    where positions are causal all are computed at once, and else again one by one.
    """
    if model.gan.causal:
        return apply(model, params, ids_BT, w_BTD, noise, method='replay')

    @jax.checkpoint
    def state(t: Array) -> Array:
        return apply(model, params, ids_BT, w_BTD, noise, t, method='rewritten')

    return jax.lax.map(state, jnp.arange(1, ids_BT.shape[1])).swapaxes(0, 1)


@functools.partial(jax.jit, static_argnames=('model', 'kind'))
def sample(
    model: Generator,
    params: dict,
    key: Array,
    *,
    row_B: Array,
    kind: str = 'free',
    forced_BT: Array | None = None,
    temperature: float = 1.0,
) -> Array:
    """The sentences of some rows, as ids (B, T), with a style of this kind (gan_sampling.style)."""
    noise, w_BTD = drawn(model, params, key, row_B, kind)
    return write(model, params, w_BTD, noise, forced_BT, temperature)


def drawn(
    model: Generator, params: dict, key: Array, row_B: Array, kind: str
) -> tuple[Noise, Array]:
    """The noise of some rows, and their styles w (B, T, D) of this kind."""
    noise = draw_noise(model.config, model.gan, key, row_B)
    w_BTD = style(model, params, noise)
    if kind == 'fixed':
        w_BTD = jnp.broadcast_to(w_BTD[:1], w_BTD.shape)
    if kind == 'interpolate':  # The noise of the positions is then that of the first row.
        share_B11 = jnp.linspace(0, 1, len(row_B))[:, None, None]
        w_BTD = (1 - share_B11) * w_BTD[:1] + share_B11 * w_BTD[-1:]
        noise = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), noise)
    return noise, w_BTD
