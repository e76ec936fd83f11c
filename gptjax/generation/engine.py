"""Host side of generation: requests are admitted to rows, advanced in chunks, and may be cancelled.

`submit` queues a prompt, `step` runs one chunk for all rows and returns what each has new. Batch
generation, streaming and serving are this engine; there is no other way of decoding.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gptjax.config import MeshConfig, SampleConfig
from gptjax.generation.decode import (
    Counters,
    Rows,
    begin,
    decode_chunk,
    empty_rows,
    grown,
    place,
)
from gptjax.generation.requests import Piece, Request, contexts_of, kept_length, with_scores
from gptjax.generation.rules import RowRules, Rules
from gptjax.generation.text_stream import TextStream
from gptjax.models.decoder import Decoder
from gptjax.parallel.mesh import Layout, on_host
from gptjax.text.tokenizers import Tokenizer

PLAIN = Rules()


class Engine:
    """Generates for any number of requests, `rows` of them at a time.

    When a context reaches block_size it is rebuilt from its last half, so the logits of every token
    equal the full forward pass on exactly the context kept (see `kept_length`).
    """

    def __init__(
        self,
        model: Decoder,
        params: dict,
        *,
        rows: int,
        chunk: int = 16,
        tokenizer: Tokenizer | None = None,
        layout: Layout | None = None,
        slots: int = 0,
        likeliest: int = 0,
    ) -> None:
        """Computes nothing yet.

        Args:
          model: the decoder.
          params: its variables, on the devices of the layout.
          rows: requests that are advanced at a time.
          chunk: tokens decoded for each row between two looks of the host.
          tokenizer: turns tokens into text and names ids that are never drawn; None gives no text.
          layout: splits the rows and the cache over several devices; None: all is on one.
          slots: size of the cache; 0 grows it with the requests, which compiles anew each time.
          likeliest: tokens that are told beside each one of a request with scores.
        """
        self._model, self._params = model, params
        self._chunk, self._tokenizer = chunk, tokenizer
        self._banned = tokenizer.banned if tokenizer else ()
        layout = layout or Layout(MeshConfig(), rows, copies=False)
        whole = functools.partial(layout.put, whole=True)
        self._put = whole if layout.rows > 1 else lambda arrays: arrays
        self._put_rows: Callable[[Any], Any] = whole
        # On one device the next program follows at once, and its result is waited for.
        self._settle = layout.wait if layout.mesh.size > 1 else lambda rows: rows
        self._with_mesh: Callable[..., Any] = lambda program: program
        if layout.mesh.shape['tensor'] > 1:  # XLA would keep all heads on each device.
            self._put_rows = layout.place
            self._settle = lambda rows: layout.place(layout.wait(rows))
            self._with_mesh = layout.known_to
        self._slots, self.likeliest = slots, likeliest
        self._device_rows: Rows | None = None
        self._block_size = model.config.block_size
        self._rows: list[Request | None] = [None] * rows
        self._queue: deque[Request] = deque()
        self._rules: list[Rules] = []
        self._slot, self._next_id = 0, 0

    def submit(
        self,
        prompt: Sequence[int] | np.ndarray,
        rules: Rules = PLAIN,
        *,
        seed: int = 0,
        sample: int = 0,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        scores: bool = False,
    ) -> int:
        """Queues a prompt and returns the number by which its pieces are told.

        Args:
          prompt: token ids, at least one.
          rules: how to draw.
          seed: with `sample`, decides the draws; nothing else does.
          sample: the number of this text among several of the same prompt and seed.
          max_new_tokens: tokens to draw at most.
          stop: strings that end the text; they are not part of it.
          scores: whether pieces have the tokens' log-probabilities.
        """
        history = [int(token) for token in prompt]
        text = TextStream(self._tokenizer, stop, history[-1]) if self._tokenizer else None
        number, self._next_id = self._next_id, self._next_id + 1
        self._queue.append(
            Request(number, history, rules, seed, sample, max_new_tokens, scores, text)
        )
        return number

    def cancel(self, number: int) -> None:
        """Forgets a request; its row is free for the next one. Unknown numbers are ignored."""
        self._queue = deque(request for request in self._queue if request.id != number)
        self._rows = [r if r is None or r.id != number else None for r in self._rows]

    @property
    def active(self) -> int:
        """Rows in use."""
        return sum(request is not None for request in self._rows)

    @property
    def busy(self) -> bool:
        """Whether a request waits or goes on."""
        return bool(self._queue or self.active)

    def run(self) -> Iterator[Piece]:
        """The pieces of all requests until none is left."""
        while self.busy:
            yield from self.step()

    def step(self) -> list[Piece]:
        """Admits requests, advances all rows by a chunk, and returns the new piece of each."""
        self._admit()
        rows = self._rows
        if not any(r and r.placed for r in rows):
            return []
        counts = [r.counts(self._block_size, self._chunk) if r else (0,) * 5 for r in rows]
        counters = Counters(*np.array(counts, np.int32).T)
        device_rows, drawn = self._with_mesh(decode_chunk)(
            self._model,
            self._params,
            self._device_rows,
            counters=self._put(counters),
            rules=self._row_rules,
            scores=np.bool_(any(r and r.scores for r in rows)),
            chunk=self._chunk,
            banned=self._banned,
            likeliest=self.likeliest,
        )
        self._device_rows = self._settle(device_rows)
        self._slot = (self._slot + self._chunk) % self._slots
        tokens_BK = on_host(drawn.tokens_KB).T.tolist()
        pieces = []
        for row, request in enumerate(rows):
            if request and request.placed:
                piece = request.advance(tokens_BK[row][: counters.wanted_B[row]])
                pieces.append(with_scores(piece, drawn, row) if request.scores else piece)
                if pieces[-1].finish:
                    rows[row] = None
        return pieces

    def _admit(self) -> None:
        """Gives free rows to waiting requests, and new contexts to them and to full rows."""
        for row, request in enumerate(self._rows):
            if request is None and self._queue:
                self._rows[row] = self._queue.popleft()
        rules = [request.rules if request else PLAIN for request in self._rows]
        if rules != self._rules:
            row_rules = RowRules.of(rules, self._model.vocab_size)
            self._rules, self._row_rules = rules, self._put(row_rules)
        replaced = {
            row: request
            for row, request in enumerate(self._rows)
            if request and (not request.placed or request.length >= self._block_size)
        }
        for request in replaced.values():
            request.placed = False
            request.length = kept_length(len(request.history), self._block_size)
        if replaced:
            self._place(replaced)

    def _place(self, replaced: dict[int, Request]) -> None:
        """Computes the contexts of these rows on the devices."""
        n_new, width = self._shape(len(replaced), max(r.length for r in replaced.values()))
        self._make_slots(width)
        batch = len(self._rows)
        source_B = np.full(batch, -1, np.int32)
        source_B[list(replaced)] = list(replaced) if n_new == batch else range(len(replaced))
        numbered = {source_B[row]: request for row, request in replaced.items()}
        contexts = contexts_of(numbered, n_new, width, self._model.vocab_size)
        for request in replaced.values():
            request.placed = True
        if n_new == batch:
            contexts = self._put(contexts)
        no_others = len(replaced) == self.active
        if no_others:  # The same slots whatever was decoded before.
            self._slot = width
        slot = np.int32(self._slot)
        if no_others and n_new == batch:
            self._device_rows = None  # Nothing in it is kept, so its memory is free.
            new = begin(self._model, self._params, contexts, slot, self._slots)
            self._device_rows = self._settle(new)
            return
        # On the devices where the programs leave them, or the next text would compile again.
        rows = self._device_rows or self._put_rows(empty_rows(self._model, batch, self._slots))
        new = place(self._model, self._params, rows, contexts, source_B, slot)
        self._device_rows = self._settle(new)

    def _shape(self, n: int, longest: int) -> tuple[int, int]:
        """Rows and width of the program that computes n contexts."""
        return min(_bucket(n, 1), len(self._rows)), min(_bucket(longest), self._block_size)

    def _make_slots(self, width: int) -> None:
        """Makes the cache large enough for the requests in the rows."""
        needed = max(len(r.history) + r.budget - r.drawn for r in self._rows if r)
        most = self._block_size + self._chunk
        slots = max(self._slots, min(_bucket(max(needed, width) + self._chunk), most))
        if self._device_rows is not None and slots > self._slots:
            self._slot = self._slots
            cache = grown(self._device_rows.cache, slots)
            self._device_rows = self._device_rows.replace(cache=cache)
        self._slots = slots


def submit_all(
    engine: Engine, prompts: Sequence[Sequence[int] | np.ndarray], config: SampleConfig
) -> list[int]:
    """Submits each prompt `num_samples` times, as the knobs say; rows of a prompt side by side."""
    rules = Rules.from_config(config)
    return [
        engine.submit(
            prompt,
            rules,
            seed=config.seed,
            sample=sample,
            max_new_tokens=config.max_new_tokens,
            stop=config.stop,
        )
        for prompt in prompts
        for sample in range(config.num_samples)
    ]


def generate(
    engine: Engine, prompts: Sequence[Sequence[int] | np.ndarray], config: SampleConfig
) -> list[list[int]]:
    """All new tokens of each row of `submit_all`."""
    new: dict[int, list[int]] = {n: [] for n in submit_all(engine, prompts, config)}
    for piece in engine.run():
        new[piece.id] += piece.tokens
    return list(new.values())


def _bucket(n: int, least: int = 8) -> int:
    """The next power of two: few shapes, so few compilations."""
    return max(least, 1 << (n - 1).bit_length())
