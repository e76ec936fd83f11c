"""Device side of long prompts: a context is computed in pieces, then put into its row."""

import functools

import jax

from gptjax.generation.decode import Rows, merge, next_logits
from gptjax.generation.rules import Array
from gptjax.models.block import apply
from gptjax.models.decoder import Decoder


@functools.partial(jax.jit, static_argnames='model', donate_argnames='one')
def extend(model: Decoder, params: dict, one: Rows, tokens_1T: Array, pos_1T: Array) -> Rows:
    """One row with the next T tokens of its context. `one` is donated."""
    x_1TD, cache = apply(model, params, tokens_1T, pos_1T, one.cache, method='hidden')
    logits_1V = next_logits(model, apply(model, params, x_1TD[:, -1:], method='logits'))
    return one.replace(cache=cache, logits_BV=logits_1V)


@functools.partial(jax.jit, donate_argnames='rows')
def adopt(rows: Rows, one: Rows, source_B: Array, slot: Array) -> Rows:
    """The rows with the context of `one` where source_B is 0, in the slots before `slot`.

    Rows where source_B is -1 keep theirs. `rows` is donated.
    """
    cache = one.cache
    turned = jax.tree.map(
        lambda leaf: jax.numpy.roll(leaf, slot - cache.slot, axis=1) if leaf.ndim else slot, cache
    )
    return merge(one.replace(cache=turned), rows, source_B)
