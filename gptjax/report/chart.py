"""Line charts as SVG: small, in the colours of the page, readable without JavaScript."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 22, 34
MOST_POINTS = 600  # of a line
ENOUGH = 40  # points of a run that has settled


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve of a chart."""

    label: str
    x: np.ndarray
    y: np.ndarray
    kind: int = 0  # which of the colours


@dataclasses.dataclass(frozen=True)
class Mark:
    """A vertical line with words."""

    label: str
    x: float


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What the template needs: everything in pixels."""

    title: str
    x_title: str
    paths: list[tuple[str, int, str]]  # (label, colour, path)
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    top_ticks: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    rows: list[tuple[str, str, str]]  # the table behind the picture
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw(
    title: str,
    lines: Sequence[Line],
    *,
    x_title: str = 'optimizer step',
    marks: Sequence[Mark] = (),
    settled: bool = False,
    top: tuple[float, str] = (0.0, ''),
) -> Drawn:
    """A chart of at least one line that is not empty.

    With `settled` the vertical axis leaves out what only the first twentieth of the run reaches.
    `top` is a second axis, above: (how many of its units one of x is, what they are); 0 is none.
    """
    x_all = np.concatenate([line.x for line in lines])
    y_all = np.concatenate([line.y for line in lines])
    settled &= len(x_all) >= ENOUGH
    late = x_all >= x_all.min() + (x_all.max() - x_all.min()) / 20 if settled else x_all == x_all
    x_low, x_high = _range(x_all)
    y_low, y_high = _range(np.append(y_all[late], y_all.min()))

    def x_of(x: Any) -> Any:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_of(y: Any) -> Any:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    paths: list[tuple[str, int, str]] = []
    rows: list[tuple[str, str, str]] = []
    for line in lines:
        keep = thin(line.y)
        # Far above the picture is cut off by it, and needs no digits.
        y = np.maximum(y_of(line.y[keep]), -9e3)
        points = zip(x_of(line.x[keep]), y, strict=True)
        path = 'M' + 'L'.join(f'{a:.1f} {b:.1f}' for a, b in points)
        # A single point is a dash, or nobody would see it.
        paths.append((line.label, line.kind, path + 'm-3 0h6' * (len(keep) == 1)))
        few = thin(line.y, 12)
        rows += [
            (line.label, f'{x:,.6g}', f'{y:.5g}')
            for x, y in zip(line.x[few], line.y[few], strict=True)
        ]
    return Drawn(
        title,
        x_title,
        paths,
        [(float(x_of(x)), words) for x, words in _ticks(x_low, x_high)],
        [(float(y_of(y)), words) for y, words in _ticks(y_low, y_high)],
        [
            (float(x_of(x / top[0])), f'{_short(x)} {top[1]}')
            for x, _ in (_ticks(x_low * top[0], x_high * top[0]) if top[0] else ())
        ],
        [(float(x_of(mark.x)), mark.label) for mark in marks if x_low <= mark.x <= x_high],
        rows,
    )


def thin(y: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """The indices of at most about `most` points of a curve: all extremes are among them."""
    if len(y) <= most:
        return np.arange(len(y))
    edges = np.linspace(0, len(y), most // 2 + 1).astype(int)
    kept = {0, len(y) - 1}
    for first, end in itertools.pairwise(edges):
        kept |= {first + int(np.argmin(y[first:end])), first + int(np.argmax(y[first:end]))}
    return np.array(sorted(kept))


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    return (low, high) if high > low else (low - 0.5 - abs(low) / 20, high + 0.5 + abs(low) / 20)


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers from low to high, with their words."""
    from matplotlib.ticker import MaxNLocator

    places = MaxNLocator(6).tick_values(low, high)
    inside = [float(place) for place in places if low <= place <= high]
    step = places[1] - places[0]
    digits = next((d for d in range(5) if abs(round(step, d) - step) < 1e-9 * step), 5)
    if digits > 4:
        return [(place, f'{place:.1e}') for place in inside]
    return [(place, f'{place:,.{digits}f}') for place in inside]


def _short(number: float) -> str:
    """As 600k or 1.2M."""
    for unit, words in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
        if number >= unit:
            return f'{number / unit:g}{words}'
    return f'{number:g}'
