"""--mode=sample: generates texts with a trained model."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from gptjax import processes, starts
from gptjax.config.schema import flatten
from gptjax.console import say
from gptjax.generation.requests import Piece, whole_texts
from gptjax.modes import page
from gptjax.modes.request import Request, open_run
from gptjax.run import Run
from gptjax.tasks.protocols import Writer


def run(request: Request) -> int:
    """Prints the texts as they come, or one JSON object with --json, or writes a page of them.

    Of several processes all compute and process 0 prints.
    """
    with processes.watched_without_steps():
        _write_texts(request)
    return 0


def _write_texts(request: Request) -> None:
    if request.html and processes.is_main():
        page.check(Path(request.html))
    run, config = open_run(request), request.config.sample
    task = run.task
    prompts = task.prompts(request.prompts)
    about = {'step': run.step, 'prompts': prompts, **dict(flatten(request.config))}
    processes.require_same({'code': starts.code_sha256()} | about)
    if config.unknown == 'skip':
        prompts = tuple(_without_unknown(run, prompt) for prompt in prompts)
    pieces = task.stream(run.params, prompts, config)
    rows = [prompt for prompt in prompts for _ in range(config.num_samples)]
    say(f'Step {run.step} of {request.workdir}')
    if not (request.as_json or request.html):
        show(task, rows, pieces, given=bool(request.prompts))
        return
    texts = whole_texts(pieces)
    if not processes.is_main():
        return
    if request.html:
        title = f'{run.config.name}, step {run.step}'
        passages = [task.passages(*row) for row in zip(rows, texts, strict=True)]
        page.write(Path(request.html), title, [one for several in passages for one in several])
        say(f'Wrote {request.html}')
    if request.as_json:
        samples = [{'prompt': p, 'text': t} for p, t in zip(rows, texts, strict=True)]
        sampling = dataclasses.asdict(config)
        print(json.dumps({'samples': samples, 'step': run.step, 'sampling': sampling}))


def show(task: Writer, prompts: Sequence[str], pieces: Iterable[Piece], *, given: bool) -> None:
    """Prints each row's text on standard output, in order: the first unfinished one as it comes.

    The task decides what stands before a text; `given`: the prompts, one a row, are the user's.
    """
    count = len(prompts)
    waiting = [
        task.heading(prompt, number=number, count=count, given=given)
        for number, prompt in enumerate(prompts, 1)
    ]
    finished, row = set(), 0
    _write(waiting[row])
    waiting[row] = ''
    for piece in pieces:
        waiting[piece.id] += piece.text
        if piece.finish:
            waiting[piece.id] += '\n'
            finished.add(piece.id)
        while row < count:
            _write(waiting[row])
            waiting[row] = ''
            if row not in finished:
                break
            row += 1


def show_own(run: Run, **sampling: object) -> None:
    """Prints what the model makes of its task's own prompts."""
    prompts = run.task.prompts(())
    with processes.watched_without_steps():
        show(run.task, prompts, run.stream(prompts, **sampling), given=False)


def _write(text: str) -> None:
    if sys.stdout is None or not processes.is_main():  # None: closed by the shell.
        return
    # A terminal that lacks a character shows a mark instead of ending the program.
    encoding = sys.stdout.encoding or 'utf-8'
    sys.stdout.write(text.encode(encoding, 'replace').decode(encoding))
    sys.stdout.flush()


def _without_unknown(run: Run, prompt: str) -> str:
    kept = run.task.tokenizer.drop_unknown(prompt)
    if kept != prompt:
        say(f'Dropped {len(prompt) - len(kept)} unknown characters of the prompt; left: {kept!r}')
    return kept
