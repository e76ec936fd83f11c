"""Tokens -> batches. A batch is a function of (seed, step, process) and of nothing else.

Resuming therefore needs no iterator state, and every process of a larger machine can compute its
own rows. A batch is a dict of numpy arrays: `inputs` (B, T) int32, `targets` (B, T) int32 and
`lengths` (B,) int32, the number of targets in each row that count.
"""

from collections.abc import Iterator

import numpy as np

from gptjax.text.permutation import permuted

Batch = dict[str, np.ndarray]


def random_windows(
    tokens: np.ndarray,
    *,
    seed: int | tuple[int, ...],
    step: int,
    batch_size: int,
    block_size: int,
    process: int = 0,
    processes: int = 1,
) -> Batch:
    """Windows that start anywhere: this process's rows of the step's batch.

    All processes draw all starts, which costs nothing, so their number changes no row.
    """
    draw = np.random.default_rng((*np.atleast_1d(seed), step))
    start_B = draw.integers(0, len(tokens) - block_size, size=batch_size)
    return _windows(tokens, start_B[rows_of_process(batch_size, process, processes)], block_size)


def consecutive_windows(
    tokens: np.ndarray,
    *,
    step: int,
    batch_size: int,
    block_size: int,
    seed: int | None = None,
    process: int = 0,
    processes: int = 1,
) -> Batch:
    """Windows without overlap, each once an epoch; the last one is shorter.

    They come in order, or with a seed in an order that it and the epoch decide.
    """
    count = count_windows(tokens, block_size)
    own = rows_of_process(batch_size, process, processes)
    epoch_B, index_B = np.divmod(step * batch_size + np.arange(batch_size)[own], count)
    if seed is not None:
        for epoch in np.unique(epoch_B):
            now = epoch_B == epoch
            index_B[now] = permuted(index_B[now], count, (seed, int(epoch)))
    return _windows(tokens, index_B * block_size, block_size)


def whole_split(
    tokens: np.ndarray, *, batch_size: int, block_size: int, process: int = 0, processes: int = 1
) -> Iterator[Batch]:
    """Every window, and so every target, once; rows missing in the last batch have length 0.

    Each process has its rows of every batch, so all processes have equally many batches.
    """
    count = count_windows(tokens, block_size)
    own = rows_of_process(batch_size, process, processes)
    for first in range(0, count, batch_size):
        index_B = np.arange(first, first + batch_size)[own]
        yield _windows(tokens, index_B * block_size, block_size)


def rows_of_process(batch_size: int, process: int, processes: int) -> slice:
    """The rows of a batch that a process has: a block, since its devices hold neighbouring rows.

    `processes` divides the size of the batch.
    """
    size = batch_size // processes
    return slice(process * size, (process + 1) * size)


def count_windows(tokens: np.ndarray, block_size: int) -> int:
    """How many consecutive windows hold all targets: every token but the first is one."""
    return -(-(len(tokens) - 1) // block_size)


def _windows(tokens: np.ndarray, start_B: np.ndarray, block_size: int) -> Batch:
    length_B = np.clip(len(tokens) - 1 - start_B, 0, block_size)
    rows = np.zeros((len(start_B), block_size + 1), np.int32)
    for row, start, length in zip(rows, start_B, length_B, strict=True):
        if length:
            row[: length + 1] = tokens[start : start + length + 1]
    return {'inputs': rows[:, :-1], 'targets': rows[:, 1:], 'lengths': length_B.astype(np.int32)}
