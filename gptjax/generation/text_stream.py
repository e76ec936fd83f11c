"""Token ids -> text as it comes: whole characters only, and nothing of a stop string."""

import codecs
from collections.abc import Iterable, Sequence

from gptjax.text.tokenizers import Tokenizer


class TextStream:
    """Turns the ids of one text into pieces that are safe to print."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), after: int | None = None
    ) -> None:
        """Begins a text, after the last token of its prompt."""
        self.ended = False  # by a stop string or the token that ends a document
        self._tokenizer = tokenizer
        self._after = after
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._stop = tuple(stop)
        self._unsaid = ''

    @property
    def end(self) -> int | None:
        """The id that ends a text."""
        return self._tokenizer.end

    @property
    def has_stop(self) -> bool:
        """Whether there are stop strings."""
        return bool(self._stop)

    def push(self, ids: Iterable[int]) -> str:
        """The text that these ids complete; may be empty. What follows the end is dropped."""
        ids = list(ids)
        end = self._tokenizer.end
        ends = end in ids
        if end is not None and ends:
            ids = ids[: ids.index(end)]
        text = self._say(self._decoder.decode(self._tokenizer.to_bytes(ids, self._after)))
        self._after = ids[-1] if ids else self._after
        if ends and not self.ended:
            text += self.finish()
            self.ended = True
        return text

    def finish(self) -> str:
        """What was held back, when no more ids will come."""
        text = self._say(self._decoder.decode(b'', final=True)) + self._unsaid
        self._unsaid = ''
        return text

    def _say(self, text: str) -> str:
        if self.ended:
            return ''
        text = self._unsaid + text
        # The stop string that is complete first counts, so that the pieces' lengths do not.
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.ended, self._unsaid = True, ''
            return text[: min(found)[1]]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._unsaid = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
