"""--mode=sample: continues prompts with a trained model."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence

from gptjax.tools.request import Request, Trained, load_trained
from gptjax.training.progress import say


def run(request: Request) -> int:
    """Prints the texts as they come, or one JSON object with --json."""
    trained = load_trained(request)
    config = request.config.sample
    prompts = request.prompts or ('',)
    if config.unknown == 'skip':
        prompts = tuple(_without_unknown(trained, prompt) for prompt in prompts)
    pieces = trained.task.stream_text(trained.params, prompts, config)
    rows = [prompt for prompt in prompts for _ in range(config.num_samples)]
    say(f'Step {trained.step} of {request.workdir}')
    if request.as_json:
        texts = map(''.join, zip(*pieces, strict=True))
        samples = [{'prompt': p, 'text': t} for p, t in zip(rows, texts, strict=True)]
        sampling = dataclasses.asdict(config)
        print(json.dumps({'samples': samples, 'step': trained.step, 'sampling': sampling}))
    else:
        show(rows, pieces)
    return 0


def show(prompts: Sequence[str], pieces: Iterable[list[str]]) -> None:
    """Prints each row's prompt and continuation on standard output.

    A single row is printed as it comes; of several, each is printed when it is whole.

    Args:
      prompts: one for each row.
      pieces: of the rows, as `stream_text` gives them.
    """
    if len(prompts) == 1:
        _write(prompts[0])
        for (piece,) in pieces:
            _write(piece)
        _write('\n')
        return
    texts = map(''.join, zip(*pieces, strict=True))
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True), 1):
        _write(f'--- {i} of {len(prompts)} ---\n{prompt}{text}\n')


def _write(text: str) -> None:
    if sys.stdout is None:  # Closed by the shell.
        return
    # A terminal that lacks a character shows a mark instead of ending the program.
    encoding = sys.stdout.encoding or 'utf-8'
    sys.stdout.write(text.encode(encoding, 'replace').decode(encoding))
    sys.stdout.flush()


def _without_unknown(trained: Trained, prompt: str) -> str:
    kept = trained.task.tokenizer.drop_unknown(prompt)
    if kept != prompt:
        say(f'Dropped {len(prompt) - len(kept)} unknown characters of the prompt; left: {kept!r}')
    return kept
