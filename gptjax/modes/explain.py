"""--mode=explain: a page that shows how a model came to its predictions."""

from pathlib import Path

from gptjax.console import say
from gptjax.errors import UserError
from gptjax.files import write_atomically
from gptjax.modes import page
from gptjax.modes.request import Request, open_run


def run(request: Request) -> int:
    """Writes explain.html into the work directory, or prints the same numbers with --json."""
    if len(request.prompts) > 2:
        raise UserError(
            f'--mode=explain takes one --prompt, or a prompt and its continuation, and got '
            f'{len(request.prompts)}; leave out the others'
        )
    path = Path(request.html or request.workdir / 'explain.html')
    if not request.as_json:
        page.check(path)
    run = open_run(request)
    explained = run.explain(*request.prompts, live=request.live)
    if request.as_json:
        print(explained.to_json())
    else:
        write_atomically(path, explained.to_html().encode('utf-8', 'replace'))
        say(f'Wrote {path}: open it in a browser')
    return 0
