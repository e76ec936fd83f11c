"""The tasks by name. Adding one is a folder here and a line in the table."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from gptjax.config import USE, Config, with_use
from gptjax.console import Say
from gptjax.errors import UserError, nearest
from gptjax.files import DamagedError
from gptjax.manifest import DamagedRunError
from gptjax.tasks.reads import refuse_unread

if TYPE_CHECKING:
    from gptjax.tasks.protocols import Task

TASKS = {
    'language_model': 'gptjax.tasks.language_model.task:LanguageModel',
    'translation': 'gptjax.tasks.translation.task:Translation',
    'gan': 'gptjax.tasks.gan.task:Gan',
}


def create(config: Config, say: Say) -> 'Task':
    """The configured task with its data, ready to be trained.

    Raises:
      UserError: the task is unknown, a knob has no effect or does not fit, or data is missing.
    """
    task = _class(config)
    refuse_unread(config, task.reads)
    return task.create(config, say)


def load(config: Config, workdir: Path, asked: Config | None = None) -> 'Task':
    """The task of a work directory, from what is in there alone, ready to be used.

    The sampling sections of `asked` are used instead of the run's.

    Raises:
      UserError: something in there is missing or damaged, or a sampling knob has no effect.
    """
    task = _class(config)
    if asked is not None:
        config = with_use(config, asked)
        refuse_unread(config, task.reads, USE)
    try:
        return task.load(config, workdir)
    except (OSError, UnicodeDecodeError, DamagedError) as error:
        raise DamagedRunError(workdir, error) from None


def _class(config: Config) -> type['Task']:
    if config.task not in TASKS:
        raise UserError(f'task={config.task!r} is unknown; {nearest(config.task, list(TASKS))}')
    module, name = TASKS[config.task].split(':')
    return getattr(importlib.import_module(module), name)
