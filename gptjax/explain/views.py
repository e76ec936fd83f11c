"""Everything that --mode=explain shows of a language model and one text."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from gptjax.explain import embeddings, heads, lens, predictions, sources
from gptjax.explain.attention import Attention
from gptjax.explain.trace import Trace, contributions, trace
from gptjax.generation.rules import Rules
from gptjax.models.bigram import Bigram
from gptjax.models.block import sinusoids
from gptjax.models.decoder import Decoder
from gptjax.text.display import direction, name_tokens
from gptjax.text.tokenizers import Tokenizer

# Of JSON values, arrays and dataclasses of them; None where a view does not fit.
Explanation = dict[str, Any]
VIEWS = (
    *('attention', 'heads', 'lens', 'parts', 'positions', 'neighbours', 'across'),
    *('source', 'copying'),  # of translations
    *('style', 'critic'),  # of a GAN's sentences
)


def all_views(
    model: Decoder | Bigram,
    variables: dict,
    tokenizer: Tokenizer,
    *,
    tokens_T: np.ndarray,
    n_prompt: int,
    rules: Rules,
    train_S: np.ndarray | None = None,
) -> Explanation:
    """All views of a text of 2 to block_size tokens, of which the first `n_prompt` were given.

    Args:
      model: with its variables.
      variables: float32.
      tokenizer: of the text.
      tokens_T: int32.
      n_prompt: tokens of the prompt; the model continued it, or the user did.
      rules: of sampling.
      train_S: the tokens of the training text, if it is at hand.
    """
    logits_TV, views = _views(model, variables, tokens_T)
    found = common_views(logits_TV, tokens_T, tokenizer, rules)
    proofs = found['proofs'] | views.pop('proofs')
    found |= views | {'n_prompt': n_prompt, 'proofs': proofs, 'sources': None}
    if train_S is not None:
        found['sources'] = sources.find_sources(train_S, tokens_T)
    found['names'] |= name_tokens(tokenizer, _named(found))
    return found


def common_views(
    logits_TV: np.ndarray, tokens_T: np.ndarray, tokenizer: Tokenizer, rules: Rules
) -> Explanation:
    """The views that need no more than the logits after each token; the others are None."""
    expected = predictions.predict(logits_TV, tokens_T, rules)
    outcomes = predictions.outcomes(logits_TV, tokens_T, rules)
    ids = {token for prediction in expected for token in prediction.ids} | {*tokens_T.tolist()}
    return {
        **dict.fromkeys(VIEWS),
        'n_prompt': 1,
        'tokens': tokens_T,
        'names': name_tokens(tokenizer, ids),
        'direction': direction(tokenizer.decode(tokens_T.tolist())),
        'rules': dataclasses.asdict(rules),
        'predictions': expected,
        'outcomes': outcomes,
        'loss': -float(np.mean(np.log([outcome.probability for outcome in outcomes]))),
        'proofs': {'predictions': max(abs(prediction.total - 1) for prediction in expected)},
    }


def _views(
    model: Decoder | Bigram, variables: dict, tokens_T: np.ndarray
) -> tuple[np.ndarray, Explanation]:
    """The logits, and the views that need a model with blocks."""
    if isinstance(model, Bigram):
        logits_TV = np.asarray(model.apply(variables, tokens_T[None])[0][0])
        return logits_TV, {'proofs': {}}
    found = trace(model, variables, tokens_T)
    readings, lens_error = lens.read_layers(model, variables, found)
    listed_TK = _listed(found)
    parts_PTK = contributions(model, variables, found.parts_PTD, listed_TK)
    wanted_TK = np.take_along_axis(found.logits_TV, listed_TK, -1)
    sum_error = np.abs(parts_PTK.sum(0) - wanted_TK).max() / np.abs(wanted_TK).max()
    attention = Attention('self-attention', found.layers)
    views = {
        'attention': [attention],
        'heads': _heads(model, variables, tokens_T),
        'lens': readings,
        'parts': {'names': found.part_names, 'ids': listed_TK, 'logits': parts_PTK},
        'positions': _positions(model, variables, len(tokens_T)),
        'neighbours': embeddings.neighbours(
            np.asarray(variables['params']['embed']['embedding'][: model.vocab_size], np.float32),
            sorted(set(tokens_T.tolist())),
        ),
        'proofs': {
            'attention': attention.error,
            'lens': lens_error,
            'parts': float(sum_error),
        },
    }
    return found.logits_TV, views


def _listed(found: Trace) -> np.ndarray:
    """The ids (T, K) whose logits are taken apart: what followed, then the likeliest."""
    best_TK = np.argsort(-found.logits_TV, axis=-1, kind='stable')[:, : predictions.LISTED]
    followed_T = np.append(found.tokens_T[1:], best_TK[-1, 0])
    return np.concatenate([followed_T[:, None], best_TK], 1)


def _heads(model: Decoder, variables: dict, tokens_T: np.ndarray) -> Explanation:
    """What each head does, from repeated random tokens and from leaving it out."""
    loss, increase_LN = heads.losses_without(model, variables, tokens_T)
    scores = heads.score_heads(model, variables)
    found: Explanation = {'loss': loss, 'loss_increase': increase_LN, 'scores': None}
    if scores is not None:
        found['scores'] = {
            'previous': scores.previous_LN,
            'duplicate': scores.duplicate_LN,
            'induction': scores.induction_LN,
        }
        found['labels'] = [
            [scores.label(layer, head) for head in range(increase_LN.shape[1])]
            for layer in range(increase_LN.shape[0])
        ]
    return found


def _positions(model: Decoder, variables: dict, n: int) -> Explanation:
    """How the first positions differ: a row of numbers for each, if the model has any."""
    kind, width = model.config.position, model.config.n_embd
    if kind == 'learned':
        table = variables['params']['embed_pos']['embedding'][:n]
        return {'kind': kind, 'table': np.asarray(table, np.float32)}
    if kind == 'none':
        return {'kind': kind, 'table': None}
    if kind == 'rotary':  # The sine and cosine of the angles by which a head's vectors are turned.
        width //= model.config.n_head
    return {'kind': kind, 'table': np.asarray(sinusoids(jnp.arange(n)[None], width)[0])}


def _named(found: Explanation) -> set[int]:
    """The token ids that views besides the common ones show."""
    ids: set[int] = set()
    for reading in found['lens'] or ():
        ids.update(reading.ids_TK.ravel().tolist())
    for nearest in (found['neighbours'] or {}).values():
        ids.update(token for token, _ in nearest)
    for source in found['sources'] or ():
        ids.update(source.excerpt)
    return ids
