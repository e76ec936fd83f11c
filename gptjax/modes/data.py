"""--mode=data: prepares the data of any task and shows what a model would see of it."""

import json

from gptjax import tasks
from gptjax.console import say
from gptjax.modes.request import Request


def run(request: Request) -> int:
    """Prints sizes, vocabulary and examples, as one JSON object with --json."""
    report = tasks.create(request.config, say).preview()
    print(json.dumps(report.figures, ensure_ascii=False) if request.as_json else report.text)
    return 0
