"""--mode=sample: continues prompts with a trained model."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gptjax.config import SampleConfig
from gptjax.modes import page
from gptjax.modes.request import Request, Trained, load_trained
from gptjax.training.progress import say


def run(request: Request) -> int:
    """Prints the texts as they come, or one JSON object with --json, or writes a page of them."""
    if request.html:
        page.check(Path(request.html))
    trained = load_trained(request)
    config = request.config.sample
    prompts = trained.task.usable_prompts(request.prompts)
    if config.unknown == 'skip':
        prompts = tuple(_without_unknown(trained, prompt) for prompt in prompts)
    pieces = trained.task.stream_text(trained.params, prompts, config)
    rows = [prompt for prompt in prompts for _ in range(config.num_samples)]
    say(f'Step {trained.step} of {request.workdir}')
    if request.as_json or request.html:
        texts = whole_texts(trained, pieces)
        samples = [{'prompt': p, 'text': t} for p, t in zip(rows, texts, strict=True)]
        if request.html:
            _write_page(Path(request.html), trained, samples)
        if request.as_json:
            sampling = dataclasses.asdict(config)
            print(json.dumps({'samples': samples, 'step': trained.step, 'sampling': sampling}))
    elif trained.task.continues:
        show(rows, pieces)
    else:
        show_answers(rows, pieces, beside=not request.prompts)
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


def show_answers(prompts: Sequence[str], parts: Iterable[list[str]], beside: bool) -> None:
    """Prints each row's answer on a line of its own, in order, as they come.

    Args:
      prompts: one for each row.
      parts: the answers of some rows after the other, as `stream_text` gives them.
      beside: whether each prompt is printed before its answer.
    """
    answers = itertools.chain.from_iterable(parts)
    for prompt, answer in zip(prompts, answers, strict=True):
        _write(f'{prompt}\n  {answer}\n' if beside else f'{answer}\n')


def show_own(trained: Trained, config: SampleConfig) -> None:
    """Prints what the model makes of its task's own prompts."""
    prompts = trained.task.usable_prompts(())
    pieces = trained.task.stream_text(trained.params, prompts, config)
    if trained.task.continues:
        show(prompts, pieces)
    else:
        show_answers(prompts, pieces, beside=True)


def whole_texts(trained: Trained, pieces: Iterable[list[str]]) -> Iterator[str]:
    """The text of each row, of what `stream_text` gave."""
    if trained.task.continues:
        return map(''.join, zip(*pieces, strict=True))
    return itertools.chain.from_iterable(pieces)


def _write_page(path: Path, trained: Trained, samples: list[dict[str, str]]) -> None:
    title = f'{trained.task.config.name}, step {trained.step}'
    texts = [(sample['prompt'], sample['text']) for sample in samples]
    if not trained.task.continues:  # Another language, so maybe another direction.
        texts = [alone for prompt, text in texts for alone in ((prompt, ''), ('', text))]
    page.write(path, title, texts)
    say(f'Wrote {path}')


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
