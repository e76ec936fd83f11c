"""Token files: any text becomes exact tokens in flat memory, once."""

import os
import subprocess
import sys

import numpy as np
import pytest

from gptjax.config import DataConfig
from gptjax.errors import UserError
from gptjax.text import reading, token_files
from gptjax.text.corpora import Source
from gptjax.text.recipes import END_OF_DOCUMENT


@pytest.fixture
def prepare(tmp_path):
    def prepare(content: bytes | str, kind='char', val=None, say=print, **knobs):
        content = content.encode() if isinstance(content, str) else content
        path = tmp_path / 'text.txt'
        path.write_bytes(content)
        val_path = tmp_path / 'val.txt'
        if val is not None:
            val_path.write_text(val)
        source = Source((path,), () if val is None else (val_path,), knobs.pop('marked', False))
        data = DataConfig(tokenizer=kind, cache_dir=str(tmp_path / 'cache'), **knobs)
        return token_files.prepare(source, data, say=say)

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
    monkeypatch.setattr(reading, 'PIECE', 4)
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
    monkeypatch.setattr(reading, 'PIECE', piece)
    with pytest.raises(UserError, match=f'byte 0x{byte} at offset {offset};.*iconv'):
        prepare(content)


@pytest.mark.parametrize('content', [b'', b'\xef\xbb\xbf'])
def test_an_empty_text_is_refused(prepare, content):
    with pytest.raises(UserError, match=r'text\.txt is empty'):
        prepare(content)


def test_what_can_be_read_only_once_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(UserError, match='is not a regular file, and it is read more than on'):
        token_files.prepare(Source((tmp_path / 'pipe',)), DataConfig())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'cannot read .*none.txt \(No such file'):
        token_files.prepare(Source((tmp_path / 'none.txt',)), DataConfig())


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
    monkeypatch.setattr(reading, 'PIECE', 10)
    monkeypatch.setattr(token_files, 'LARGE', 200)
    monkeypatch.setattr(reading, 'LARGE', 200)
    said = []
    path = prepare('012345678 ' * 30, say=said.append).train.path.parents[3] / 'text.txt'
    assert said == [
        f'Reading {path} (0.0 GB)',
        'Counting the characters of 0.0 GB',
        'Learning the vocabulary of 300 characters',
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
        'import sys; from pathlib import Path; from gptjax.text import token_files\n'
        'from gptjax.config import DataConfig; from gptjax.text.corpora import Source\n'
        'from gptjax.modes.bench.machine import resident_bytes\n'
        'before = resident_bytes()\n'
        'data = DataConfig(cache_dir=sys.argv[2])\n'
        'c = token_files.prepare(Source((Path(sys.argv[1]),)), data)\n'
        'assert len(c.train) > 100_000_000\n'
        'print(resident_bytes() - before)'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, path, tmp_path / 'cache'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.splitlines()[-1]) < 100e6


def test_documents_end_with_their_token_and_are_never_cut(prepare, monkeypatch):
    texts_in = [f'poem {i}, ' * (i + 1) for i in range(20)]
    marked = ''.join(text + END_OF_DOCUMENT for text in texts_in)
    for kind in ('char', 'byte', 'word', 'bpe'):
        corpora = []
        for piece in (7, 1 << 20):
            monkeypatch.setattr(reading, 'PIECE', piece)
            corpus = prepare(marked, kind, marked=True, split='documents', lowercase=piece == 7)
            corpora.append([split.tokens.tolist() for split in (corpus.train, corpus.val)])
        assert corpora[0] == corpora[1]  # The pieces of reading are nowhere to be seen.
        end = corpus.tokenizer.end
        ends = [sum(token == end for token in split) for split in corpora[0]]
        assert ends == [18, 2]
        assert all(split[-1] == end for split in corpora[0])
        assert sum(corpus.train.tokens == end) + sum(corpus.val.tokens == end) == 20
        assert corpus.train.chars + corpus.val.chars == sum(map(len, texts_in))
    corpus = prepare(marked, marked=True, split='documents')
    first = corpus.val.tokens[: corpus.val.tokens.tolist().index(corpus.tokenizer.end)]
    assert corpus.tokenizer.decode(first) in texts_in


def test_one_document_has_no_end(prepare):
    assert prepare('abc' * 10).tokenizer.end is None
    corpus = prepare('ab' * 10, 'bpe')
    assert corpus.tokenizer.end not in corpus.train.tokens
    with pytest.raises(UserError, match=r'cannot hold out 0.1 of 1 documents; give more'):
        prepare('abc' * 10, split='documents')


def test_texts_are_cleaned_before_they_are_cut(prepare, monkeypatch):
    monkeypatch.setattr(reading, 'PIECE', 3)
    text = 'کتاب يكي ﻻ کـــتاب Ａ '
    corpus = prepare(text, normalize='persian', lowercase=True)
    assert ''.join(texts(corpus)) == 'کتاب یکی لا کتاب a '
    assert corpus.train.chars + corpus.val.chars == len('کتاب یکی لا کتاب a ')


def test_words_are_learnt_from_the_training_text_alone(prepare):
    corpus = prepare('one two three ' * 10 + 'secret', 'word', val_fraction=0.1)
    assert 'secret' not in corpus.tokenizer.words
    assert corpus.val.tokens[-1] == 3  # <UNKNOWN>
