"""Every token can be seen, whatever is in it."""

import unicodedata

import pytest

from gptjax.text.characters import ByteTokenizer, CharTokenizer
from gptjax.text.display import direction, name_tokens, visible


@pytest.mark.parametrize(
    ('piece', 'shown'),
    [
        (b' the', '␣the'),
        (b'\n', '↵'),
        (b'\t', '⇥'),
        ('می\u200cرود'.encode(), 'میZWNJرود'),
        (b'\xe2\x80', '\\xE2\\x80'),
        (b'a\xff', 'a\\xFF'),
        (b'<script>', '<script>'),
        ('\u0301'.encode(), '◌\u0301'),
        ('e\u0301'.encode(), 'e\u0301'),
        (b'\x07', 'U+0007'),
        ('\u202e'.encode(), 'U+202E'),
        (b'', ''),
    ],
)
def test_what_has_no_shape_gets_one(piece, shown):
    assert visible(piece) == shown
    assert all(unicodedata.category(c) not in ('Cc', 'Cf', 'Zs') for c in visible(piece))


def test_names_of_tokens():
    assert name_tokens(CharTokenizer('\n a', ends=True), [2, 0, 3, 0]) == {0: '↵', 2: 'a', 3: 'END'}
    assert name_tokens(ByteTokenizer(), [0xC3, 65]) == {65: 'A', 0xC3: '\\xC3'}


def test_the_direction_is_that_of_the_first_letter():
    assert direction('12 سلام hello') == 'rtl'
    assert direction('12 hello سلام') == 'ltr'
    assert direction('?!') == 'ltr'
