"""Texts by a task's own stream: each ends with its own request."""

from gptjax.config import SampleConfig
from gptjax.generation.requests import Piece
from gptjax.serve.models import Failure
from gptjax.serve.streams import Streams


def letters(row_count: int, word: str):
    for letter in word:
        for row in range(row_count):
            yield Piece(row, (1,), letter, 'stop' if letter == word[-1] else None)


def run(streams: Streams) -> dict[int, str]:
    found: dict[int, str] = {}
    while streams.busy:
        for piece in streams.step():
            text = repr(piece.error) if isinstance(piece, Failure) else piece.text
            found[piece.id] = found.get(piece.id, '') + text
    return found


def test_rows_of_several_requests_have_numbers_of_their_own():
    streams = Streams()
    assert streams.submit(letters(2, 'ab'), SampleConfig(num_samples=2)) == [0, 1]
    assert streams.submit(letters(1, 'xyz'), SampleConfig()) == [2]
    assert (streams.active, streams.waiting) == (2, 0)
    assert run(streams) == {0: 'ab', 1: 'ab', 2: 'xyz'}


def test_cancelling_all_texts_of_a_request_ends_no_other():
    streams = Streams()
    streams.submit(letters(1, 'xyz'), SampleConfig())
    for number in streams.submit(letters(3, 'ab'), SampleConfig(num_samples=3)):
        streams.cancel(number)
    assert run(streams) == {0: 'xyz'}


def test_a_stream_that_fails_ends_no_other():
    def failing():
        yield Piece(0, (1,), 'a')
        raise ValueError('no more')

    streams = Streams()
    streams.submit(failing(), SampleConfig())
    streams.submit(letters(1, 'xyz'), SampleConfig())
    assert run(streams) == {0: "aValueError('no more')", 1: 'xyz'}


def test_more_requests_than_have_a_turn_wait():
    streams = Streams()
    for _ in range(10):
        streams.submit(letters(1, 'ab'), SampleConfig())
    assert (streams.active, streams.waiting) == (8, 2)
    assert run(streams) == dict.fromkeys(range(10), 'ab')
