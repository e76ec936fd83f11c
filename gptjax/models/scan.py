"""All blocks in one loop, whose backward pass may compute again what it does not keep.

XLA compiles one block instead of all. Only a loop makes sure that a block is computed again no
sooner than its gradient is due: of blocks one after the other, XLA's CPU backend computes all
again at once and saves nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.models.block import Block, apply
from gptjax.models.linear import PRODUCT
from gptjax.parallel.mesh import split_by_rows

KEPT = {
    'products': jax.checkpoint_policies.save_only_these_names(PRODUCT),
    'block': jax.checkpoint_policies.nothing_saveable,
}


def scan_blocks(
    block: Block,
    params: Sequence[Mapping[str, Any]],
    x_BTD: jax.Array,
    *context: jax.Array | None,
    key: jax.Array | None,
    remat: str,
) -> jax.Array:
    """The residual stream (B, T, D) after all blocks, as one after the other would give it.

    Args:
      block: any of them, since they differ in their parameters alone.
      params: of each block.
      x_BTD: the residual stream before the first one.
      context: further arguments of every block.
      key: the random key of dropout; None without dropout.
      remat: see `train.remat`.
    """

    def step(x_BTD: jax.Array, layer: tuple[jax.Array, Any]) -> tuple[jax.Array, None]:
        i, own = layer
        rngs = None if key is None else {'dropout': jax.random.fold_in(key, i)}
        train = key is not None
        x_BTD = split_by_rows(x_BTD)  # Otherwise XLA splits it as the stacked parameters are.
        return apply(block, {'params': own}, x_BTD, *context, train=train, rngs=rngs)[0], None

    if remat != 'none':
        step = jax.checkpoint(step, policy=KEPT[remat], prevent_cse=False)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    return jax.lax.scan(step, x_BTD, (jnp.arange(len(params)), stacked))[0]
