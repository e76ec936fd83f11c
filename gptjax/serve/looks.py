"""What the playground draws under a text: attention of a translation, style of a GAN's sentence."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gptjax.config import SampleConfig
from gptjax.config.schema import build
from gptjax.explain.page import Explained
from gptjax.explain.views import Explanation
from gptjax.run import Run

DIGITS = 3  # of what is sent


def look(run: Run, texts: Sequence[str], knobs: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a picture, in JSON values.

    Args:
      run: of a translation or a GAN.
      texts: a source and its translation; or the beginning of a sentence, which is drawn again.
      knobs: of `sample`, with which the sentence was drawn; any values.

    Returns:
      `tokens` (T), and for a translation `source` (S) with `layers` (L, T, S), the attention to the
      source with which each token was predicted, averaged over heads; for a sentence `style` (T, D)
      in shares of its largest number, and the critic's score of the sentence and of real ones.

    Raises:
      UserError: a text or the value of a knob does not fit.
    """
    checked = build(SampleConfig, knobs, 'sample.')
    sampling = {name: getattr(checked, name) for name in knobs}
    explained: Explained = run.explain(*texts, live=False, **sampling)
    numbers = explained.numbers
    names = numbers['names']
    tokens = [names[token] for token in numbers['tokens'].tolist()]
    if numbers['style'] is not None:
        return _of_sentence(numbers, tokens)
    layers = [layer.weights_NTS.mean(0)[:-1] for layer in numbers['attention'][0].layers]
    return {
        'tokens': tokens[1:],  # The first one begins every translation and is not predicted.
        'source': numbers['source'],
        'layers': np.round(layers, DIGITS).tolist(),
    }


def _of_sentence(numbers: Explanation, tokens: list[str]) -> dict[str, Any]:
    style_TD, critic = numbers['style'], numbers['critic']
    return {
        'tokens': tokens[1:],
        'style': np.round(style_TD[1:] / np.abs(style_TD).max(), DIGITS).tolist(),
        'critic': round(critic['score'], DIGITS),
        'critic_real': round(critic['real'], DIGITS),
    }
