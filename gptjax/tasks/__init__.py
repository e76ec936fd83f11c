"""The tasks by name. Adding one is a file here and a line in the table."""

import importlib
from collections.abc import Callable
from pathlib import Path

from gptjax.config import Config
from gptjax.errors import UserError

TASKS = {
    'language_model': 'gptjax.tasks.language_model.task:LanguageModel',
    'translation': 'gptjax.tasks.translation.task:Translation',
    'gan': 'gptjax.tasks.gan.task:Gan',
}

Say = Callable[[str], None]


def create(config: Config, say: Say):
    """The configured task with its data, ready to be trained."""
    return _class(config).create(config, say)


def load(config: Config, workdir: Path):
    """The task of a work directory, from what is in there alone, ready to be used.

    Raises:
      UserError: something in there is missing or damaged.
    """
    try:
        return _class(config).load(config, workdir)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'the run in {workdir} is damaged ({error}); restore its files from a backup, '
            'or train again with another work directory'
        ) from None


def _class(config: Config):
    module, name = TASKS[config.task].split(':')
    return getattr(importlib.import_module(module), name)
