"""Batches: functions of (seed, step, process), that lose and repeat no target."""

import jax
import numpy as np
import pytest

from gptjax.tasks.language_model.evaluation import EVAL_TOKENS, windows
from gptjax.text.batches import consecutive_windows, random_windows, whole_split

TOKENS = np.arange(100, 151, dtype=np.uint16)  # 51 tokens, 50 targets


def targets(batch):
    """All targets that count, in order."""
    rows = zip(batch['targets'], batch['lengths'], strict=True)
    return [int(t) for row, length in rows for t in row[:length]]


def test_random_windows_are_windows_of_the_text():
    batch = random_windows(TOKENS, seed=1, step=0, batch_size=64, block_size=7)
    assert (batch['targets'] == batch['inputs'] + 1).all()
    assert (np.diff(batch['inputs']) == 1).all()
    assert (batch['lengths'] == 7).all()
    assert batch['inputs'].dtype == np.int32
    # Every start occurs, the last one included.
    many = random_windows(TOKENS, seed=1, step=0, batch_size=2000, block_size=7)
    assert set(many['inputs'][:, 0]) == set(range(100, 144))


def test_random_windows_are_a_function_of_seed_and_step():
    def draw(seed, step):
        return random_windows(TOKENS, seed=seed, step=step, batch_size=8, block_size=7)['inputs']

    assert (draw(1, 5) == draw(1, 5)).all()
    assert (draw(1, 5) != draw(1, 6)).any()
    assert (draw(1, 5) != draw(2, 5)).any()
    assert (draw((1, 1), 5) != draw(1, 5)).any()


@pytest.mark.parametrize('make', [random_windows, consecutive_windows])
def test_processes_share_a_batch_without_overlap(make):
    seed = {'seed': 1} if make is random_windows else {}
    whole = make(TOKENS, step=3, batch_size=6, block_size=7, **seed)
    for p in range(3):
        part = make(TOKENS, step=3, batch_size=6, block_size=7, process=p, processes=3, **seed)
        assert (part['inputs'] == whole['inputs'][2 * p : 2 * p + 2]).all()


@pytest.mark.parametrize('block_size', [1, 7, 10, 49, 50, 60])
@pytest.mark.parametrize('batch_size', [1, 3, 100])
def test_the_whole_split_counts_each_target_once(block_size, batch_size):
    batches = list(whole_split(TOKENS, batch_size=batch_size, block_size=block_size))
    assert [t for batch in batches for t in targets(batch)] == list(range(101, 151))
    assert {batch['inputs'].shape for batch in batches} == {(batch_size, block_size)}


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('processes', [1, 2, 4])
def test_several_processes_count_each_target_once(tiny, monkeypatch, processes, whole):
    seen, total = [], 0
    monkeypatch.setattr(jax, 'process_count', lambda: processes)
    for process in range(processes):
        monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
        for batch in windows(TOKENS, tiny, processes, whole):
            seen += targets(batch)
            total += batch['lengths'].sum()
    assert total == len(seen)
    if whole:
        assert sorted(seen) == list(range(101, 151))
    else:  # As many as one process counts.
        rows = -(-EVAL_TOKENS // 16 // processes) * processes
        assert total == tiny.train.eval_batches * rows * 16


def test_consecutive_batches_go_through_the_text_and_begin_again():
    seen = []
    for step in range(4):
        seen += targets(consecutive_windows(TOKENS, step=step, batch_size=3, block_size=10))
    # Five windows in an epoch, twelve in four batches of three.
    assert seen == [*range(101, 151), *range(101, 151), *range(101, 121)]


def test_the_last_consecutive_window_is_shorter():
    batch = consecutive_windows(TOKENS[:14], step=0, batch_size=2, block_size=10)
    assert list(batch['lengths']) == [10, 3]
