"""The smallest tokens: one for each character, or one for each byte.

Both can have one more token that ends a document; it comes after all others and has no text.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from gptjax.config import DataConfig
from gptjax.errors import UnknownTextError
from gptjax.text.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class CharTokenizer(Tokenizer):
    """One token for each character; ids follow the order of the code points."""

    characters: str
    ends: bool = False  # whether there is a token that ends a document
    kind: ClassVar[str] = 'char'

    @classmethod
    def learn(cls, texts: Iterable[str], data: DataConfig, ends: bool) -> 'CharTokenizer':
        """The tokenizer of all characters that occur in the texts."""
        return cls(''.join(sorted(set(itertools.chain.from_iterable(texts)))), ends)

    @property
    def vocab_size(self) -> int:
        return len(self.characters) + self.ends

    @property
    def end(self) -> int | None:
        return len(self.characters) if self.ends else None

    def encode(self, text: str) -> np.ndarray:
        """int32 ids, one for each character. Raises UnknownTextError, which names the first one."""
        points = _code_points(text)
        ids = np.searchsorted(self._points, points).clip(max=len(self.characters) - 1)
        unknown = np.flatnonzero(self._points[ids] != points)
        if unknown.size:
            position = int(unknown[0])
            character = text[position]
            raise UnknownTextError(
                f'the character {character!r} (U+{ord(character):04X}) at position {position} is '
                f'not in the vocabulary of {len(self.characters)} characters; remove it, or drop '
                'unknown characters with sample.unknown=skip'
            )
        return ids.astype(np.int32)

    def drop_unknown(self, text: str) -> str:
        """The text without the characters that `encode` would refuse."""
        return ''.join(c for c in text if c in self.characters)

    def to_bytes(self, ids: Iterable[int], after: int | None = None) -> bytes:
        """The text of some ids in UTF-8."""
        return ''.join(self.characters[i] for i in ids if i != self.end).encode()

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return _code_points(self.characters)


@dataclasses.dataclass(frozen=True)
class ByteTokenizer(Tokenizer):
    """One token for each byte of the text in UTF-8: any text, nothing unknown."""

    ends: bool = False
    kind: ClassVar[str] = 'byte'

    @classmethod
    def learn(cls, texts: Iterable[str], data: DataConfig, ends: bool) -> 'ByteTokenizer':
        """The same for all texts."""
        return cls(ends)

    @property
    def vocab_size(self) -> int:
        return 256 + self.ends

    @property
    def end(self) -> int | None:
        return 256 if self.ends else None

    def encode(self, text: str) -> np.ndarray:
        """int32 ids, one for each byte."""
        return np.frombuffer(text.encode('utf-8', 'replace'), np.uint8).astype(np.int32)

    def to_bytes(self, ids: Iterable[int], after: int | None = None) -> bytes:
        """The bytes that the ids are."""
        return bytes(int(i) for i in ids if i != self.end)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
