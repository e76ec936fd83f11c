"""What the host knows of a text that is being generated, and the pieces in which it comes."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from gptjax.generation.decode import Contexts, Drawn
from gptjax.generation.rules import Rules
from gptjax.generation.text_stream import TextStream
from gptjax.models.cache import NO_POSITION
from gptjax.parallel.mesh import on_host


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a request has new after a step."""

    id: int
    tokens: tuple[int, ...]
    text: str
    finish: str | None = None  # 'stop' (an end token or stop string), 'length', or None: goes on
    # If asked for: log-probabilities of the tokens; (id, log-probability) of the likeliest ones.
    scores: tuple[float, ...] | None = None
    likeliest: tuple[tuple[tuple[int, float], ...], ...] = ()


@dataclasses.dataclass(eq=False)
class Request:
    """A prompt and how it goes on; `history` holds all of its tokens."""

    id: int
    history: list[int]
    rules: Rules
    seed: int
    sample: int
    budget: int
    scores: bool
    text: TextStream | None
    length: int = 0  # tokens in the context
    placed: bool = False  # the context is on the devices
    drawn: int = 0

    def counts(self, block_size: int, chunk: int) -> tuple[int, ...]:
        """The entries of `Counters`, the last of which is the tokens to draw in the next chunk."""
        space = block_size - self.length if self.placed else 0
        wanted = min(self.budget - self.drawn, space, chunk)
        return self.seed, self.sample, self.length, self.drawn, wanted

    def advance(self, ids: list[int]) -> Piece:
        """The piece of drawn ids, as far as the text goes on."""
        ids, text = self._consume(ids)
        self.history += ids
        self.length += len(ids)
        self.drawn += len(ids)
        finish = 'stop' if self.text and self.text.ended else None
        if finish is None and self.drawn >= self.budget:
            finish = 'length'
            text += self.text.finish() if self.text else ''
        return Piece(self.id, tuple(ids), text, finish)

    def _consume(self, ids: list[int]) -> tuple[list[int], str]:
        """The ids up to the end of the text, and their text."""
        stream = self.text
        if stream is None:
            return ids, ''
        if not stream.has_stop:
            end = stream.end
            ids = ids[: ids.index(end) + 1] if end in ids else ids
            return ids, stream.push(ids)
        text = ''
        for n, token in enumerate(ids, 1):  # One by one: any of them may complete a stop string.
            text += stream.push([token])
            if stream.ended:
                return ids[:n], text
        return ids, text


def contexts_of(requests: Mapping[int, Request], n: int, width: int, vocab_size: int) -> Contexts:
    """The contexts of requests, by their numbers among n."""
    tokens_RT = np.zeros((n, width), np.int32)
    pos_RT = np.full((n, width), NO_POSITION, np.int32)
    pos_RT[:, -1] = 0
    counts_RV = np.zeros((n, vocab_size), np.int32)
    for i, request in requests.items():
        length = request.length
        tokens_RT[i, width - length :] = request.history[-length:]
        pos_RT[i, width - length :] = np.arange(length)
        counts_RV[i] = np.bincount(request.history, minlength=vocab_size)
    return Contexts(tokens_RT, pos_RT, counts_RV)


def with_scores(piece: Piece, drawn: Drawn, row: int) -> Piece:
    """The piece with the log-probabilities that were computed for its row."""
    n = len(piece.tokens)
    scores, *both = (
        on_host(x)[:n, row].tolist()
        for x in (drawn.scores_KB, drawn.likeliest_KBN, drawn.likeliest_scores_KBN)
    )
    return dataclasses.replace(
        piece,
        scores=tuple(scores),
        likeliest=tuple(tuple(zip(*one, strict=True)) for one in zip(*both, strict=True)),
    )


def whole_texts(pieces: Iterable[Piece]) -> list[str]:
    """The whole text of each request, in the order of their numbers."""
    texts: dict[int, str] = {}
    for piece in pieces:
        texts[piece.id] = texts.get(piece.id, '') + piece.text
    return [texts[number] for number in sorted(texts)]


def kept_length(n_tokens: int, block_size: int) -> int:
    """How many of a text's last tokens are the context, as if it had grown token by token.

    A context that reaches block_size goes on with its last half.
    """
    half = block_size // 2
    if n_tokens < block_size:
        return n_tokens
    return half + (n_tokens - block_size) % (block_size - half)
