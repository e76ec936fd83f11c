"""Frozen dataclasses with bounds: what `gptjax/config/` is written in.

A field made by `knob` carries its bounds and its meaning; `check_bounds` enforces them, `build`
makes the dataclass of nested mappings, `flatten` lists the dotted names.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.errors import UserError, nearest

LARGEST_INT = 2**31 - 1  # JAX counts in int32


def knob(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with its bounds: low <= value <= high, above < value < below."""
    bounds = {'low': low, 'high': high, 'above': above, 'below': below, 'choices': choices}
    return dataclasses.field(default=default, metadata={'meaning': meaning, **bounds})


def check_bounds(config: Any) -> None:
    """Raises UserError for the first field whose value is outside its bounds."""
    words = re.findall('[A-Z][a-z]*', type(config).__name__.removesuffix('Config'))
    section = '_'.join(words).lower() + '.' if words else ''
    for field in dataclasses.fields(config):
        value, bounds = getattr(config, field.name), field.metadata
        if not bounds:
            continue
        name = section + field.name
        if bounds['choices'] and value not in bounds['choices']:
            raise UserError(
                f'{name}={value!r} is not one of {", ".join(bounds["choices"])}; '
                f'set {name} to one of these'
            )
        for bound, holds, relation in (
            ('low', lambda v, b: v >= b, 'at least'),
            ('above', lambda v, b: v > b, 'above'),
            ('high', lambda v, b: v <= b, 'at most'),
            ('below', lambda v, b: v < b, 'below'),
        ):
            limit = bounds[bound]
            # `not holds` rather than the opposite comparison: NaN fails every bound.
            if limit is not None and not holds(value, limit):
                raise UserError(
                    f'{name}={value} must be {relation} {limit} ({bounds["meaning"]}); '
                    f'set {name} accordingly'
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


def build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            known = [prefix + name for name in fields]
            raise UserError(f'unknown configuration key {prefix}{key}; {nearest(key, known)}')
    parsed = {}
    for name, value in values.items():
        kind: Any = fields[name].type
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise UserError(f'{prefix}{name}={value!r} is not a group of knobs')
            parsed[name] = build(kind, value, f'{prefix}{name}.')
        else:
            parsed[name] = _as_type(kind, value, prefix + name)
    return cls(**parsed)


def _as_type(kind: type, value: Any, name: str) -> Any:
    if kind == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    wanted = {int: 'a whole number', float: 'a number', str: 'a text', bool: 'True or False'}
    raise UserError(f'{name}={value!r} must be {wanted.get(kind, "a tuple of texts")}')
