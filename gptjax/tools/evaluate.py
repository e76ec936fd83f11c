"""--mode=eval: the exact loss over the whole validation split."""

import json

from gptjax.tools.request import Request, Trained, load_trained
from gptjax.training.progress import say


def run(request: Request) -> int:
    """Prints the figures, as one JSON object with --json."""
    trained = load_trained(request)
    figures = measure(trained)
    if request.as_json:
        print(json.dumps(figures))
    else:
        say(f'Step {trained.step} of {request.workdir}, whole validation split:')
        print(trained.task.describe_figures(figures))
    return 0


def measure(trained: Trained) -> dict:
    """All figures of a trained model, and its step."""
    return trained.task.evaluate(trained.params, trained.layout, whole=True) | {
        'step': trained.step
    }
