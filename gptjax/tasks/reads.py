"""Which knobs a task reads: all others have to keep their defaults."""

from collections.abc import Collection

from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.errors import UserError

DEFAULTS = dict(flatten(Config()))


def every(*beginnings: str, but: tuple[str, ...] = ()) -> frozenset[str]:
    """The dotted names of all knobs that begin with one of these, and with none of the others."""
    for beginning in beginnings + but:
        if not any(name.startswith(beginning) for name in DEFAULTS):
            raise ValueError(f'no knob begins with {beginning}')
    return frozenset(
        name for name in DEFAULTS if name.startswith(beginnings) and not name.startswith(but)
    )


def refuse_unread(config: Config, reads: Collection[str], sections: Collection[str] = ()) -> None:
    """Refuses knobs without an effect, in some sections or, if none is named, in all.

    Raises:
      UserError: a knob that the task does not read has another value than its default.
    """
    for name, value in flatten(config):
        section = name.rpartition('.')[0]
        if not section or (sections and section not in sections):
            continue
        if name not in reads and value != DEFAULTS[name]:
            raise UserError(
                f'{name}={value} has no effect with task={config.task}; '
                f'leave {name} at {DEFAULTS[name]!r}'
            )
