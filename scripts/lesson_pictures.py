"""Draws the pictures of docs/attention.md.

python scripts/lesson_pictures.py
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from gptjax.models.attention import attend, causal_mask
from gptjax.models.block import sinusoids

DOCS = Path(__file__).parents[1] / 'docs'
WORDS = ['The', 'Cat', 'Sat', 'Mat']
QUERY = np.array([1, 0, 0, 1], np.float32)
KEYS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]], np.float32)


def positions() -> None:
    """A row for each of 32 positions, a column for each of 32 dimensions."""
    figure = Figure(figsize=(5, 4), layout='constrained')
    axes = figure.subplots()
    table_TD = np.asarray(sinusoids(jnp.arange(32)[None], 32)[0])
    image = axes.imshow(table_TD, cmap='PuOr', vmin=-1, vmax=1)
    axes.set(xlabel='dimension', ylabel='position')
    figure.colorbar(image, label='added to the embedding')
    figure.savefig(DOCS / 'lesson_positions.png', dpi=100)


def mask() -> None:
    """The weights of the four words with the query of "The", with numbers."""
    places = jnp.arange(4)[None]
    found = []
    queries_TH = np.tile(QUERY, (4, 1))
    attend(
        *(queries_TH[None], KEYS[None], KEYS[None], causal_mask(places, places)),
        sow_weights=found.append,
    )
    weights_TS = np.asarray(found[0][0])
    figure = Figure(figsize=(4.2, 3.6), layout='constrained')
    axes = figure.subplots()
    axes.imshow(weights_TS, cmap='Blues', vmin=0, vmax=1)
    for t, s in np.ndindex(4, 4):
        shown = f'{weights_TS[t, s]:.4f}' if s <= t else 'masked'
        color = 'white' if weights_TS[t, s] > 0.6 else 'black'
        axes.text(s, t, shown, ha='center', va='center', fontsize=9, color=color)
    axes.set_xticks(range(4), WORDS)
    axes.set_yticks(range(4), WORDS)
    axes.set(xlabel='is looked at', ylabel='looks')
    figure.savefig(DOCS / 'lesson_mask.png', dpi=100)


if __name__ == '__main__':
    positions()
    mask()
