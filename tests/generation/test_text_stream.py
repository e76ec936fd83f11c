"""Text comes in whole characters, without stop strings, and loses nothing."""

import pytest

from gptjax.generation.text_stream import TextStream
from gptjax.text.characters import ByteTokenizer, CharTokenizer
from gptjax.text.words import WordTokenizer

TEXT = 'aé🌹ab\nگل aabab'


def pieces(stream, ids, size):
    out = [stream.push(ids[i : i + size]) for i in range(0, len(ids), size)]
    return [*out, stream.finish()]


@pytest.mark.parametrize('size', [1, 2, 3, 100])
@pytest.mark.parametrize('tokenizer', [ByteTokenizer(), CharTokenizer(''.join(sorted(set(TEXT))))])
def test_characters_never_break(tokenizer, size):
    out = pieces(TextStream(tokenizer), tokenizer.encode(TEXT), size)
    assert ''.join(out) == TEXT
    assert '\ufffd' not in ''.join(out)


def test_invalid_bytes_become_replacements_and_the_text_goes_on():
    ids = [0xFF, 0xFF, 0xFF, *'€'.encode(), 0xE2]
    assert ''.join(pieces(TextStream(ByteTokenizer()), ids, 1)) == '\ufffd\ufffd\ufffd€\ufffd'


@pytest.mark.parametrize('size', [1, 2, 3, 100])
@pytest.mark.parametrize(
    ('stop', 'text'),
    [
        (['b'], 'aé🌹a'),
        (['ab\n'], 'aé🌹'),
        (['xyz', 'ل'], 'aé🌹ab\nگ'),
        (['abab'], 'aé🌹ab\nگل a'),
        (['abc'], TEXT),
        (['\n', 'b'], 'aé🌹a'),
        (['b\nگ', '🌹ab\nگل', 'ab\nگل'], 'aé🌹a'),
    ],
)
def test_the_first_stop_string_ends_the_text_and_is_not_in_it(stop, text, size):
    stream = TextStream(ByteTokenizer(), stop)
    out = pieces(stream, ByteTokenizer().encode(TEXT), size)
    assert ''.join(out) == text
    assert stream.ended == (text != TEXT)
    # What was printed is never taken back.
    said = ''
    for piece in out:
        said += piece
        assert text.startswith(said)


def test_nothing_is_said_after_the_end():
    stream = TextStream(ByteTokenizer(), ['.'])
    assert stream.push(b'a.b') == 'a'
    assert stream.push(b'more') == ''
    assert stream.finish() == ''


def test_the_token_that_ends_a_document_ends_the_text():
    tokenizer = CharTokenizer('abc', ends=True)
    stream = TextStream(tokenizer, ['bc'])
    assert stream.push([0, 1]) == 'a'  # The b might begin the stop string.
    assert stream.push([tokenizer.end, 2]) == 'b'
    assert stream.ended
    assert stream.push([0]) + stream.finish() == ''


def test_spaces_between_words_do_not_depend_on_the_pieces():
    tokenizer = WordTokenizer(('a', 'b', ',', '\n'), (1, 1, 1, 1), (0, 0, 1, 0))
    ids = [4, 6, 5, 4, 7, 5, 4]
    for size in range(1, 8):
        assert ''.join(pieces(TextStream(tokenizer), ids, size)) == 'a, b a\nb a'
    assert TextStream(tokenizer, after=4).push([5]) == ' b'
