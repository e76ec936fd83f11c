"""A decoder's forward pass over one text, taken apart into what each part of the model does.

Nothing here computes the model a second time: flax records what the modules give
(`capture_intermediates`), and sums are split by the linearity of products. A norm is linear once
its mean and its scale are those of the pass, so every logit is a sum over parts, wherever the norms
of the model stand.

The suffixes of names are those of `models/block.py`; L is the layers, P the parts, K some tokens.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gptjax.explain.attention import RECORDED, Heads, heads_of
from gptjax.models.block import apply, sinusoids
from gptjax.models.decoder import Decoder


@dataclasses.dataclass(frozen=True)
class Trace:
    """A forward pass, float32."""

    tokens_T: np.ndarray
    logits_TV: np.ndarray  # without ids that only pad the table
    stream_LTD: np.ndarray  # the residual stream after the embeddings and after each block
    layers: tuple[Heads, ...]
    part_names: tuple[str, ...]  # embed, embed_pos, block_0/head_0, ..., block_0/mlp, bias
    parts_PTD: jax.Array  # they add up to what the output head reads, stays on the device


def trace(model: Decoder, variables: dict, tokens_T: np.ndarray) -> Trace:
    """Runs the model over a text of 1 to block_size tokens and takes it apart."""

    @jax.jit
    def run(variables: dict) -> dict[str, Any]:
        (logits_BTV, _), looked = apply(
            *(model, variables, tokens_T[None]),
            capture_intermediates=lambda _, method: method in RECORDED,
            mutable=['intermediates'],
        )
        recorded = jax.tree.map(lambda x: x.astype(jnp.float32), looked['intermediates'])
        parts = _Parts(model, variables['params'], recorded)
        return {
            'logits_TV': logits_BTV[0, :, : model.vocab_size].astype(jnp.float32),
            'stream_LTD': jnp.stack(parts.streams),
            'layers': [parts.heads(f'block_{i}') for i in range(model.config.n_layer)],
            'parts': parts.named,
        }

    found = run(variables)
    parts = found.pop('parts')
    names = tuple(sorted(parts, key=_order))
    return Trace(
        tokens_T,
        np.asarray(found['logits_TV']),
        np.asarray(found['stream_LTD']),
        tuple(Heads(**layer) for layer in jax.device_get(found['layers'])),
        names,
        jnp.stack([parts[name] for name in names]),
    )


def contributions(
    model: Decoder, variables: dict, parts_PTD: jax.Array, ids_TK: np.ndarray
) -> np.ndarray:
    """What each part adds to the logits of some tokens at each position, float32 (P, T, K)."""
    params = variables['params']
    if model.config.tied_head:
        rows_TKD, bias_TK = params['embed']['embedding'][ids_TK], 0.0
    else:
        rows_TKD = params['head']['kernel'].T[ids_TK]
        bias_TK = params['head']['bias'][ids_TK] if 'bias' in params['head'] else 0.0
    found_PTK = jnp.einsum('PTD,TKD->PTK', parts_PTD, rows_TKD.astype(jnp.float32))
    return np.asarray(found_PTK.at[-1].add(bias_TK))  # The last part is the biases.


def head_logits(model: Decoder, variables: dict, x_TD: np.ndarray) -> jax.Array:
    """Logits (T, V) of a residual stream, with the final norm computed for it: the logit lens.

    (nostalgebraist, 2020.) After the last block these are the model's own logits.
    """

    def read(model: Decoder, x_BTD: jax.Array) -> jax.Array:
        has_norm = model.config.norm_place != 'after'
        return model.logits(model.norm_final(x_BTD) if has_norm else x_BTD)

    logits_BTV = apply(model, variables, x_TD[None], method=read)
    return logits_BTV[0, :, : model.vocab_size].astype(jnp.float32)


class _Parts:
    """Follows each part of the residual stream through the sums and norms of a pass."""

    def __init__(self, model: Decoder, params: dict, recorded: dict) -> None:
        self.config, self._params, self._recorded = model.config, params, recorded
        self.named = self._embeddings(recorded)
        self.streams = [_sum(self.named)]
        self.named['bias'] = jnp.zeros_like(self.streams[0])
        for i in range(self.config.n_layer):
            block = f'block_{i}'
            self._add(f'{block}/norm_attn', self._heads(block))
            self._add(
                f'{block}/norm_mlp', {f'{block}/mlp': recorded[block]['mlp']['__call__'][0][0]}
            )
            self.streams.append(recorded[block]['__call__'][0][0][0])
        if self.config.norm_place != 'after':
            self.named = self._normed('norm_final', self.named)

    def heads(self, block: str) -> dict[str, jax.Array]:
        """The fields of the block's `Heads`."""
        return heads_of(self._recorded[block]['attn'], self._params[block]['attn'])

    def _embeddings(self, recorded: dict) -> dict[str, jax.Array]:
        """The parts of the residual stream before the first block."""
        config = self.config
        found = {'embed': recorded['embed']['__call__'][0][0]}
        for name, table in recorded.get('embed_ngrams', {}).items():
            if name != '__call__':
                found[f'embed_ngrams/{name}'] = table['__call__'][0][0]
        if config.scale_embedding:
            found = {name: x * config.n_embd**0.5 for name, x in found.items()}
        if 'embed_pos' in recorded:
            found['embed_pos'] = recorded['embed_pos']['__call__'][0][0]
        elif config.position == 'sinusoidal':
            pos_BT = jnp.arange(found['embed'].shape[0])[None]
            found['embed_pos'] = sinusoids(pos_BT, config.n_embd)[0]
        return found

    def _heads(self, block: str) -> dict[str, jax.Array]:
        """What each head of a block adds, and the bias of the output projection."""
        heads, out = self.heads(block), self._params[block]['attn']['out']
        written_NTD = jnp.einsum(
            'NTS,NSH,NHD->NTD', heads['weights_NTS'], heads['v_NSH'], out['kernel']
        )
        found = {f'{block}/head_{n}': x_TD for n, x_TD in enumerate(written_NTD)}
        return found | ({'bias': out['bias'][None]} if 'bias' in out else {})

    def _add(self, norm: str, branch: dict[str, jax.Array]) -> None:
        """Adds the parts of a branch, with the branch's norm where the model has it."""
        place = self.config.norm_place
        if place == 'branch':
            branch = self._normed(norm, branch)
        for name, x_TD in branch.items():
            self.named[name] = self.named.get(name, 0) + x_TD
        if place == 'after':
            self.named = self._normed(norm, self.named)

    def _normed(self, norm: str, parts: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The parts of norm(sum of the parts), with the norm's mean and scale as they were."""
        params: Any = self._params
        for name in norm.split('/'):
            params = params[name]
        whole_TD = _sum(parts)
        centred = self.config.norm == 'layer'
        if centred:
            parts = {name: x - jnp.mean(x, -1, keepdims=True) for name, x in parts.items()}
            whole_TD -= jnp.mean(whole_TD, -1, keepdims=True)
        epsilon = 1e-5 if centred else nn.RMSNorm.epsilon
        factor = jax.lax.rsqrt(jnp.mean(jnp.square(whole_TD), -1, keepdims=True) + epsilon)
        parts = {name: x * factor * params['scale'] for name, x in parts.items()}
        if 'bias' in params:
            parts['bias'] = parts.get('bias', 0) + params['bias']
        return parts


def _sum(parts: dict[str, jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts.values())


def _order(name: str) -> tuple[int, int, int, str]:
    """Embeddings first, then the parts of each block, the biases last."""
    block, _, part = name.partition('/')
    if name == 'bias':
        return 2, 0, 0, ''
    if not block.startswith('block_'):
        return 0, 0, 0, name
    head = int(part.removeprefix('head_')) if part.startswith('head_') else 10**6
    return 1, int(block.removeprefix('block_')), head, ''
