"""Encoded pairs -> batches of a few shapes. A batch is a function of (seed, step, process).

Pairs of like lengths share a shape, so that little is padding and nothing is compiled anew after
each shape was seen. A batch is a dict of int32 arrays: `source` (B, S) with `source_lengths` (B,),
`inputs` and `targets` (B, T) with `lengths` (B,), the targets in each row that count.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.tasks.translation.pairs import Pair, Tokenizers
from gptjax.text.batches import rows_of_process
from gptjax.text.tokenizers import end_of

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """Pairs of token ids, grouped by shape."""

    sources: Sequence[np.ndarray]  # each ends with the token that ends a text
    targets: Sequence[np.ndarray]  # without it: it begins the inputs and ends the targets
    lengths: np.ndarray  # (P, 2): tokens of each source and target, with the one that ends it
    end: int  # of the target's vocabulary
    shapes: tuple[tuple[int, int], ...]  # (S, T) of each bucket
    members: tuple[np.ndarray, ...]  # the pairs in each bucket

    @classmethod
    def make(
        cls, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], end: int, count: int
    ) -> 'Buckets':
        """At most `count` buckets, with shapes that make the padding least."""
        lengths_P2 = np.array([(len(s), len(t) + 1) for s, t in zip(sources, targets, strict=True)])
        order, cuts = _cut(lengths_P2, count)
        members = tuple(np.sort(part) for part in np.split(order, cuts))
        shapes = tuple((int(s), int(t)) for s, t in (lengths_P2[part].max(0) for part in members))
        return cls(sources, targets, lengths_P2, end, shapes, members)

    @property
    def padding(self) -> float:
        """Share of the tokens in all batches of an epoch that are none."""
        room = sum(sum(s) * len(m) for s, m in zip(self.shapes, self.members, strict=True))
        return 1 - float(self.lengths.sum()) / room

    def batch(
        self, seed: int, step: int, batch_size: int, process: int = 0, processes: int = 1
    ) -> Batch:
        """This process's rows of the step's batch.

        An epoch shows every pair once (a few twice, where a bucket's last batch is filled up);
        all processes draw all rows, so their number changes no row.
        """
        counts = [-(-len(members) // batch_size) for members in self.members]
        epoch, index = divmod(step, sum(counts))
        bucket, rows = self._epoch(seed, epoch, batch_size)[index]
        return self.rows(bucket, rows[rows_of_process(batch_size, process, processes)])

    def in_order(self, batch_size: int, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """This process's rows of batches that have every pair once; missing rows have length 0."""
        own = rows_of_process(batch_size, process, processes)
        for bucket, members in enumerate(self.members):
            for first in range(0, len(members), batch_size):
                chosen = members[first : first + batch_size][own]
                yield self.rows(bucket, chosen, own.stop - own.start)

    def rows(self, bucket: int, members: np.ndarray, batch_size: int = 0) -> Batch:
        """Some pairs of a bucket as arrays of its shape."""
        s, t = self.shapes[bucket]
        b = max(batch_size, len(members))
        source, line = np.zeros((b, s), np.int32), np.zeros((b, t + 1), np.int32)
        lengths_B2 = np.zeros((b, 2), np.int32)
        lengths_B2[: len(members)] = self.lengths[members]
        for i, pair in enumerate(members):
            source[i, : len(self.sources[pair])] = self.sources[pair]
            line[i, 0] = self.end
            line[i, 1 : lengths_B2[i, 1]] = self.targets[pair]
            line[i, lengths_B2[i, 1]] = self.end
        return {
            'source': source,
            'source_lengths': lengths_B2[:, 0],
            'inputs': line[:, :-1],
            'targets': line[:, 1:],
            'lengths': lengths_B2[:, 1],
        }

    @functools.lru_cache(maxsize=2)  # noqa: B019 - there is one of these in a run
    def _epoch(self, seed: int, epoch: int, batch_size: int) -> list[tuple[int, np.ndarray]]:
        draw = np.random.default_rng((seed, epoch))
        batches = []
        for bucket, members in enumerate(self.members):
            order = draw.permutation(members)
            count = -(-len(members) // batch_size)
            order = np.resize(order, count * batch_size)
            batches += [(bucket, part) for part in np.split(order, count)]
        return [batches[i] for i in draw.permutation(len(batches))]


NO_PAIRS = Buckets((), (), np.zeros((0, 2), int), 0, (), ())


def encode(pairs: Sequence[Pair], tokenizers: Tokenizers, config: Config, *, split: str) -> Buckets:
    """Pairs of texts of a split, in buckets; both tokenizers have a token that ends a text.

    Raises:
      UserError: a pair is over the block; nothing is ever cut off it.
    """
    tokenizer, target_tokenizer = tokenizers
    sources = [np.append(tokenizer.encode(source), end_of(tokenizer)) for source, _ in pairs]
    targets = [target_tokenizer.encode(target) for _, target in pairs]
    end, count = end_of(target_tokenizer), config.translation.buckets
    buckets, block_size = Buckets.make(sources, targets, end, count), config.model.block_size
    longest_P = buckets.lengths.max(1)
    if longest_P.max() > block_size:
        raise UserError(
            f'{(longest_P > block_size).sum()} {split} pairs are longer than '
            f'model.block_size={block_size}: up to {longest_P.max()} tokens with the one that ends '
            f'a text; use model.block_size={longest_P.max()}, or take these pairs out'
        )
    return buckets


def _cut(lengths_P2: np.ndarray, count: int) -> tuple[np.ndarray, list[int]]:
    """Sorts pairs by length and cuts the row where the rectangles around the parts are least."""
    # The longer side, measured by how long that side usually is, decides the shape.
    size_P = (lengths_P2 / lengths_P2.mean(0)).max(1)
    order = np.argsort(size_P, kind='stable')
    # Only places between different lengths, and of those not too many, can be cuts.
    places = np.flatnonzero(np.diff(size_P[order])) + 1
    if len(places) > 128:
        places = places[np.linspace(0, len(places) - 1, 128).astype(int)]
    edges = np.array([0, *places, len(order)])
    n = len(edges) - 1
    area = np.full((n + 1, n + 1), np.inf)  # of the pairs between two edges, in one shape
    for j in range(n, 0, -1):
        widest = np.zeros(2, int)
        for i in range(j - 1, -1, -1):
            widest = np.maximum(widest, lengths_P2[order[edges[i] : edges[i + 1]]].max(0))
            area[i, j] = widest.sum() * (edges[j] - edges[i])
    best, came_from = area[0].copy(), []
    for _ in range(min(count, n) - 1):
        through = best[:, None] + area
        came_from.append(through.argmin(0))
        best = through.min(0)
    cuts, j = [], n
    for previous in reversed(came_from):
        j = int(previous[j])
        cuts.append(int(edges[j]))
    return order, sorted(cuts)
