"""--mode=train: trains or continues a work directory, then shows what came of it."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import jax

from gptjax import run_files, tasks
from gptjax.config.schema import flatten
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.modes import sample
from gptjax.modes.request import Request, open_run
from gptjax.parallel.mesh import Layout
from gptjax.run_files import checkpoints as open_checkpoints
from gptjax.run_files import config_path, load_config
from gptjax.tasks.protocols import Task
from gptjax.training.loop import abstract_state, initial_state, train
from gptjax.training.metrics import read_metrics

SAMPLE_TOKENS = 400  # shown after training


def run(request: Request) -> int:
    """Returns 0, or 128 plus the number of the signal that stopped the run."""
    config, workdir = request.config, request.workdir
    exists = config_path(workdir).exists()
    if exists and config.train.resume == 'never':
        raise UserError(
            f'{workdir} already holds a run and train.resume=never; '
            'use another --workdir, or --config.train.resume=auto to continue it'
        )
    layout = Layout(config.mesh, config.train.batch_size // config.train.accumulate)
    task = tasks.create(config, say)
    checkpoints = open_checkpoints(workdir, config.train.keep)
    like = abstract_state(task, layout)
    if checkpoints.saved() and not exists:
        raise UserError(
            f'{workdir} has checkpoints but no config.json; restore that file from a backup, '
            'or use another --workdir'
        )
    workdir.mkdir(parents=True, exist_ok=True)
    with _only_one(workdir):
        if checkpoints.saved():
            _require_same(request, task)
            step, state = checkpoints.resume(like)
            if step >= config.train.steps:
                say(
                    f'{workdir} is finished: {step} of {config.train.steps} steps. Train on with '
                    f'--config.train.steps={2 * step}, or start anew with another --workdir'
                )
                return 0
            _announce(task, layout)
            _tell_changes(request)
            say(f'Continuing {workdir} from step {step} of {config.train.steps}')
        else:
            _announce(task, layout)
            state = initial_state(task, layout)
        run_files.save(task.config, task.save, workdir, continues=bool(checkpoints.saved()))
        outcome = train(task, layout, state, checkpoints, workdir / 'metrics.jsonl')
    rows = read_metrics(workdir / 'metrics.jsonl')
    figure = task.plot(rows, f'{config.name} in {workdir}')
    figure.savefig(workdir / 'loss.png', dpi=120)
    if outcome.stopped_by:
        say(f'Stopped by {outcome.stopped_by.name} and saved at step {int(outcome.state.step)}.')
        say(f'Continue with:\n  {request.command} --mode=train')
        return 128 + outcome.stopped_by
    _show_result(request, task.verdict(rows))
    return 0


@contextlib.contextmanager
def _only_one(workdir: Path) -> Iterator[None]:
    """Refuses a second training of a work directory while the first one runs."""
    with open(workdir / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{workdir} is being trained by another process; wait for it, stop it, '
                'or use another --workdir'
            ) from None
        yield


def _tell_changes(request: Request) -> None:
    """Names the training knobs that differ from those that the run had so far."""
    before = dict(flatten(load_config(request.workdir).train))
    for name, value in flatten(request.config.train):
        if before[name] != value:
            say(f'train.{name} was {before[name]} and is {value} from here on')


def _require_same(request: Request, task: Task) -> None:
    """Raises UserError if the work directory holds another model, tokenizer or text."""
    before = tasks.load(load_config(request.workdir), request.workdir).fingerprint()
    now = task.fingerprint()
    differing = [
        f'{name} was {before.get(name)} and is {now.get(name)}'
        for name in before.keys() | now.keys()
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise UserError(
            f'{request.workdir} cannot be continued: {"; ".join(sorted(differing))}. '
            'Use the old settings, or another --workdir'
        )


def _announce(task: Task, layout: Layout) -> None:
    """Says on what the run computes and what it will train."""
    devices = layout.mesh.devices
    kind, count = devices.flat[0].device_kind, devices.size
    where = 'No GPU found' if jax.default_backend() == 'cpu' else f'Found {kind}'
    where += f' (computing on {count} CPU devices)' if layout.must_wait else ''
    train_config = task.config.train
    say(f'{where}: training {task.config.name}, {task.describe_model()}')
    say(
        f'{train_config.steps} steps of {task.tokens_per_step():,} tokens, '
        f'{task.describe_data()}; the first step compiles'
    )


def _show_result(request: Request, verdict: str) -> None:
    run = open_run(request)
    say(f'Validation, whole split, step {run.step}: {run.evaluate()}')
    if verdict:
        say(f'{verdict}.')
    say(f'Curves: {request.workdir / "loss.png"}. A sample:\n')
    tokens = {'max_new_tokens': SAMPLE_TOKENS, 'num_samples': 1}
    sample.show_own(run, **{k: v for k, v in tokens.items() if k in run.task.reads['sample']})
    say('\nFor more, type:')
    say(f'  {request.command} --mode=sample')
