"""What a mode is asked to do, and how it finds a trained model."""

import dataclasses
from pathlib import Path

import jax

from gptjax import tasks
from gptjax.config import Config, MeshConfig, from_json, with_use
from gptjax.errors import UserError
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.loop import abstract_state
from gptjax.training.progress import say
from gptjax.training.sharding import Layout


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line, understood."""

    config: Config
    workdir: Path
    command: str  # that names this work directory, to print as a part of the next one
    prompts: tuple[str, ...] = ()
    as_json: bool = False


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model."""

    task: object  # gptjax.training.task.Task, with the way of generating of its kind
    params: dict
    step: int
    layout: Layout  # of the parameters: a copy on every device


def config_path(workdir: Path) -> Path:
    """Where the resolved configuration of a run is; the last file that a new run writes."""
    return workdir / 'config.json'


def load_config(workdir: Path) -> Config:
    """The configuration of the run in a work directory.

    Raises:
      UserError: it cannot be read.
    """
    path = config_path(workdir)
    try:
        return from_json(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path} ({error}); restore it from a backup') from None


def load_trained(request: Request) -> Trained:
    """The trained model of the request's work directory, from what is in there alone.

    Raises:
      UserError: there is none, or it is damaged.
    """
    workdir, which = request.workdir, request.config.sample.checkpoint
    checkpoints = Checkpoints(workdir / 'checkpoints', say=say)
    if not config_path(workdir).exists() or not checkpoints.steps():
        raise UserError(
            f'there is no trained model in {workdir}; train it first: '
            f'{request.command} --mode=train'
        )
    task = tasks.load(with_use(load_config(workdir), request.config), workdir)
    layout = Layout(MeshConfig(), jax.device_count())
    order = checkpoints.best_first() if which == 'best' else checkpoints.steps()
    step, state = checkpoints.restore(abstract_state(task, layout), order)
    return Trained(task, jax.block_until_ready(state.params), step, layout)
