"""Draws the losses of several work directories over each other.

python scripts/process_curves.py docs/processes.png runs/one runs/four
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from gptjax.metrics_log import read_metrics


def main() -> None:
    """Draws the training loss of each run, the first one as a wide line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('picture')
    parser.add_argument('workdirs', nargs='+', type=Path)
    args = parser.parse_args()
    figure = Figure(figsize=(7, 4), layout='constrained')
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    runs = {}
    for i, workdir in enumerate(args.workdirs):
        rows = [row for row in read_metrics(workdir / 'metrics.jsonl') if 'train_loss' in row]
        steps, losses = zip(*((row['step'], row['train_loss']) for row in rows), strict=True)
        style = {'linewidth': 5, 'alpha': 0.35} if i == 0 else {'linewidth': 1.2}
        axes.plot(steps, losses, label=workdir.name, **style)
        runs[workdir.name] = steps, losses
    first, *others = runs.values()
    for steps, losses in others:
        differences = [abs(a / b - 1) for a, b in zip(losses, first[1], strict=True)]
        below.semilogy(steps, [max(difference, 1e-9) for difference in differences])
    axes.set_ylabel('training loss, nats per token')
    axes.legend()
    below.set_ylabel('relative\ndifference')
    below.set_xlabel('step')
    figure.savefig(args.picture, dpi=110)


if __name__ == '__main__':
    main()
