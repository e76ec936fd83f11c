"""Token files: any text becomes exact tokens in flat memory, once."""

import os
import subprocess
import sys

import numpy as np
import pytest

from gptjax.errors import UserError
from gptjax.text import token_files


@pytest.fixture
def prepare(tmp_path):
    def prepare(content: bytes | str, kind='char', val_fraction=0.1, val=None, say=print):
        content = content.encode() if isinstance(content, str) else content
        path = tmp_path / 'text.txt'
        path.write_bytes(content)
        val_path = None
        if val is not None:
            val_path = tmp_path / 'val.txt'
            val_path.write_text(val)
        return token_files.prepare(
            path,
            kind=kind,
            val_fraction=val_fraction,
            cache_dir=tmp_path / 'cache',
            val_path=val_path,
            say=say,
        )

    return prepare


def texts(corpus):
    return [corpus.tokenizer.decode(split.tokens) for split in (corpus.train, corpus.val)]


@pytest.mark.parametrize('kind', ['char', 'byte'])
def test_the_end_of_the_text_is_held_out(prepare, kind):
    text = 'abcdefghij' * 10 + 'ÄÖ🌹' * 4
    corpus = prepare(text, kind, val_fraction=0.25)
    assert texts(corpus) == [text[:84], text[84:]]
    assert (corpus.train.chars, corpus.val.chars) == (84, 28)


def test_nanogpts_split_is_reproduced(prepare):
    """1,115,394 characters give 1,003,854 and 111,540."""
    corpus = prepare('x' * 1_115_394)
    assert (len(corpus.train), len(corpus.val)) == (1_003_854, 111_540)


def test_a_separate_validation_file(prepare):
    corpus = prepare('abc', val='cabd')
    assert texts(corpus) == ['abc', 'cabd']
    assert corpus.tokenizer.characters == 'abcd'


def test_byte_order_mark_and_line_ends(prepare):
    corpus = prepare(b'\xef\xbb\xbfone\r\ntwo\rthree\n', val_fraction=0.01)
    assert ''.join(texts(corpus)) == 'one\ntwo\nthree\n'


def test_a_line_end_cut_by_a_piece_is_one_line_end(prepare, monkeypatch):
    monkeypatch.setattr(token_files, 'PIECE', 4)
    text = 'abc\r\nde🌹\r\n' * 5
    assert ''.join(texts(prepare(text))) == text.replace('\r\n', '\n')


@pytest.mark.parametrize('piece', [3, 1 << 22])
@pytest.mark.parametrize(
    ('content', 'offset', 'byte'),
    [
        (b'abc\xffdef', 3, 'FF'),
        ('häß'.encode() + b'\xc3(', 5, 'C3'),
        (b'\xef\xbb\xbfab\x80', 5, '80'),
        (b'abcdefg\xf0\x9f', 7, 'F0'),
    ],
)
def test_invalid_utf8_is_refused_with_its_offset(
    prepare, monkeypatch, content, offset, byte, piece
):
    monkeypatch.setattr(token_files, 'PIECE', piece)
    with pytest.raises(UserError, match=f'byte 0x{byte} at offset {offset};.*iconv'):
        prepare(content)


@pytest.mark.parametrize('content', [b'', b'\xef\xbb\xbf'])
def test_an_empty_text_is_refused(prepare, content):
    with pytest.raises(UserError, match=r'text\.txt is empty'):
        prepare(content)


def test_what_can_be_read_only_once_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path / 'pipe', tmp_path):
        with pytest.raises(UserError, match='is not a regular file, and it is read more than on'):
            token_files.prepare(path, kind='char', val_fraction=0.1, cache_dir=tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'cannot read .*none.txt \(No such file'):
        token_files.prepare(
            tmp_path / 'none.txt', kind='char', val_fraction=0.1, cache_dir=tmp_path
        )


def test_the_cache_is_used_again_and_keyed_by_content(prepare, monkeypatch):
    first = prepare('hello world')
    monkeypatch.setattr(token_files, '_encode', None)  # A second encoding would fail.
    again = prepare('hello world')
    assert again.train.path == first.train.path
    assert again.sha256 == first.sha256
    for change in ({'val_fraction': 0.5}, {'kind': 'byte'}, {'val': 'hello'}):
        with pytest.raises(TypeError):
            prepare('hello world', **change)
    with pytest.raises(TypeError):
        prepare('hello World')


def test_a_failed_encoding_leaves_nothing_behind(prepare, tmp_path):
    with pytest.raises(UserError):
        prepare(b'abc\xff')
    assert list((tmp_path / 'cache' / 'tokens').iterdir()) == []


def test_an_interrupted_encoding_is_done_again(prepare, tmp_path):
    folder = prepare('hello world').train.path.parent
    (folder / 'about.json').unlink()
    (folder / 'train.bin').write_bytes(b'broken')
    assert texts(prepare('hello world')) == ['hello wor', 'ld']


def test_a_large_vocabulary_takes_wider_tokens(prepare):
    points = [*range(32, 0xD800), *range(0xE000, 0x11000 + 3000)]
    text = ''.join(map(chr, points)).replace('\r', '')
    corpus = prepare(text, val_fraction=0.01)
    assert corpus.train.tokens.dtype == np.uint32
    assert ''.join(texts(corpus)) == text


def test_long_texts_show_progress(prepare, monkeypatch):
    monkeypatch.setattr(token_files, 'PIECE', 10)
    monkeypatch.setattr(token_files, 'LARGE', 200)
    said = []
    path = prepare('0123456789' * 30, say=said.append).train.path.parents[3] / 'text.txt'
    assert said == [
        f'Reading {path} (0.0 GB)',
        f'Looking for the characters of {path}',
        *(f'Encoding: {share}% of 300 characters' for share in range(10, 101, 10)),
    ]


@pytest.mark.slow
def test_a_large_text_needs_no_more_memory_than_a_small_one(tmp_path):
    """200 MB of text are encoded with less than 100 MB above the interpreter's own."""
    path = tmp_path / 'large.txt'
    with open(path, 'w') as file:
        for _ in range(200):
            file.write('All the world is a stage, and all\n' * (1_000_000 // 34))
    program = (
        'import resource, sys; from pathlib import Path; from gptjax.text import token_files\n'
        'before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'c = token_files.prepare(Path(sys.argv[1]), kind="char", val_fraction=0.1, '
        'cache_dir=Path(sys.argv[2]))\n'
        'assert len(c.train) > 100_000_000\n'
        'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, path, tmp_path / 'cache'],
        capture_output=True,
        text=True,
        check=True,
    )
    kilobytes = int(done.stdout.splitlines()[-1])
    assert kilobytes < 100_000
