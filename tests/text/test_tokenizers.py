"""Tokenizers: exact round trips, JSON, and what they refuse."""

import pytest

from gptjax.errors import UserError
from gptjax.text.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    UnknownCharacterError,
    from_json,
)

TEXT = 'To be, or not to be:\nگل و بلبل 🌹\x00\t'
BOTH = [CharTokenizer.from_characters(TEXT), ByteTokenizer()]


@pytest.mark.parametrize('tokenizer', BOTH, ids=lambda t: t.kind)
def test_round_trip_and_json(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == 'int32'
    assert tokenizer.decode(ids) == TEXT
    assert ids.max() < tokenizer.vocab_size
    assert from_json(tokenizer.to_json()) == tokenizer
    assert tokenizer.decode(tokenizer.encode('')) == ''
    assert tokenizer.drop_unknown('be') == 'be'


def test_characters_are_sorted_so_the_text_order_does_not_matter():
    assert CharTokenizer.from_characters('cabba') == CharTokenizer.from_characters('abc')
    assert list(CharTokenizer.from_characters('cab').encode('abc')) == [0, 1, 2]


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
    with pytest.raises(UnknownCharacterError, match=named):
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
