"""Knobs that only some tasks have a use for."""

from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.errors import UserError


def require_default(config: Config, *names: str) -> None:
    """Refuses knobs that the task would not look at.

    Raises:
      UserError: one of the dotted names has another value than its default.
    """
    defaults = dict(flatten(Config()))
    for name, value in flatten(config):
        if name in names and value != defaults[name]:
            raise UserError(
                f'{name}={value} means nothing to task={config.task}; '
                f'leave it at {defaults[name]!r}'
            )
