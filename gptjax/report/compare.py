"""Several runs beside each other: what differs, and whether seeds explain the difference."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from gptjax.config.schema import flatten
from gptjax.report.record import Record

SEEDS = ('train.seed', 'sample.seed', 'gan_sampling.seed')
NO_DIFFERENCE = ('name', 'data.cache_dir', *SEEDS)  # knobs that are told apart from others


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    names: tuple[str, ...]
    losses: tuple[float, ...]  # the lowest validation loss of each

    @property
    def mean(self) -> float:
        """Of the losses."""
        return float(np.mean(self.losses))


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between two groups of runs, each with several seeds."""

    first: str
    second: str
    difference: float  # of the means, second minus first
    p: float  # Welch's t-test, two-sided


def knobs(record: Record) -> dict[str, object]:
    """The knobs that can tell two runs apart, by their dotted names."""
    return {name: value for name, value in flatten(record.config) if not name.startswith('sample.')}


def differing(records: Sequence[Record]) -> dict[str, list[object]]:
    """The knobs that are not the same in all runs, with the value of each run."""
    columns = [knobs(record) for record in records]
    return {
        name: [column[name] for column in columns]
        for name in columns[0]
        if any(column[name] != columns[0][name] for column in columns)
    }


def groups(records: Sequence[Record]) -> list[Group]:
    """The runs that have a validation loss, those that differ in seeds alone together."""
    found: dict[tuple, list[tuple[str, float]]] = {}
    for record in records:
        if record.best:
            same = {n: v for n, v in knobs(record).items() if n not in NO_DIFFERENCE}
            found.setdefault(tuple(same.items()), []).append((str(record.workdir), record.best[1]))
    return [Group(*map(tuple, zip(*runs, strict=True))) for runs in found.values()]


def differences(found: Sequence[Group]) -> list[Difference]:
    """Each pair of groups with at least two losses: could seeds alone have made the difference?"""
    from scipy import stats  # It comes with JAX.

    # Without any spread there is nothing to test.
    several = [group for group in found if len(set(group.losses)) > 1]
    return [
        Difference(
            a.names[0],
            b.names[0],
            b.mean - a.mean,
            float(stats.ttest_ind(a.losses, b.losses, equal_var=False).pvalue),
        )
        for a, b in itertools.combinations(several, 2)
    ]
