"""Trains or continues a work directory: what the command line and Python share."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import jax

from gptjax import processes, run_files, starts, tasks, trackers
from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.metrics_log import MetricsLog, read_metrics
from gptjax.models.linear import compute_dtype, matmul_dtype
from gptjax.parallel.mesh import Layout, name_of, parts, split_of
from gptjax.plan.preflight import refuse_before_data, refuse_what_cannot_fit
from gptjax.progress import RunProgress
from gptjax.report.live import LiveReport
from gptjax.tasks.protocols import Task
from gptjax.training.loop import Outcome, abstract_state, initial_state, layout_of, train
from gptjax.training.metrics import Tracker
from gptjax.training.steps import TrainState


def train_run(config: Config, workdir: Path, *, command: str = '') -> Outcome | None:
    """Trains a work directory, or continues it from its last checkpoint, and draws loss.png.

    `command` is what a user types to repeat it, for the records. Returns how it ended; None if the
    run was finished before. Raises UserError if a knob or the data does not fit, the directory
    holds another run or is in use, or training failed.
    """
    exists = run_files.config_path(workdir).exists()
    if exists and config.train.resume == 'never':
        raise UserError(
            f'{workdir} already holds a run and train.resume=never; '
            'use another work directory, or train.resume=auto to continue it'
        )
    with processes.main_first('task'):
        refuse_before_data(config)
        task = tasks.create(config, say)
    layout = layout_of(task)
    refuse_what_cannot_fit(task, layout)
    checkpoints = run_files.checkpoints(workdir, config.train.keep)
    like = abstract_state(task, layout)
    if checkpoints.saved() and not exists:
        raise UserError(
            f'{workdir} has checkpoints but no config.json; restore that file from a backup, '
            'or use another work directory'
        )
    about = {'code': starts.code_sha256(), **dict(flatten(task.config)), **task.fingerprint()}
    processes.require_same(about)
    with contextlib.ExitStack() as held:
        with processes.main_first('workdir'):
            if processes.is_main():
                workdir.mkdir(parents=True, exist_ok=True)
                held.enter_context(_only_one(workdir))
            elif not workdir.exists():
                raise UserError(
                    f'{workdir} is not there; use a work directory that all processes share'
                )
        interrupts = held.enter_context(processes.watched())
        if checkpoints.saved():
            _require_same(task, workdir)
            step, state = checkpoints.resume(like)
            if step >= config.train.steps:
                return None
            _announce(task, layout, like)
            _tell_changes(config, workdir)
            say(f'Continuing {workdir} from step {step} of {config.train.steps}')
        else:
            _announce(task, layout, like)
            state = initial_state(task, layout)
        receivers: tuple[Tracker, ...] = ()
        elapsed_s = 0.0
        if processes.is_main():
            run_files.save(task.config, task.save, workdir, continues=bool(checkpoints.saved()))
            starts.note(workdir, int(state.step), command)
            log = MetricsLog(workdir / 'metrics.jsonl', int(state.step))
            elapsed_s = log.elapsed_s
            receivers = (
                *(log, RunProgress(int(state.step), config.train.steps)),
                LiveReport(workdir, task.verdict),
                *trackers.make(config, workdir, int(state.step)),
            )
        outcome = train(
            *(task, layout, state),
            checkpoints=checkpoints,
            trackers=receivers,
            elapsed_s=elapsed_s,
            interrupts=interrupts,
        )
    if processes.is_main():
        rows = read_metrics(workdir / 'metrics.jsonl')
        task.plot(rows, f'{config.name} in {workdir}').savefig(workdir / 'loss.png', dpi=120)
    return outcome


@contextlib.contextmanager
def _only_one(workdir: Path) -> Iterator[None]:
    """Refuses a second training of a work directory while the first one runs."""
    with open(workdir / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{workdir} is being trained by another process; wait for it, stop it, '
                'or use another work directory'
            ) from None
        yield


def _tell_changes(config: Config, workdir: Path) -> None:
    """Names the training knobs that differ from those that the run had so far."""
    before = dict(flatten(run_files.load_config(workdir).train))
    for name, value in flatten(config.train):
        if before[name] != value:
            say(f'train.{name} was {before[name]} and is {value} from here on')


def _require_same(task: Task, workdir: Path) -> None:
    """Raises UserError if the work directory holds another model, tokenizer or text."""
    config = run_files.load_config(workdir)
    before = {'task': config.task} | tasks.load(config, workdir).fingerprint()
    now = {'task': task.config.task} | task.fingerprint()
    differing = [
        f'{name} was {before.get(name)} and is {now.get(name)}'
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise UserError(
            f'{workdir} cannot be continued: {"; ".join(differing)}. '
            'Use the old settings, or another work directory'
        )


def _tell_unsplit(layout: Layout, like: TrainState) -> None:
    """Names each width of a parameter that stays whole, since the mesh does not divide it."""
    sizes = layout.mesh.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(like.params):
        for axes, width in zip(split_of(path, leaf.shape), leaf.shape, strict=False):
            n = parts(axes, sizes)
            if width % n:
                name = name_of(path)
                near = ' or '.join(str(k * n) for k in (width // n, width // n + 1) if k)
                say(
                    f'{name}: a width of {width} cannot be split into {n} parts, so each device '
                    f'has all of it; {near} could be split'
                )


def _announce(task: Task, layout: Layout, like: TrainState) -> None:
    """Says on what the run computes and what it will train."""
    kind, count = layout.mesh.devices.flat[0].device_kind, layout.mesh.size
    found = 'No GPU found' if jax.default_backend() == 'cpu' else f'Found {kind}'
    copies = f'split over {count} devices' if count > 1 else 'on one device'
    if layout.offload:
        copies += ", the optimizer's state in the host's memory"
    dtype, factors = compute_dtype(task.config.model), matmul_dtype(task.config)
    if factors != dtype and 'train.matmul_dtype' in task.reads:
        dtype += f' with {factors} products'
    train_config = task.config.train
    say(f'{found}: training {task.config.name}, {task.describe_model()}, in {dtype} {copies}')
    say(
        f'{train_config.steps} steps of {task.tokens_per_step():,} tokens, '
        f'{task.describe_data()}; the first step compiles'
    )
    _tell_unsplit(layout, like)
