"""Aligned texts, their buckets and batches, and lines that are too long."""

import numpy as np
import pytest

from gptjax.config import DataConfig, TranslationConfig
from gptjax.errors import UserError
from gptjax.tasks.translation.buckets import Buckets
from gptjax.tasks.translation.lines import split_line
from gptjax.tasks.translation.pairs import parse_tsv, read_splits, to_tsv
from gptjax.text.recipes import RECIPES


def write(path, text):
    path.write_bytes(text.encode())
    return str(path)


def test_a_tsv_and_two_files_give_the_same_pairs(tmp_path):
    lines = [(f'a{i}', f'b {i}') for i in range(10)]
    tsv = write(tmp_path / 'both.tsv', '\ufeff' + ''.join(f'{a}\t{b}\r\n' for a, b in lines))
    first = write(tmp_path / 'a', '\n'.join(a for a, _ in lines))
    second = write(tmp_path / 'b', ''.join(b + '\n' for _, b in lines))
    one = read_splits(DataConfig(path=tsv), TranslationConfig())
    two = read_splits(DataConfig(path=first), TranslationConfig(target_path=second))
    assert one.train == two.train == tuple(lines[:9])
    assert one.val == two.val == tuple(lines[9:])
    assert one.sha256 != two.sha256
    assert parse_tsv(to_tsv(one.train), 'x') == lines[:9]


def test_a_tab_within_a_line_of_two_files_becomes_a_space(tmp_path):
    a, b = write(tmp_path / 'a', 'x\ty\n' * 3), write(tmp_path / 'b', 'z\n' * 3)
    splits = read_splits(DataConfig(path=a), TranslationConfig(target_path=b))
    assert parse_tsv(to_tsv(splits.train), 'x') == list(splits.train) == [('x y', 'z')] * 2


def test_what_is_held_out(tmp_path):
    tsv = write(tmp_path / 'x.tsv', ''.join(f'{i}\t{i}\n' for i in range(20)))
    random = read_splits(DataConfig(path=tsv, split='documents'), TranslationConfig())
    assert len(random.val) == 2
    assert sorted(random.train + random.val, key=lambda pair: int(pair[0])) == [
        (str(i), str(i)) for i in range(20)
    ]
    val = write(tmp_path / 'val.tsv', 'v\tw\n')
    own = read_splits(DataConfig(path=tsv, val_path=val), TranslationConfig())
    assert (len(own.train), own.val) == (20, (('v', 'w'),))
    a, b = write(tmp_path / 'a', 'v\n'), write(tmp_path / 'b', 'w\n')
    files = read_splits(DataConfig(path=tsv, val_path=a), TranslationConfig(val_target_path=b))
    assert files.val == (('v', 'w'),)


def test_files_of_unequal_length_name_both_counts(tmp_path):
    a, b = write(tmp_path / 'a', 'x\ny\nz\n'), write(tmp_path / 'b', 'x\ny\n')
    with pytest.raises(UserError, match=r'a has 3 lines and .*b has 2; .*same number'):
        read_splits(DataConfig(path=a), TranslationConfig(target_path=b))


@pytest.mark.parametrize(('line', 'tabs'), [('no tab', 0), ('a\tb\tc', 2)])
def test_a_line_that_is_no_pair_is_named(tmp_path, line, tabs):
    tsv = write(tmp_path / 'x.tsv', f'a\tb\n{line}\n')
    with pytest.raises(UserError, match=rf'x.tsv has {tabs} tabs in line 2 .*target_path=FILE'):
        read_splits(DataConfig(path=tsv), TranslationConfig())


def test_pairs_with_an_empty_side_are_left_out_and_counted(tmp_path):
    tsv = write(tmp_path / 'x.tsv', 'a\tb\n\tb\na\t\n\nc\td\ne\tf\n')
    said = []
    splits = read_splits(DataConfig(path=tsv), TranslationConfig(), said.append)
    assert splits.train + splits.val == (('a', 'b'), ('c', 'd'), ('e', 'f'))
    assert said == ['3 pairs with an empty side are left out']


@pytest.mark.parametrize('text', ['', '\n', 'a\tb\n'])
def test_a_split_without_pairs_is_refused(tmp_path, text):
    tsv = write(tmp_path / 'x.tsv', text)
    with pytest.raises(UserError, match=r'there are no (training|validation) pairs in .*x.tsv'):
        read_splits(DataConfig(path=tsv), TranslationConfig(), lambda _: None)


@pytest.mark.parametrize('name', ['target_path', 'val_target_path'])
def test_a_target_needs_its_source(name):
    source = 'data.' + name.replace('target_', '')
    with pytest.raises(UserError, match=rf'{name}=x needs .*{source}=FILE'):
        read_splits(DataConfig(), TranslationConfig(**{name: 'x'}))


def test_a_missing_target_file_is_one_line(tmp_path):
    a = write(tmp_path / 'a', 'x\n')
    with pytest.raises(UserError, match=r'cannot read .*nowhere'):
        read_splits(DataConfig(path=a), TranslationConfig(target_path=str(tmp_path / 'nowhere')))


def buckets(count=4, pairs=300) -> Buckets:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 40, pairs)
    sources = [np.full(n + 1, i % 90 + 1) for i, n in enumerate(lengths)]
    targets = [np.full(max(1, n + draw.integers(-2, 3)), i % 90 + 1) for i, n in enumerate(lengths)]
    return Buckets.make(sources, targets, 0, count)


def test_more_buckets_pad_less_and_hold_every_pair_once():
    padding = [buckets(count).padding for count in (1, 2, 4, 8)]
    assert padding == sorted(padding, reverse=True)
    assert padding[-1] < 0.15
    eight = buckets(8)
    assert len(eight.shapes) == 8
    assert sorted(np.concatenate(eight.members)) == list(range(300))
    for shape, members in zip(eight.shapes, eight.members, strict=True):
        assert tuple(eight.lengths[members].max(0)) == shape


def test_equal_lengths_need_one_bucket():
    same = Buckets.make([np.ones(3)] * 5, [np.ones(2)] * 5, 0, 8)
    assert (same.shapes, same.padding) == (((3, 3),), 0)


def test_a_batch_is_what_teacher_forcing_needs():
    batch = buckets().batch(7, 3, 8)
    for i in range(8):
        n, s = batch['lengths'][i], batch['source_lengths'][i]
        assert batch['inputs'][i, 0] == batch['targets'][i, n - 1] == 0
        assert (batch['inputs'][i, 1:n] == batch['targets'][i, : n - 1]).all()
        assert (batch['inputs'][i, 1:n] == batch['source'][i, 0]).all()
        assert (batch['source'][i, :s] > 0).all()
        assert (batch['source'][i, s:] == 0).all()
        assert (batch['targets'][i, n:] == 0).all()


def test_batches_are_a_function_of_seed_step_and_process():
    one, two = buckets(), buckets()
    for step in (0, 5, 50, 51):
        batch, again = one.batch(1, step, 8), two.batch(1, step, 8)
        for name in batch:
            assert (batch[name] == again[name]).all()
        for process in (0, 1):
            part = two.batch(1, step, 8, process, 2)
            assert (part['source'] == batch['source'][4 * process : 4 * process + 4]).all()
    assert any(
        (one.batch(1, s, 8)['lengths'] != one.batch(2, s, 8)['lengths']).any() for s in range(3)
    )


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_an_epoch_shows_every_pair_and_evaluation_every_one_once(processes):
    one = buckets(pairs=60)
    steps = sum(-(-len(members) // 8) for members in one.members)
    lines = {tuple(row) for s in range(steps) for row in one.batch(3, s, 8)['inputs'].tolist()}
    parts = [list(one.in_order(8, process, processes)) for process in range(processes)]
    assert len(set(map(len, parts))) == 1
    in_order = [batch for part in parts for batch in part]
    assert {len(batch['lengths']) for batch in in_order} == {8 // processes}
    rows = [
        tuple(row)
        for batch in in_order
        for row, n in zip(batch['inputs'].tolist(), batch['lengths'], strict=True)
        if n
    ]
    assert len(rows) == 60
    assert set(rows) == lines


def test_lines_are_cut_where_one_would_breathe():
    def fits(text):
        return len(text) <= 20

    assert split_line('short', fits) == ['short']
    line = 'One sentence here. Another one, with a clause; and more words than fit.'
    parts = split_line(line, fits)
    assert ' '.join(parts) == line
    assert all(map(fits, parts))
    assert parts[0] == 'One sentence here.'
    assert split_line('x' * 30, fits) is None
    assert split_line('fine ' + 'x' * 30, fits) is None


def test_the_toy_is_words_and_the_same_backwards():
    texts = RECIPES['reverse']()
    train, val = (parse_tsv(text, 'x') for text in (texts.train, texts.val))
    assert all(b == a[::-1] for a, b in train + val)
    assert len(train) > 30_000
    assert len(val) == 500
    assert not set(train) & set(val)
    assert RECIPES['reverse']() == texts
