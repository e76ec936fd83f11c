"""--mode=eval: the exact loss over the whole validation split."""

import json

from gptjax import processes
from gptjax.console import say
from gptjax.modes.request import Request, open_run


def run(request: Request) -> int:
    """Prints the figures, as one JSON object with --json."""
    run = open_run(request)
    path = request.config.data.path
    other = path if path and path != run.config.data.path else None
    report = run.evaluate(other)
    if not processes.is_main():
        return 0
    if request.as_json:
        print(json.dumps({**report.figures, 'step': run.step}))
    else:
        split = f'all of {other}' if other else 'whole validation split'
        say(f'Step {run.step} of {request.workdir}, {split}:')
        print(report)
    return 0
