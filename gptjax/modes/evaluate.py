"""--mode=eval: the exact loss over the whole validation split."""

import dataclasses
import json
from pathlib import Path

from gptjax.modes.request import Request, Trained, load_trained
from gptjax.training.progress import say


def run(request: Request) -> int:
    """Prints the figures, as one JSON object with --json."""
    trained, split = load_trained(request), 'whole validation split'
    path = request.config.data.path
    if path and path != trained.task.config.data.path:
        trained = dataclasses.replace(trained, task=trained.task.with_text(Path(path)))
        split = f'all of {path}'
    figures = measure(trained)
    if request.as_json:
        print(json.dumps(figures))
    else:
        say(f'Step {trained.step} of {request.workdir}, {split}:')
        print(trained.task.describe_figures(figures))
    return 0


def measure(trained: Trained) -> dict:
    """All figures of a trained model, and its step."""
    return trained.task.evaluate(trained.params, trained.layout, whole=True) | {
        'step': trained.step
    }
