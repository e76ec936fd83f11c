"""--mode=report: a page about a run, from its work directory alone."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from gptjax import run_files, tasks
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.files import write_atomically
from gptjax.generation.requests import whole_texts
from gptjax.modes import page
from gptjax.modes.request import Request, open_run
from gptjax.report import record
from gptjax.report.page import Model, Report, Sample
from gptjax.run import Run

MOST_SAMPLES = 4  # checkpoints
MOST_PROMPTS = 3
SAMPLE_TOKENS = 128
TOLERANCE = 1e-3  # relative: another machine rounds in another order


def run(request: Request) -> int:
    """Writes report.html into the work directory, or prints its figures with --json."""
    path = Path(request.html or request.workdir / 'report.html')
    if not request.as_json:
        page.check(path)
    found = record.read(request.workdir)
    others = _others(request)
    trained = run_files.is_trained(request.workdir)
    if request.verify and not trained:
        raise UserError(
            f'--verify evaluates a checkpoint again, and {request.workdir} has none yet; '
            'leave it out, or train first'
        )
    opened = open_run(request) if trained else None
    verified = verify(opened) if request.verify and opened else ''
    made = make(found, opened, others=others, verified=verified)
    if request.as_json:
        print(made.to_json())
    else:
        write(made, path)
        say(f'Wrote {path}: open it in a browser')
    return 0


def _others(request: Request) -> list[record.Record]:
    """The runs of --against; raises UserError if one is named twice."""
    seen = {request.workdir.resolve()}
    for name in request.against:
        if Path(name).resolve() in seen:
            raise UserError(
                f'--against={name} is a run that is there already: a run cannot be compared with '
                'itself; leave it out'
            )
        seen.add(Path(name).resolve())
    return [record.read(Path(name)) for name in request.against]


def make(
    found: record.Record,
    opened: Run | None,
    *,
    evaluated: Mapping[str, Any] | None = None,
    others: Sequence[record.Record] = (),
    verified: str = '',
) -> Report:
    """The report of a run, with what its model tells if it is trained.

    `evaluated` has the figures of the whole validation split, if they are known.
    """
    task = opened.task if opened else tasks.load(found.config, found.workdir)
    verdict = task.verdict(found.evaluations)
    return Report(found, verdict, examine(opened, evaluated) if opened else None, others, verified)


def write(report: Report, path: Path) -> None:
    """Writes the page, whole or not at all."""
    write_atomically(path, report.to_html().encode('utf-8', 'replace'))


def examine(run: Run, figures: Mapping[str, Any] | None = None) -> Model:
    """Evaluates a trained model and lets its checkpoints write; see `make`."""
    samples = _samples(run)
    task: Any = run.task
    by_token = None
    if hasattr(task, 'by_token'):
        texts = [text for sample in samples for _, text in sample.passages]
        by_token = task.by_token(run.params, texts)
        if not by_token:  # An imported model has no held-out text.
            figures = {}
    if figures is None:
        figures = run.evaluate().figures
    return Model(run.step, task.describe_model(), figures, _parts(run.params), samples, by_token)


def verify(run: Run) -> str:
    """A sentence about the checkpoint's loss, evaluated again.

    Raises UserError if it is not what was saved with it.
    """
    checkpoints = run_files.checkpoints(run.workdir)
    latest = run.config.sample.checkpoint == 'latest'
    wanted = (checkpoints.saved() if latest else checkpoints.best_first())[0]
    if run.step != wanted:
        raise UserError(
            f'checkpoint {wanted} of {run.workdir} is damaged; restore it from a backup, or leave '
            'out --verify'
        )
    saved = checkpoints.val_loss(run.step)
    if not math.isfinite(saved):
        raise UserError(
            f'checkpoint {run.step} of {run.workdir} was saved without a validation loss, so there '
            'is nothing to compare with; leave out --verify'
        )
    found = run.task.validate(run.params, run.layout)['val_loss']
    if not abs(found - saved) <= TOLERANCE * abs(saved):
        raise UserError(
            f'checkpoint {run.step} of {run.workdir} has a validation loss of {found:.6f}, and '
            f'{saved:.6f} was saved with it; restore the work directory from a backup'
        )
    return (
        f'Evaluated again, the checkpoint of step {run.step:,} has the validation loss that was '
        f'saved with it: {found:.6f}, a difference of {abs(found - saved):.0e}'
    )


def _samples(run: Run) -> list[Sample]:
    """What some of the checkpoints write, the first, the last and the run's own among them."""
    saved = run_files.checkpoints(run.workdir)
    knobs = {'max_new_tokens': SAMPLE_TOKENS, 'num_samples': 1}
    knobs = {name: n for name, n in knobs.items() if f'sample.{name}' in run.task.reads}
    found = []
    for step, params in run.checkpoints(MOST_SAMPLES):
        prompts = run.task.prompts(())[:MOST_PROMPTS]
        texts = whole_texts(dataclasses.replace(run, params=params).stream(prompts, **knobs))
        passages = [
            passage
            for prompt, text in zip(prompts, texts, strict=True)
            for passage in run.task.passages(prompt, text)
        ]
        loss = saved.val_loss(step)
        found.append(Sample(step, loss if math.isfinite(loss) else None, passages))
    return found


def _parts(params: Any) -> list[tuple[str, int]]:
    """How many numbers each part of a model has, all its blocks together."""
    found: dict[str, int] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key.rstrip('0123456789').rstrip('_') for key in path if key.key != 'params']
        name = '/'.join(names[: 3 if len(names) > 3 else 2])
        found[name] = found.get(name, 0) + x.size
    return [*found.items(), ('all', sum(found.values()))]
