"""Token shards: the same whatever the processes and interruptions, and read as one array."""

import dataclasses
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from gptjax import tasks
from gptjax.config import DataConfig
from gptjax.errors import UserError
from gptjax.text import batches, shards
from gptjax.text.recipes import END_OF_DOCUMENT
from gptjax.text.shards import index, part, sources, writing
from gptjax.text.shards.index import ShardedTokens
from gptjax.text.token_files import Split
from tests.conftest import ROOT, one_line, replace, run_main

END = 256  # of byte tokens


def texts(n, prefix):
    return [f'{prefix}{i}: ' + 'é verse ' * (i % 5) for i in range(n)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Files of all kinds, with five documents or more in each, but for the text."""
    path = tmp_path_factory.mktemp('texts')
    lines = [json.dumps({'text': text, 'id': 1}) + '\n' for text in texts(40, 'a')]
    (path / 'a.jsonl').write_text(''.join(lines) + '\n')
    with gzip.open(path / 'b.jsonl.gz', 'wt') as file:
        file.write(''.join(json.dumps({'text': text}) + '\n' for text in texts(20, 'b')))
    table = pyarrow.table({'text': [*texts(30, 'c'), None], 'n': range(31)})
    pyarrow.parquet.write_table(table, path / 'c.parquet')
    (path / 'd.txt').write_text('\n'.join(texts(9, 'd')))
    (path / '.hidden').write_text('not read')
    return path


ALL = [*texts(40, 'a'), *texts(20, 'b'), *texts(30, 'c'), '\n'.join(texts(9, 'd'))]


def data_of(path, out, **knobs) -> DataConfig:
    given = {'tokenizer': 'byte', 'val_fraction': 0.2, 'workers': 1}
    return DataConfig(path=str(path), shards=str(out), **given | knobs)


def prepared(data):
    return shards.prepare(data, None, lambda line: None)


def split_at_ends(corpus, tokens):
    ends = np.flatnonzero(tokens[:] == END)
    parts = np.split(tokens[:], ends + 1)[:-1]
    return [corpus.tokenizer.decode(part[:-1]) for part in parts]


def test_every_document_is_in_one_split_and_in_order(folder, tmp_path):
    corpus = prepared(data_of(folder, tmp_path))
    train, val = (split_at_ends(corpus, split.tokens) for split in corpus.splits)
    assert sorted(train + val) == sorted(ALL)
    assert train == [text for text in ALL if text in train]
    assert 5 <= len(val) <= 35
    assert corpus.train.chars + corpus.val.chars == sum(map(len, ALL))


def test_the_index_tells_documents_offsets_and_hashes(folder, tmp_path):
    corpus = prepared(data_of(folder, tmp_path))
    about = json.loads((tmp_path / 'index.json').read_text())
    assert [os.path.basename(path) for path in about['sources']] == [
        *('a.jsonl', 'b.jsonl.gz', 'c.parquet', 'd.txt')
    ]
    for shard in about['train']:
        tokens = np.fromfile(tmp_path / shard['file'], about['dtype'])
        starts = np.fromfile((tmp_path / shard['file']).with_suffix('.starts'), np.int64)
        assert shard['tokens'] == len(tokens) and shard['documents'] == len(starts)
        assert starts[0] == 0 and all(tokens[start - 1] == END for start in starts[1:])
    whole = prepared(data_of(folder, tmp_path / 'again'))
    assert whole.sha256 == corpus.sha256


def test_the_number_of_processes_changes_nothing(folder, tmp_path):
    one = prepared(data_of(folder, tmp_path / 'one'))
    two = prepared(data_of(folder, tmp_path / 'two', workers=2))
    assert one.sha256 == two.sha256


def test_small_shards_are_the_same_tokens(folder, tmp_path, monkeypatch):
    whole = prepared(data_of(folder, tmp_path / 'whole'))
    monkeypatch.setattr(part, 'SHARD_TOKENS', 100)
    parts = prepared(data_of(folder, tmp_path / 'parts'))
    assert len(json.loads((tmp_path / 'parts' / 'index.json').read_text())['train']) > 10
    assert np.array_equal(parts.train.tokens[:], whole.train.tokens[:])
    assert np.array_equal(parts.val.tokens, whole.val.tokens)


def test_a_slice_is_that_of_one_array():
    draw = np.random.default_rng(0)
    parts = [draw.integers(0, 9, n, np.uint16) for n in (5, 1, 30, 2)]
    tokens = ShardedTokens([Split(ROOT, part, 0) for part in parts])
    whole = np.concatenate(parts)
    assert len(tokens) == len(whole) and tokens.dtype == np.uint16
    for first in range(-3, len(whole) + 2):
        for last in (None, first + 1, first + 7, 100):
            assert np.array_equal(tokens[first:last], whole[first:last])
    assert np.array_equal(tokens[::3], whole[::3])


def test_finished_files_are_not_written_again(folder, tmp_path):
    first = prepared(data_of(folder, tmp_path))
    (tmp_path / 'index.json').unlink()
    (tmp_path / '00001.json').unlink()
    (tmp_path / 'train-00002-000.bin').write_bytes(b'cut')
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob('train-*.bin')}
    said = []
    assert shards.prepare(data_of(folder, tmp_path), None, said.append).sha256 == first.sha256
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob('train-*.bin')}
    again = {name for name in after if after[name] != before[name]}
    assert again == {'train-00001-000.bin', 'train-00002-000.bin'}
    assert said[0] == '2 of 4 files were finished before'


def test_unfinished_shards_are_cleared_away(folder, tmp_path):
    (tmp_path / '.train-00099.bin').write_bytes(b'of a run that was killed')
    (tmp_path / '.mine.bin').write_bytes(b'of the user')
    prepared(data_of(folder, tmp_path))
    assert [path.name for path in tmp_path.glob('.*.bin')] == ['.mine.bin']


def test_of_two_writers_one_waits_and_finds_all_done(folder, tmp_path):
    data, said = data_of(folder, tmp_path), []
    with ThreadPoolExecutor() as pool:
        with writing.only_writer(tmp_path, print):
            other = pool.submit(shards.prepare, data, None, said.append)
            while not said:
                time.sleep(0.01)
            writing.write(data, None, lambda line: None)
        assert len(other.result(60).train) > 0
    assert said == [f'Waiting for another process that writes shards into {tmp_path}']


def test_a_killed_command_goes_on(folder, tmp_path):
    for i in range(60):
        lines = (json.dumps({'text': text * 50}) + '\n' for text in texts(200, f'{i} '))
        (tmp_path / f'{i}.jsonl').write_text(''.join(lines))
    flags = [
        '--config=configs/char.py:small',
        '--mode=data',
        f'--config.data.path={tmp_path}/*.jsonl',
    ]
    flags += ['--config.data.tokenizer=byte', f'--config.data.shards={tmp_path}/killed']
    command = [sys.executable, str(ROOT / 'main.py'), *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith('3 of 60'):
                process.send_signal(signal.SIGKILL)
                break
    assert not (tmp_path / 'killed' / 'index.json').exists()
    done = run_main(*flags)
    assert done.returncode == 0, done.stderr
    assert 'of 60 files were finished before' in done.stderr
    undisturbed = prepared(data_of(f'{tmp_path}/*.jsonl', tmp_path / 'other', val_fraction=0.1))
    found = index.open_corpus(data_of('', tmp_path / 'killed'))
    assert found.sha256 == undisturbed.sha256


def test_workers_end_with_the_command(folder, tmp_path):
    """Also where it is killed, and can tell them nothing."""
    script = (
        'import os, sys, time\nfrom concurrent.futures import ProcessPoolExecutor\n'
        'import multiprocessing\nfrom gptjax.text.shards.writing import _end_with\n'
        'if __name__ == "__main__":\n'
        '    context = multiprocessing.get_context("spawn")\n'
        '    pool = ProcessPoolExecutor(1, context, _end_with, (os.getpid(),))\n'
        '    print(pool.submit(os.getpid).result(), flush=True)\n    time.sleep(60)\n'
    )
    (tmp_path / 'script.py').write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / 'script.py')],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while time.monotonic() < until and os.path.exists(f'/proc/{worker}'):
        time.sleep(0.1)
    assert not os.path.exists(f'/proc/{worker}')


@pytest.mark.parametrize('url', ['file://{}', 'file://{}/*'])
def test_a_folder_by_url(folder, tmp_path, url):
    here = prepared(data_of(folder, tmp_path / 'here'))
    there = prepared(data_of(url.format(folder), tmp_path / 'there'))
    assert np.array_equal(here.train.tokens[:], there.train.tokens[:])


def test_a_validation_text_and_a_pattern(folder, tmp_path):
    data = data_of(f'{folder}/*', tmp_path, val_path=f'{folder}/c.parquet')
    corpus = prepared(data)
    assert split_at_ends(corpus, corpus.val.tokens) == texts(30, 'c')
    assert 'c1:' not in corpus.tokenizer.decode(corpus.train.tokens[:])


def test_a_corpus_by_its_name_keeps_its_documents(tmp_path, monkeypatch):
    text = tmp_path / 'corpus.txt'
    text.write_text(''.join(f'{text}{END_OF_DOCUMENT}' for text in texts(50, 'x')))
    source = sources.corpora.Source((text,), marked=True)
    monkeypatch.setattr(sources.corpora, 'source', lambda data, say: source)
    corpus = prepared(data_of('', tmp_path / 'out'))
    found = [split_at_ends(corpus, split.tokens) for split in corpus.splits]
    assert sorted(found[0] + found[1]) == sorted(texts(50, 'x'))


def test_a_vocabulary_is_learnt_once(folder, tmp_path):
    data = data_of(folder, tmp_path, tokenizer='bpe', vocab_size=300)
    corpus = prepared(data)
    assert 'verse' in corpus.tokenizer.decode(corpus.train.tokens[:200])
    (tmp_path / 'index.json').unlink()
    assert prepared(data).tokenizer == corpus.tokenizer


def test_training_on_shards_shows_each_window_once_an_epoch(tiny, folder, tmp_path):
    knobs = dataclasses.asdict(data_of(folder, tmp_path, order='shuffled', cache_dir=str(tmp_path)))
    task = tasks.create(replace(tiny, data=knobs), lambda line: None)
    tokens = task.corpus.train.tokens
    count = batches.count_windows(tokens, 16)
    rows = np.concatenate([task.train_batch(step)['inputs'] for step in range(count // 8 + 1)])
    expected = {tuple(tokens[i * 16 : i * 16 + 16]) for i in range(count - 1)}
    assert expected <= {tuple(row) for row in rows[:count].tolist()}
    report = task.preview()
    assert report.figures['train_tokens'] == len(tokens)
    assert str(tmp_path) in report.text


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('x.jsonl', b'{"text": "a"}\n[]\n', r"x.jsonl, line 2: '\[\]\\n' is no JSON object with a"),
        ('x.jsonl', b'{"other": "a"}\n', 'under data.text_field=text; name the field that has it'),
        ('x.jsonl', b'garbage\n', 'x.jsonl, line 1: .*garbage'),
        ('x.txt', b'\xff\xfe\xff', 'x.txt is not UTF-8'),
        ('x.parquet', b'PAR0', 'x.parquet is no Parquet file'),
        ('x.txt.gz', b'plain', r'cannot read .*x.txt.gz \(Not a gzipped file'),
        ('x.txt', b'one document', r'\d+ of 1 documents were held out|none of 1 documents were'),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        prepared(data_of(tmp_path / name, tmp_path / 'out', val_fraction=0.01))


def test_a_column_that_is_not_there_names_those_that_are(folder, tmp_path):
    with pytest.raises(UserError, match=r'no column data.text_field=body; it has text, n'):
        prepared(data_of(folder / 'c.parquet', tmp_path, text_field='body'))


def test_a_mistake_in_another_process_is_one_line_of_the_command(folder, tmp_path):
    flags = [f'--config.data.path={folder}', f'--config.data.shards={tmp_path}/out']
    flags += ['--config.data.text_field=body', '--config.data.tokenizer=byte']
    done = run_main('--config=configs/char.py:small', '--mode=data', *flags)
    assert 'data.text_field=body' in one_line(done, 1)


@pytest.mark.parametrize('path', ['/nowhere/*.txt', 'file:///nowhere', 'nosuchthing://x'])
def test_no_files_is_one_line(tmp_path, path):
    with pytest.raises(UserError, match=r'check data.path and val_path'):
        prepared(data_of(path, tmp_path))


def test_shards_among_the_texts_are_refused(folder):
    with pytest.raises(UserError, match=r'is inside data.path=.*; use a folder beside it'):
        prepared(data_of(folder, folder / 'shards'))
    assert not (folder / 'shards').exists()


def test_shards_of_other_knobs_are_left_alone(folder, tmp_path):
    prepared(data_of(folder, tmp_path))
    message = 'have data.lowercase=False, and True is asked for; use that value, or another folder'
    with pytest.raises(UserError, match=message):
        prepared(data_of(folder, tmp_path, lowercase=True))


def test_texts_that_changed_are_told_and_those_that_are_gone_are_not(folder, tmp_path):
    own, lines = tmp_path / 'texts', []
    shutil.copytree(folder, own)
    data = data_of(own, tmp_path / 'shards')
    hashes = prepared(data).sha256
    said = {}
    for name, change in {
        'same': lambda: None,
        'has changed': lambda: (own / 'a.jsonl').write_text('{"text": "another"}'),
        'is new': lambda: shutil.copy(folder / 'd.txt', own / '0.txt'),
        'is not there any more': lambda: [(own / x).unlink() for x in ('0.txt', 'a.jsonl')],
        'gone': lambda: shutil.rmtree(own),
    }.items():
        change()
        lines.clear()
        assert shards.prepare(data, None, lines.append).sha256 == hashes
        said[name] = list(lines)
    assert said.pop('same') == said.pop('gone') == []
    for what, (line,) in said.items():
        path = own / ('0.txt' if what == 'is new' else 'a.jsonl')
        assert line == (
            f'Warning: {path} {what}, and the shards in {data.shards} are used as they were '
            f'written; to write them again, remove {tmp_path}/shards/index.json'
        )


def test_damaged_shards_are_named(folder, tmp_path):
    prepared(data_of(folder, tmp_path))
    with open(tmp_path / 'train-00000-000.bin', 'ab') as file:
        file.write(b'more')
    with pytest.raises(UserError, match=r'are damaged \(.*train-00000-000.bin has \d+ bytes and'):
        prepared(data_of(folder, tmp_path))
    (tmp_path / 'index.json').write_text('{')
    with pytest.raises(UserError, match=r'index.json cannot be read.*; remove .*index.json'):
        prepared(data_of(folder, tmp_path))


def test_a_killed_worker_is_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, '_end_with', _kill_itself)
    with pytest.raises(UserError, match=r'was ended from outside.*; set data.workers below 2'):
        prepared(data_of(folder, tmp_path, workers=2))


def _kill_itself(parent):
    del parent
    os.kill(os.getpid(), signal.SIGKILL)


def test_tokens_of_another_model_are_refused(folder, tmp_path):
    corpus = prepared(data_of(folder, tmp_path))
    other = dataclasses.replace(corpus.tokenizer, ends=False)
    with pytest.raises(UserError, match='other tokens than the model to start from; use another'):
        shards.prepare(data_of(folder, tmp_path), other, print)


def test_a_hundred_gigabytes_are_read_in_flat_memory(tmp_path):
    """Sparse files: all zeros, of which only what is read needs any memory."""
    size = 10**9
    parts = []
    for i in range(100):
        with open(tmp_path / f'{i}.bin', 'wb') as file:
            file.truncate(size)
        parts.append(index.open_split(tmp_path / f'{i}.bin', 'uint16', 0, windows=True))
    tokens = ShardedTokens(parts)
    assert len(tokens) == 50 * size
    before = resident()
    for step in range(300):
        batch = batches.consecutive_windows(
            tokens, seed=1, step=step, batch_size=32, block_size=1024
        )
        assert batch['inputs'].shape == (32, 1024)
    assert resident() - before < 20_000


def resident() -> int:
    """Kilobytes that are this process's own, not those of files."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('RssAnon'))
