"""Explains a sentence from noise: each word's alternatives, attention, style, the critic's score.

The suffixes of names are those of `tasks/gan/model.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.explain.attention import RECORDED, Attention, Heads, heads_of
from gptjax.explain.views import Explanation, common_views
from gptjax.generation.rules import Rules
from gptjax.models.block import apply
from gptjax.tasks.gan import from_noise
from gptjax.tasks.gan.model import Noise
from gptjax.tasks.gan.players import Players, lengths
from gptjax.text.words import WordTokenizer


def views(
    players: Players,
    params: dict,
    ids_T: np.ndarray,
    noise: Noise,
    *,
    w_1TD: jax.Array,
    real_NT: np.ndarray,
    tokenizer: WordTokenizer,
    n_prompt: int,
    temperature: float,
) -> Explanation:
    """The numbers of the page about one sentence.

    Args:
      players: both models.
      params: their parameters.
      ids_T: the sentence: <START> words <END>, and what follows, which is not shown.
      noise: of one row.
      w_1TD: the style it was written with.
      real_NT: held-out sentences, whose mean score is given beside.
      tokenizer: of the words.
      n_prompt: ids that were given, <START> among them.
      temperature: of Gumbel noise, if the generator has it; otherwise it takes the likeliest word.
    """
    ids_1T = jnp.asarray(ids_T)[None]
    shown = min(1 + int(lengths(ids_1T)[0]), len(ids_T) - 1)
    logits_SV, kinds = _replayed(players, params, ids_1T, noise, w_1TD=w_1TD, shown=shown)
    draws = players.config.gan.output.startswith('gumbel')
    rules = Rules(temperature=temperature if draws else 0.0)
    found = common_views(logits_SV[:shown], ids_T[:shown], tokenizer, rules)
    return found | {
        'n_prompt': n_prompt,
        'attention': kinds or None,
        'style': np.asarray(w_1TD[0, :shown], np.float32),
        'critic': _scores(players, params['critic'], ids_1T, real_NT),
    }


def _replayed(
    players: Players,
    params: dict,
    ids_1T: jax.Array,
    noise: Noise,
    *,
    w_1TD: jax.Array,
    shown: int,
) -> tuple[np.ndarray, list[Attention]]:
    """Logits (S, V) of the words, and all attention if positions are causal."""
    model, author = players.generator, players.author(params)
    gan = model.gan

    @jax.jit
    def run(author: dict) -> tuple[jax.Array, dict[str, list]]:
        if not gan.causal:  # Each word has a pass of its own.
            x_1SD = from_noise.replay(model, author, ids_1T, w_1TD, noise)
            return logits(x_1SD), {}
        x_1SD, looked = apply(
            *(model, author, ids_1T, w_1TD, noise),
            method='replay',
            capture_intermediates=lambda _, method: method in RECORDED,
            mutable=['intermediates'],
        )
        found: dict[str, list] = {'cross': [], 'attn': []}
        blocks = [f'noise_block_{i}' for i in range(gan.n_noise_layer)]
        blocks += [f'block_{i}' for i in range(gan.n_plain_layer)]
        for block in blocks:
            recorded, weights = looked['intermediates'][block], author['params'][block]
            for name in found.keys() & recorded.keys():
                found[name].append(heads_of(recorded[name], weights[name]))
        return logits(x_1SD), found

    def logits(x_1SD: jax.Array) -> jax.Array:
        place_S = jnp.arange(x_1SD.shape[1])
        return from_noise.word_logits(model, author, x_1SD, place_S)[0]

    logits_SV, found = jax.device_get(run(author))
    names = {'attn': 'of the words', 'cross': 'of the words, which passes the style on'}
    kinds = [
        Attention(names[name], tuple(_cut(layer, shown) for layer in layers))
        for name, layers in sorted(found.items())
        if layers
    ]
    return logits_SV, kinds


def _cut(layer: dict[str, np.ndarray], n: int) -> Heads:
    """The heads of the first n places; by the causal mask they see no other."""
    cut = {name: x[:, :n] for name, x in layer.items()}
    return Heads(**{**cut, 'weights_NTS': layer['weights_NTS'][:, :n, :n]})


def _scores(
    players: Players, params: dict, ids_1T: jax.Array, real_NT: np.ndarray
) -> dict[str, Any]:
    """The critic's score of a sentence, of it without each word, and of real sentences."""
    n = int(lengths(ids_1T)[0])
    kept_NS = 1.0 - np.eye(n + 1, ids_1T.shape[1] - 1, -1, dtype=np.float32)  # The first: all.

    @jax.jit
    def run(params: dict) -> tuple[jax.Array, jax.Array]:
        e_NSD = players.embedded(params, ids_1T) * kept_NS[..., None]
        real_NSD = players.embedded(params, jnp.asarray(real_NT, jnp.int32))
        return players.score(params, e_NSD), players.score(params, real_NSD).mean()

    scores_N, real = jax.device_get(run(params))
    return {'score': float(scores_N[0]), 'without': scores_N[1:], 'real': float(real)}
