"""The engine of the server: a fixed number of rows, and few programs, all compiled at the start."""

import numpy as np

from gptjax.generation.decode import Contexts, Rows, begin, empty_rows
from gptjax.generation.engine import Engine
from gptjax.generation.requests import Piece, Request, contexts_of
from gptjax.models.decoder import Decoder
from gptjax.parallel.mesh import Layout
from gptjax.serve import prefill
from gptjax.text.tokenizers import Tokenizer

LIKELIEST = 10  # tokens that are told beside each one, if log-probabilities are asked for
PIECE = 64  # tokens of a context that are computed between two chunks of decoding


class SlotEngine(Engine):
    """An engine whose programs have fixed shapes, so that no request compiles anything.

    Contexts of up to PIECE tokens are computed together, up to `together` tokens. Longer ones are
    computed one after the other, in pieces with a chunk of decoding after each.
    """

    def __init__(
        self,
        model: Decoder,
        params: dict,
        *,
        rows: int,
        chunk: int,
        together: float,
        tokenizer: Tokenizer,
        layout: Layout | None = None,
    ) -> None:
        """As `Engine`; `together`: tokens of contexts that are computed between two chunks."""
        block_size = model.config.block_size
        self._piece = min(PIECE, block_size)
        in_pieces = -(-block_size // self._piece) * self._piece
        super().__init__(
            model,
            params,
            rows=rows,
            chunk=chunk,
            tokenizer=tokenizer,
            layout=layout,
            slots=max(block_size + chunk, in_pieces),
            likeliest=min(LIKELIEST, model.vocab_size),
        )
        # Half a block is what a full context is rebuilt from.
        self._widths = sorted({min(self._piece, -(-block_size // 2)), self._piece})
        # One number of rows, since other programs round differently: log-probabilities would
        # depend on who came at the same time.
        self._size = min(rows, max(1, int(together / self._piece)))
        self._long: Request | None = None  # whose context is computed in pieces
        self._pieces: list[Contexts] = []  # that are left of it
        self._one: Rows | None = None  # what was computed of it

    def warm_up(self) -> None:
        """Compiles all programs; no request may be there."""
        rows = len(self._rows)
        for width in self._widths:
            for _ in range(rows):
                self.submit([0] * min(width, self._block_size - 1), max_new_tokens=1)
            self._rows = [self._queue.popleft() for _ in range(rows)]
            requests = {row: request for row, request in enumerate(self._rows) if request}
            for request in requests.values():
                request.length = len(request.history)
            self._place(dict(list(requests.items())[: rows - 1 or 1]))  # Beside others.
            for request in requests.values():
                request.placed = False
            for _ in self.run():
                pass
        self.submit([0] * (self._block_size - 1), max_new_tokens=1)
        for _ in self.run():
            pass

    def step(self) -> list[Piece]:
        """As `Engine.step`; after a failure the engine is as good as new for the next requests."""
        try:
            return super().step()
        except Exception:
            # What was donated to the program that failed is gone.
            self._device_rows = self._one = self._long = None
            raise

    @property
    def waiting(self) -> int:
        """Requests without a row."""
        return len(self._queue)

    def _shape(self, n: int, longest: int) -> tuple[int, int]:
        del n
        return self._size, next(width for width in self._widths if longest <= width)

    def _place(self, replaced: dict[int, Request]) -> None:
        """Computes some of the contexts; the others wait for the next step."""
        replaced = dict(sorted(replaced.items(), key=lambda item: item[1].id))  # Oldest first.
        delayed = self.active - len(replaced)  # Texts whose next chunk comes later for this.
        least = 0
        for width in self._widths:  # Not together: the program must not depend on the company.
            group = [(row, r) for row, r in replaced.items() if least < r.length <= width]
            for first in range(0, len(group), self._size):
                # A program at least; then on as long as more texts wait for it than are delayed.
                if not first or len(group) - first > delayed:
                    super()._place(dict(group[first : first + self._size]))
            least = width
        if self._long not in replaced.values():  # Finished or cancelled.
            self._long = next((r for r in replaced.values() if r.length > least), None)
            self._pieces, self._one = self._cut(self._long) if self._long else [], None
        if self._long:
            self._compute_piece(next(row for row, r in replaced.items() if r is self._long))
        # Split over the devices in one way, or the next chunk would compile again.
        self._device_rows = self._put_rows(self._device_rows)

    def _cut(self, request: Request) -> list[Contexts]:
        """The context of a request in pieces, the first of which may begin with padding."""
        n = -(-request.length // self._piece)
        whole = contexts_of({0: request}, 1, n * self._piece, self._model.vocab_size)
        pieces = zip(np.split(whole.tokens_RT, n, 1), np.split(whole.pos_RT, n, 1), strict=True)
        return [Contexts(*piece, whole.counts_RV) for piece in pieces]

    def _compute_piece(self, row: int) -> None:
        """Computes the next piece of the long context; after the last one it goes into its row."""
        assert self._long
        piece, *self._pieces = self._pieces
        if self._one is None:
            slot = np.int32(self._piece)
            self._one = begin(self._model, self._params, piece, slot, self._slots)
        else:
            self._one = prefill.extend(
                self._model, self._params, self._one, piece.tokens_RT, piece.pos_RT
            )
        if not self._pieces:
            batch = len(self._rows)
            rows = self._device_rows or empty_rows(self._model, batch, self._slots)
            source_B = np.where(np.arange(batch) == row, 0, -1).astype(np.int32)
            self._device_rows = prefill.adopt(rows, self._one, source_B, np.int32(self._slot))
            self._long.placed = True
            self._long = self._one = None
