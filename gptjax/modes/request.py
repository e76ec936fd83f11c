"""What a mode is asked to do, and how it finds a trained model."""

import dataclasses
from pathlib import Path

import jax

from gptjax import tasks
from gptjax.config import Config, MeshConfig, with_use
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout
from gptjax.training import run_files


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line, understood."""

    config: Config
    workdir: Path
    command: str  # that names this work directory, to print as a part of the next one
    prompts: tuple[str, ...] = ()
    as_json: bool = False
    source: str = ''  # of --mode=import
    target: str = ''  # of --mode=export
    html: str = ''  # of --mode=sample
    program: str = 'python main.py'  # how it was started


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model."""

    task: object  # gptjax.training.task.Task, with the way of generating of its kind
    params: dict
    step: int
    layout: Layout  # of the parameters: a copy on every device


def load_trained(request: Request) -> Trained:
    """The trained model of the request's work directory, from what is in there alone.

    Raises:
      UserError: there is none, or it is damaged.
    """
    workdir = request.workdir
    if not run_files.is_trained(workdir):
        raise UserError(
            f'there is no trained model in {workdir}; train it first: '
            f'{request.command} --mode=train'
        )
    # How a model is used is for the command line to say, not for the run that made it.
    task = tasks.load(with_use(run_files.load_config(workdir), request.config), workdir)
    layout = Layout(MeshConfig(), jax.device_count())
    step, state = run_files.restore(task, workdir, request.config.sample.checkpoint, layout)
    return Trained(task, jax.block_until_ready(state.params), step, layout)
