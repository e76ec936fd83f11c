"""Frozen dataclasses with bounds: what `gptjax/config/` is written in.

A field made by `knob` carries its bounds and its meaning; `Section` enforces them, `build` makes
the dataclass of nested mappings, `flatten` lists the dotted names.
"""

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gptjax.errors import UserError, nearest

LARGEST_INT = 2**31 - 1  # JAX counts in int32

# Bound -> what holds of a value within it, and how a message says so. NaN is within none.
BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    'low': (operator.ge, 'at least'),
    'above': (operator.gt, 'above'),
    'high': (operator.le, 'at most'),
    'below': (operator.lt, 'below'),
}


def knob(default: Any, meaning: str, *, choices: tuple[str, ...] = (), **bounds: float) -> Any:
    """A dataclass field with its bounds: low <= value <= high, above < value < below."""
    metadata = {'meaning': meaning, 'choices': choices, **bounds}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Section:
    """A dataclass of knobs, whose values are checked when it is made."""

    def __post_init__(self) -> None:
        words = re.findall('[A-Z][a-z]*', type(self).__name__.removesuffix('Config'))
        prefix = '_'.join(words).lower() + '.' if words else ''
        for field in dataclasses.fields(self):
            if field.metadata:
                _check(prefix + field.name, getattr(self, field.name), **field.metadata)


def _check(name: str, value: Any, meaning: str, choices: tuple, **bounds: float) -> None:
    if choices and value not in choices:
        raise UserError(
            f'{name}={value!r} is not one of {", ".join(choices)}; set {name} to one of these'
        )
    for bound, limit in bounds.items():
        is_within, relation = BOUNDS[bound]
        if not is_within(value, limit):
            raise UserError(
                f'{name}={value} must be {relation} {limit} ({meaning}); set {name} accordingly'
            )
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise UserError(f'{name}={value} must be at most {LARGEST_INT}; set it lower')
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f'{name}={value} must be finite; set {name} accordingly')


def flatten(config: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every knob below a configuration dataclass."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f'{prefix}{field.name}.')
        else:
            yield prefix + field.name, value


def build(cls: type, values: Mapping[str, Any], prefix: str = '') -> Any:
    """A dataclass from nested mappings; raises UserError for unknown keys and wrong types."""
    kinds = {field.name: field.type for field in dataclasses.fields(cls)}
    for key in values:
        if key not in kinds:
            known = [prefix + name for name in kinds]
            raise UserError(f'unknown configuration key {prefix}{key}; {nearest(key, known)}')
    return cls(**{key: _as_type(kinds[key], value, prefix + key) for key, value in values.items()})


def _as_type(kind: Any, value: Any, name: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, Section):
        if isinstance(value, Mapping):
            return build(kind, value, f'{name}.')
        raise UserError(f'{name}={value!r} is not a group of knobs')
    if kind == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    wanted = {int: 'a whole number', float: 'a number', str: 'a text', bool: 'True or False'}
    raise UserError(f'{name}={value!r} must be {wanted.get(kind, "a tuple of texts")}')
