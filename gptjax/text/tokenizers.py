"""Tokenizers: text <-> arrays of token ids. Saved as JSON, never as code.

A tokenizer is a frozen dataclass with `kind`, `vocab_size`, `encode`, `to_bytes`, `decode` and
`to_json`; `from_json` finds its class by `kind`. Ids are plain int32; no id has a special meaning.
`to_bytes` gives UTF-8, so that a token may hold a part of a character.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from gptjax.errors import UserError


class UnknownCharacterError(UserError):
    """The text has a character that the vocabulary lacks."""


@dataclasses.dataclass(frozen=True)
class CharTokenizer:
    """One token for each character; ids follow the order of the code points."""

    characters: str
    kind: ClassVar[str] = 'char'

    @classmethod
    def from_characters(cls, characters: Iterable[str]) -> 'CharTokenizer':
        """The tokenizer of all characters that occur in a text."""
        return cls(''.join(sorted(set(characters))))

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """int32 ids, one for each character.

        Raises:
          UnknownCharacterError: names the character, its code point and its position.
        """
        points = _code_points(text)
        ids = np.searchsorted(self._points, points).clip(max=self.vocab_size - 1)
        unknown = np.flatnonzero(self._points[ids] != points)
        if unknown.size:
            position = int(unknown[0])
            character = text[position]
            raise UnknownCharacterError(
                f'the character {character!r} (U+{ord(character):04X}) at position {position} is '
                f'not in the vocabulary of {self.vocab_size} characters; remove it, or drop '
                'unknown characters with --config.sample.unknown=skip'
            )
        return ids.astype(np.int32)

    def drop_unknown(self, text: str) -> str:
        """The text without the characters that `encode` would refuse."""
        return ''.join(c for c in text if c in self.characters)

    def to_bytes(self, ids: Iterable[int]) -> bytes:
        """The text of some ids in UTF-8."""
        return ''.join(self.characters[i] for i in ids).encode()

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids."""
        return self.to_bytes(ids).decode()

    def to_json(self) -> str:
        return json.dumps({'kind': self.kind, 'characters': self.characters}, indent=1) + '\n'

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return _code_points(self.characters)


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """One token for each byte of the text in UTF-8: any text, no unknown characters."""

    kind: ClassVar[str] = 'byte'
    vocab_size: ClassVar[int] = 256

    @classmethod
    def from_characters(cls, characters: Iterable[str]) -> 'ByteTokenizer':
        """The same for every text."""
        del characters
        return cls()

    def encode(self, text: str) -> np.ndarray:
        """int32 ids, one for each byte."""
        return np.frombuffer(text.encode('utf-8', 'replace'), np.uint8).astype(np.int32)

    def drop_unknown(self, text: str) -> str:
        """The text itself."""
        return text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD."""
        return self.to_bytes(ids).decode('utf-8', 'replace')

    def to_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids are."""
        return bytes(map(int, ids))

    def to_json(self) -> str:
        return json.dumps({'kind': self.kind}) + '\n'


Tokenizer = CharTokenizer | ByteTokenizer
KINDS: dict[str, type[Tokenizer]] = {cls.kind: cls for cls in (CharTokenizer, ByteTokenizer)}


def from_json(text: str) -> Tokenizer:
    """The inverse of a tokenizer's `to_json`.

    Raises:
      UserError: the text is not a tokenizer of a known kind.
    """
    try:
        fields = json.loads(text)
        tokenizer = KINDS[fields.pop('kind')](**fields)
        tokenizer.decode([tokenizer.vocab_size - 1])  # Fails if a field is of a wrong type.
        return tokenizer
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise UserError(
            f'not a tokenizer of a known kind ({", ".join(KINDS)}): {text[:60]!r}...; '
            'restore tokenizer.json from a backup'
        ) from None


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
