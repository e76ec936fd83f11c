"""What a mode is asked to do."""

import dataclasses
from pathlib import Path

from gptjax import run_files
from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.run import Run


@dataclasses.dataclass(frozen=True)
class ServeFlags:
    """Of --mode=serve."""

    host: str = '127.0.0.1'
    port: int = 8000
    slots: int = 16
    token_file: str = ''
    allow_origin: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The command line, understood."""

    config: Config
    workdir: Path
    command: str = ''  # the command without its mode, to print as a part of the next one
    program: str = 'python main.py'  # how it was started
    prompts: tuple[str, ...] = ()
    as_json: bool = False
    source: str = ''  # of --mode=import
    target: str = ''  # of --mode=export
    html: str = ''  # of --mode=sample, explain and report
    live: bool = True  # of --mode=explain
    against: tuple[str, ...] = ()  # of --mode=report and serve
    verify: bool = False  # of --mode=report
    check: bool = False  # of --mode=plan
    serve: ServeFlags = ServeFlags()


def open_run(request: Request) -> Run:
    """The run of the request's work directory; raises UserError if it is missing or damaged."""
    if not run_files.is_trained(request.workdir):
        raise UserError(
            f'there is no trained model in {request.workdir}; train it first: '
            f'{request.command} --mode=train'
        )
    config = request.config
    return Run.open(request.workdir, checkpoint=config.sample.checkpoint, asked=config)
