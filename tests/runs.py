"""Training in a folder, without the command line."""

from gptjax.metrics_log import MetricsLog
from gptjax.training.loop import train


def train_in(folder, task, layout, state, checkpoints):
    """Trains from a state, with metrics.jsonl in the folder; returns the outcome."""
    log = MetricsLog(folder / 'metrics.jsonl', int(state.step))
    return train(
        task, layout, state, checkpoints=checkpoints, trackers=[log], elapsed_s=log.elapsed_s
    )
