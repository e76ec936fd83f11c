"""Timing several sides in turns, and what their figures say of each other."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from gptjax.config import Config


def in_turns(
    timers: Mapping[str, Callable[[int], float]], config: Config, tokens: int, trial: int
) -> dict[str, dict]:
    """Tokens a second of each side: A B C A B C ..., each turn about `turn_s` long.

    Args:
      timers: for each side, how many times -> the seconds they took.
      config: its `bench` says how long to measure.
      tokens: done each time.
      trial: how many times to do it to see how long it takes, after once to warm up.
    """
    counts = {}
    for name, timer in timers.items():
        timer(1)
        counts[name] = max(1, round(config.bench.turn_s / (timer(trial) / trial)))
    speeds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(config.bench.rounds):
        for name, timer in timers.items():
            speeds[name].append(tokens * counts[name] / timer(counts[name]))
    return {name: summary(values) for name, values in speeds.items()}


def summary(speeds: list[float]) -> dict:
    """Median, least and most of some tokens a second, with all of them in order."""
    return {
        'tokens_per_s': statistics.median(speeds),
        'least': min(speeds),
        'most': max(speeds),
        'all': speeds,
    }


def compare(measured: dict[str, dict]) -> dict:
    """Adds the ratios of ours over each other side, turn by turn, and over the best: `ratio`."""
    ours = measured['jax']['all']
    ratios = {}
    for name, figures in measured.items():
        if name != 'jax':
            pairs = [a / b for a, b in zip(ours, figures['all'], strict=True)]
            ratios[name] = {'median': statistics.median(pairs), 'all': pairs}
    result: dict[str, Any] = {'sides': measured, 'ratios': ratios}
    torch_sides = [name for name in ratios if name.startswith('torch')]
    if torch_sides:
        best = max(torch_sides, key=lambda name: measured[name]['tokens_per_s'])
        result |= {'best': best, 'ratio': ratios[best]['median']}
    return result
