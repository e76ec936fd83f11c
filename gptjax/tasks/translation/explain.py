"""Explains a translation: what the decoder expected, and where encoder and decoder looked."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.explain.attention import RECORDED, Attention, Heads, heads_of
from gptjax.explain.views import Explanation, common_views
from gptjax.generation.rules import Rules
from gptjax.models.block import apply
from gptjax.tasks.translation.pairs import Tokenizers
from gptjax.tasks.translation.seq2seq import Seq2Seq
from gptjax.text.clean import clean
from gptjax.text.display import direction, name_tokens
from gptjax.text.tokenizers import end_of

KINDS = (('decoder', 'cross_attn'), ('decoder', 'attn'), ('encoder', 'attn'))  # names of modules


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A source and its translation, as tokens."""

    source_S: np.ndarray
    tokens_T: np.ndarray  # the one that begins every target, and the translation


def encode(source: str, target: str, tokenizers: Tokenizers, config: Config) -> Encoded:
    """The tokens of a source and of its translation.

    Raises:
      UserError: one of them is empty or longer than the block.
      UnknownTextError: a vocabulary lacks a part of one.
    """
    found = []
    for name, text, tokenizer in zip(
        ('source', 'translation'), (source, target), tokenizers, strict=True
    ):
        ids = tokenizer.encode(clean(text, config.data).strip())
        if not 0 < len(ids) <= config.model.block_size - 2:
            raise UserError(
                f'the {name} has {len(ids)} tokens, and an explanation takes 1 to '
                f'{config.model.block_size - 2} with model.block_size={config.model.block_size}; '
                f'give another {name}'
            )
        found.append(ids)
    source_S = np.append(found[0], end_of(tokenizers[0])).astype(np.int32)
    end = end_of(tokenizers[1])
    return Encoded(source_S, np.concatenate([[end], found[1], [end]]).astype(np.int32))


def views(
    model: Seq2Seq, params: dict, pair: Encoded, *, tokenizers: Tokenizers, rules: Rules
) -> Explanation:
    """The numbers of the page; the tokenizers are those of both languages."""
    source, target = tokenizers
    logits_TV, kinds, copying = _run(model, params, pair)
    ids = pair.source_S.tolist()
    names = name_tokens(source, ids)
    return common_views(logits_TV, pair.tokens_T, target, rules) | {
        'source': [names[token] for token in ids],
        'source_direction': direction(source.decode(ids)),
        'attention': kinds,
        'copying': copying,
    }


def _run(
    model: Seq2Seq, params: dict, pair: Encoded
) -> tuple[np.ndarray, list[Attention], Explanation | None]:
    """Logits (T, V), all attention, and what was copied: one teacher-forced pass."""
    lengths_B = np.array([len(pair.source_S)], np.int32)

    @jax.jit
    def run(params: dict) -> dict[str, Any]:
        logits_BTV, looked = apply(
            *(model, params, pair.source_S[None], lengths_B, pair.tokens_T[None]),
            capture_intermediates=lambda _, method: method in RECORDED,
            mutable=['intermediates'],
        )
        recorded = jax.tree.map(lambda x: x.astype(jnp.float32), looked['intermediates'])
        found: dict[str, Any] = {'logits': logits_BTV[0].astype(jnp.float32)}
        for part, attention in KINDS:
            blocks, weights = recorded[part], params['params'][part]
            layers = sum(name.startswith('block_') for name in weights)
            found[f'{part}/{attention}'] = [
                heads_of(blocks[f'block_{i}'][attention], weights[f'block_{i}'][attention])
                for i in range(layers)
            ]
        if 'pointer_B1TS' in recorded:
            found['weights'] = recorded['pointer_B1TS'][0][0, 0]
            found['shares'] = jax.nn.sigmoid(recorded['gate']['__call__'][0][0, :, 0])
        return found

    found = jax.device_get(run(params))

    def kind(name: str, key: str, rows: str, columns: str) -> Attention:
        return Attention(name, tuple(Heads(**layer) for layer in found[key]), rows, columns)

    kinds = [
        kind('of the translation to the source', 'decoder/cross_attn', 'tokens', 'source'),
        kind('within the translation', 'decoder/attn', 'tokens', 'tokens'),
        kind('within the source', 'encoder/attn', 'source', 'source'),
    ]
    copying = {name: found[name] for name in ('weights', 'shares')} if 'weights' in found else None
    return found['logits'], kinds, copying
