"""What all tokenizers can do: text <-> arrays of token ids."""

import abc
import dataclasses
import json
from collections.abc import Iterable
from typing import ClassVar, Self

import numpy as np

from gptjax.config import DataConfig


@dataclasses.dataclass(frozen=True)
class Tokenizer(abc.ABC):
    """A frozen dataclass, so that tokenizers can be compared; its fields are its JSON form."""

    kind: ClassVar[str]
    banned: ClassVar[tuple[int, ...]] = ()  # ids that are never generated
    unknown: ClassVar[int | None] = None  # the id of what the vocabulary lacks, if there is one

    @classmethod
    @abc.abstractmethod
    def learn(cls, texts: Iterable[str], data: DataConfig, ends: bool) -> Self:
        """The tokenizer of some texts; `ends`: with a token that ends a document."""

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """How many ids there are."""

    @property
    @abc.abstractmethod
    def end(self) -> int | None:
        """The id that ends a document; None if there is none."""

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """int32 ids of a text. Raises UnknownTextError where there is no id for something."""

    @abc.abstractmethod
    def to_bytes(self, ids: Iterable[int], after: int | None = None) -> bytes:
        """The text of some ids in UTF-8, where it follows the id `after`.

        The pieces of a text are bytes, since a token may hold a part of a character.
        """

    def check(self, text: str) -> None:
        """Raises UnknownTextError if the vocabulary lacks a part of the text."""
        self.encode(text)

    def drop_unknown(self, text: str) -> str:
        """The text without what the vocabulary lacks."""
        return text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD."""
        return self.to_bytes(ids).decode('utf-8', 'replace')

    def to_json(self) -> str:
        """All of it; `tokenizers.from_json` is the inverse."""
        return json.dumps({'kind': self.kind, **dataclasses.asdict(self)}) + '\n'
