"""loss.png can be drawn of anything."""

import pytest

from gptjax.tasks.curves import plot_losses


@pytest.mark.parametrize(
    'rows',
    [
        [],
        [{'step': 1, 'train_loss': 4.0}],
        [{'step': 5, 'train_loss': 3.0, 'val_loss': 3.1}],
        [{'step': i, 'train_loss': 4 / i, 'val_loss': 5 / i} for i in range(1, 30)],
    ],
    ids=len,
)
def test_curves_can_be_drawn(tmp_path, rows):
    figure = plot_losses(rows, 'a title')
    figure.savefig(tmp_path / 'loss.png')
    assert (tmp_path / 'loss.png').read_bytes().startswith(b'\x89PNG')
    assert figure._repr_png_().startswith(b'\x89PNG')  # What a notebook shows.
