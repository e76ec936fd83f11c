"""--mode=sample: continues prompts with a trained model."""

import dataclasses
import json
import sys
from collections.abc import Sequence

from gptjax.config import SampleConfig
from gptjax.tools.request import Request, Trained, load_trained
from gptjax.training.progress import say


def run(request: Request) -> int:
    """Prints the texts as they come, or one JSON object with --json."""
    trained = load_trained(request)
    prompts = request.prompts or ('',)
    if request.config.sample.unknown == 'skip':
        prompts = tuple(_without_unknown(trained, prompt) for prompt in prompts)
    say(f'Step {trained.step} of {request.workdir}')
    show(trained, prompts, request.config.sample, as_json=request.as_json)
    return 0


def show(
    trained: Trained, prompts: Sequence[str], config: SampleConfig, *, as_json: bool = False
) -> None:
    """Prints each prompt with its continuations on standard output.

    A single text is printed as it comes; of several, each is printed when it is whole.
    """
    rows = [prompt for prompt in prompts for _ in range(config.num_samples)]
    texts = ['' for _ in rows]
    streaming = len(rows) == 1 and not as_json
    if streaming:
        _write(rows[0])
    for pieces in trained.task.stream_text(trained.params, prompts, config):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        if streaming:
            _write(pieces[0])
    if as_json:
        samples = [{'prompt': p, 'text': t} for p, t in zip(rows, texts, strict=True)]
        sampling = dataclasses.asdict(config)
        print(json.dumps({'samples': samples, 'step': trained.step, 'sampling': sampling}))
    elif streaming:
        _write('\n')
    else:
        for i, (prompt, text) in enumerate(zip(rows, texts, strict=True), 1):
            _write(f'--- {i} of {len(rows)} ---\n{prompt}{text}\n')


def _write(text: str) -> None:
    # A terminal that lacks a character shows a mark instead of ending the program.
    encoding = sys.stdout.encoding or 'utf-8'
    sys.stdout.write(text.encode(encoding, 'replace').decode(encoding))
    sys.stdout.flush()


def _without_unknown(trained: Trained, prompt: str) -> str:
    kept = trained.task.tokenizer.drop_unknown(prompt)
    if kept != prompt:
        say(f'Dropped {len(prompt) - len(kept)} unknown characters of the prompt; left: {kept!r}')
    return kept
