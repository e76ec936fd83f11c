"""Which knobs a task reads: all others have to keep their defaults."""

import dataclasses
from collections.abc import Collection, Mapping

from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.errors import UserError

Reads = Mapping[str, frozenset[str]]  # the knobs that a task reads, by section


def every(section: type, *, but: Collection[str] = ()) -> frozenset[str]:
    """The names of all knobs of a section, less some."""
    names = {field.name for field in dataclasses.fields(section)}
    if unknown := set(but) - names:
        raise ValueError(f'{section.__name__} has no {sorted(unknown)}')
    return frozenset(names - set(but))


def refuse_unread(config: Config, reads: Reads, sections: Collection[str] = ()) -> None:
    """Refuses knobs without an effect.

    Args:
      config: of the command.
      reads: the knobs that the task reads, by section.
      sections: which sections to look at; all, if none is named.

    Raises:
      UserError: a knob that the task does not read has another value than its default.
    """
    defaults = dict(flatten(Config()))
    for name, value in flatten(config):
        section, _, knob = name.rpartition('.')
        if not section or (sections and section not in sections):
            continue
        if knob not in reads.get(section, ()) and value != defaults[name]:
            raise UserError(
                f'{name}={value} has no effect with task={config.task}; '
                f'leave {name} at {defaults[name]!r}'
            )
