"""Draws the curves of a run: loss.png, and what a notebook shows."""

import io
import textwrap
from typing import TYPE_CHECKING

from gptjax.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(height: float) -> 'Figure':
    """A figure 8 inches wide that notebooks show by themselves, without pyplot's global state."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            self.savefig(png := io.BytesIO(), dpi=100)
            return png.getvalue()

    return Shown(figsize=(8, height), layout='constrained')


def plot_losses(rows: list[Row], title: str, verdict: str = '') -> 'Figure':
    """Training and validation loss against the step, with the best step marked."""
    figure = new_figure(5)
    axes = figure.add_subplot(title=title, xlabel='optimizer step', ylabel='loss (nats per token)')
    if verdict:
        figure.text(0.01, 0.0, textwrap.fill(verdict, 110), fontsize=8, va='bottom')
        figure.set_layout_engine('constrained', rect=(0, 0.06, 1, 0.94))
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.3)
    train = [(row['step'], row['train_loss']) for row in rows if 'train_loss' in row]
    val = [(row['step'], row['val_loss']) for row in rows if 'val_loss' in row]
    if train:
        axes.plot(*zip(*train, strict=True), color='#9bb8d3', linewidth=1, label='training')
    if val:
        axes.plot(*zip(*val, strict=True), 'o-', color='#1f4e79', markersize=3, label='validation')
        best = min(val, key=lambda point: point[1])
        label = f'best: {best[1]:.4f} at step {best[0]}'
        axes.plot(*best, '*', color='#d1495b', markersize=14, label=label)
        # The first steps, near ln(V), would flatten everything that is worth seeing.
        highest = max(loss for step, loss in train + val if step >= 0.05 * max(val)[0])
        axes.set_ylim(min(loss for _, loss in train + val) - 0.05, highest + 0.05)
    if train or val:
        axes.legend(frameon=False)
    return figure
