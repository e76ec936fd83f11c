"""Collectives in the text of a compiled program: kind, axes of the mesh, bytes, times."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gptjax.parallel.mesh import Sizes

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
INSTRUCTION = re.compile(rf'^\s*(?:ROOT )?%[\w.-]+ = (.*?) ({"|".join(KINDS)})\(')
COMPUTATION = re.compile(r'^(?:ENTRY )?%([\w.-]+) \(.*\{$')
CALLED = re.compile(
    r'(?:body|condition|calls|to_apply|branch_computations)=\{?((?:%[\w.-]+(?:, )?)+)\}?'
)
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# Groups as axes of a mesh (its sizes, how devices are numbered in it, which axes), or as an array.
MESH = re.compile(
    r'replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{(.*?)\}'
)
IOTA = re.compile(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
ARRAY = re.compile(r'\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]')


class Collective(NamedTuple):
    """All collectives of a kind over the same axes, in one optimizer step of one device."""

    kind: str
    axes: str  # of the mesh, as 'data' or 'fsdp x tensor'
    times: float
    bytes: float  # of all of them: the result, or what is reduced or scattered


def read(text: str, sizes: Sizes) -> list[Collective]:
    """The collectives of a program.

    Those in a loop count as often as it runs where XLA knows that, otherwise once.

    Args:
      text: of the compiled program, from `compiled.as_text()`.
      sizes: of the axes of the mesh, whose devices are numbered with the last axis fastest.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for line, times in _lines_with_times(text):
        match = INSTRUCTION.match(line)
        if not match:
            continue
        shape, kind = match.groups()
        groups = _groups(line)
        axes = ' x '.join(_axes(groups, sizes))
        scattered = groups.shape[1] if kind == 'reduce-scatter' else 1
        total = found.setdefault((kind, axes), [0.0, 0.0])
        total[0] += times
        total[1] += times * scattered * _bytes(shape)
    return [Collective(*key, *total) for key, total in found.items()]


def extrapolated(
    first: list[Collective], second: list[Collective], more: float
) -> list[Collective]:
    """What a program has that differs from `first` by `more` times as much as `second` does."""
    by_key = [{(c.kind, c.axes): c for c in part} for part in (first, second)]
    found = []
    for key in dict.fromkeys([*by_key[0], *by_key[1]]):
        a, b = (part.get(key, Collective(*key, 0.0, 0.0)) for part in by_key)
        times, size = a.times + more * (b.times - a.times), a.bytes + more * (b.bytes - a.bytes)
        if times > 0 and size > 0:
            found.append(Collective(*key, times, size))
    return found


def _lines_with_times(text: str) -> Iterator[tuple[str, int]]:
    """Each line of a program, and how often it runs."""
    computations: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            computations.append((match[1], []))
        elif computations:
            computations[-1][1].append(line)
    runs = dict.fromkeys((name for name, _ in computations), 0)
    runs[computations[-1][0]] = 1  # Callers come after what they call, and the entry is the last.
    for name, lines in reversed(computations):
        for line in lines:
            yield line, runs[name]
            trips = TRIPS.search(line)
            for called in CALLED.findall(line):
                for other in re.findall(r'%([\w.-]+)', called):
                    runs[other] += runs[name] * (int(trips[1]) if trips else 1)


def _groups(line: str) -> np.ndarray:
    """The devices of a collective, a row for each group that communicates."""
    if match := re.search(r'source_target_pairs=\{(.*?)\}\}', line):
        pairs = re.findall(r'\{(\d+),(\d+)', match[1] + '}')
        return np.array([pair for pair in pairs if pair[0] != pair[1]], int).reshape(-1, 2)
    if match := MESH.search(line):
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", match[1])}
        along = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", match[4])]
        ids = _ids(match[2] or str(math.prod(sizes.values())), match[3])
        grid = np.moveaxis(ids.reshape(*sizes.values()), along, range(-len(along), 0))
        return grid.reshape(-1, math.prod(grid.shape[-len(along) :]))
    if match := IOTA.search(line):
        return _ids(match[2], match[3]).reshape(_numbers(match[1]))
    match = re.search(r'replica_groups=\{(.*?)\}\}', line)
    rows = re.findall(r'\{([\d,]+)', match[1] if match else '')
    return np.array([_numbers(row) for row in rows])


def _ids(dims: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... in an array of these dimensions, transposed into that order of its axes."""
    ids = np.arange(math.prod(_numbers(dims))).reshape(_numbers(dims))
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(',')]


def _axes(groups: np.ndarray, sizes: Sizes) -> list[str]:
    """The axes along which the members of a group differ."""
    places = np.unravel_index(groups, tuple(sizes.values()))
    return [n for n, place in zip(sizes, places, strict=True) if (place != place[:, :1]).any()]


def _bytes(shape: str) -> float:
    """Of all arrays in the text of a shape, such as '(f32[8,16]{1,0}, bf16[4])'."""
    return sum(
        math.prod(map(int, filter(None, dims.split(',')))) * int(bits or 8) / 8
        for _, bits, dims in ARRAY.findall(shape)
    )
