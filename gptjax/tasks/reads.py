"""Which knobs a task reads: all others have to keep their defaults."""

from collections.abc import Collection

from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.errors import UserError

DEFAULTS = dict(flatten(Config()))


def every(*sections: str, but: Collection[str] = ()) -> frozenset[str]:
    """The dotted names of all knobs of some sections, less some."""
    names = {name for name in DEFAULTS if name.partition('.')[0] in sections}
    if unknown := set(but) - names:
        raise ValueError(f'{sections} have no {sorted(unknown)}')
    return frozenset(names - set(but))


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
