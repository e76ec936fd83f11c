"""Draws the curves of a run: both losses, the penalty, and the figures of the sentences."""

from typing import TYPE_CHECKING

from gptjax.tasks.curves import new_figure
from gptjax.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAYERS = ('train_loss', 'critic_loss', 'penalty')
LIKENESSES = (
    *('unigram_distance', 'bigram_distance', 'length_distance'),
    *('bigram_share', 'trigram_share', 'distinct_2', 'duplicates'),
)


def plot(rows: list[Row], title: str) -> 'Figure':
    """The losses of both players and the gradient penalty, and the sentences' figures below."""
    figure = new_figure(8)
    players, likenesses = figure.subplots(2, 1, sharex=True)
    players.set(title=title, ylabel='loss')
    likenesses.set(xlabel='step of the generator', ylabel='distance, or share', ylim=(-0.02, 1.02))
    for axes, names in ((players, PLAYERS), (likenesses, LIKENESSES)):
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.3)
        for name in names:
            if points := [(row['step'], row[name]) for row in rows if name in row]:
                label = 'generator loss' if name == 'train_loss' else name.replace('_', ' ')
                axes.plot(*zip(*points, strict=True), linewidth=1, label=label)
        if axes.lines:
            axes.legend(frameon=False, fontsize='small')
    if val := [(row['val_loss'], row['step']) for row in rows if 'val_loss' in row]:
        best, step = min(val)
        likenesses.axvline(step, color='#d1495b', linestyle=':')
        likenesses.set_xlabel(
            f'step of the generator; dotted: the best, mean distance {best:.4f}, at {step}'
        )
    return figure
