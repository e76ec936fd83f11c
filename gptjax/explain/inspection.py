"""Looking into a language model: logits, attention weights and token scores of one text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from gptjax.errors import UserError
from gptjax.models.block import apply
from gptjax.models.decoder import Decoder
from gptjax.text import batches


@dataclasses.dataclass(frozen=True)
class Forward:
    """One forward pass over a text."""

    tokens: np.ndarray  # (T,) int32
    logits: np.ndarray  # (T, V) float32, of the token after each
    attention: tuple[np.ndarray, ...] | None  # of each layer, (N, T, T); rows sum to 1


@dataclasses.dataclass(frozen=True)
class Score:
    """How likely a text is, token by token."""

    tokens: np.ndarray  # (T,) int32
    log_probs: np.ndarray  # (T - 1,) float32 nats: the first token has no context

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood in nats per token."""
        return -float(np.mean(self.log_probs))


def forward(model: Decoder, variables: dict, tokens_T: np.ndarray, *, attention: bool) -> Forward:
    """Logits of a text, and attention weights if asked for.

    Raises:
      UserError: the text is empty or longer than the block.
    """
    block_size = model.config.block_size
    if not 0 < len(tokens_T) <= block_size:
        raise UserError(
            f'the text has {len(tokens_T)} tokens, and a forward pass takes 1 to '
            f'model.block_size={block_size}; give another text'
        )

    @jax.jit
    def run(variables: dict) -> tuple[Array, dict]:
        collections = ['intermediates'] if attention else []
        (logits_BTV, _), looked = apply(model, variables, tokens_T[None], mutable=collections)
        return logits_BTV[0].astype(jnp.float32), looked

    logits_TV, looked = jax.device_get(run(variables))
    weights = None
    if attention:
        blocks = looked.get('intermediates', {})
        layers = (blocks[f'block_{i}'] for i in range(len(blocks)))
        weights = tuple(layer['attn']['weights_BNTS'][0][0] for layer in layers)
    return Forward(tokens_T, logits_TV, weights)


def score(model: Decoder, variables: dict, tokens_T: np.ndarray) -> Score:
    """Log-probabilities in consecutive windows of block_size, as the validation loss has them."""
    if len(tokens_T) < 2:
        raise UserError(f'the text has {len(tokens_T)} tokens; a score needs at least 2')

    @jax.jit
    def run(variables: dict, inputs_BT: Array, targets_BT: Array) -> Array:
        logits_BTV = model.apply(variables, inputs_BT)[0].astype(jnp.float32)
        return -optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)

    block_size, found = min(model.config.block_size, len(tokens_T) - 1), []
    for batch in batches.whole_split(tokens_T, batch_size=8, block_size=block_size):
        log_probs_BT = np.asarray(run(variables, batch['inputs'], batch['targets']))
        found += [row[:n] for row, n in zip(log_probs_BT, batch['lengths'], strict=True)]
    return Score(tokens_T, np.concatenate(found))
