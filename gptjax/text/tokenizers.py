"""Tokenizers by name: text <-> arrays of token ids. Saved as JSON, never as code."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.text import archives
from gptjax.text.bpe import BpeTokenizer
from gptjax.text.characters import ByteTokenizer, CharTokenizer
from gptjax.text.words import WordTokenizer


class Tokenizer(Protocol):
    """What all tokenizers can do. They are frozen dataclasses, so they can be compared."""

    kind: ClassVar[str]
    banned: ClassVar[tuple[int, ...]]  # ids that are never generated
    unknown: ClassVar[int | None]  # the id of what the vocabulary lacks, if there is one

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""

    @property
    def end(self) -> int | None:
        """The id that ends a document; None if there is none."""

    def encode(self, text: str) -> np.ndarray:
        """int32 ids of a text. Raises UnknownTextError where there is no id for something."""

    def check(self, text: str) -> None:
        """Raises UnknownTextError if the vocabulary lacks a part of the text."""

    def drop_unknown(self, text: str) -> str:
        """The text without what the vocabulary lacks."""

    def to_bytes(self, ids: Iterable[int], after: int | None = None) -> bytes:
        """The text of some ids in UTF-8, where it follows the id `after`.

        The pieces of a text are bytes, since a token may hold a part of a character.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids."""

    def to_json(self) -> str:
        """All of it; `from_json` is the inverse."""


KINDS = {cls.kind: cls for cls in (CharTokenizer, ByteTokenizer, WordTokenizer, BpeTokenizer)}


def learn(
    texts: Iterable[str], data: DataConfig, *, ends: bool, cache_dir: Path, say: Say = print
) -> Tokenizer:
    """The tokenizer of some texts.

    Args:
      texts: read as far as is needed.
      data: its kind, and how large its vocabulary may be.
      ends: whether a token that ends documents is needed.
      cache_dir: where archives are, if its kind needs one.
      say: receives a line before anything is fetched.

    Raises:
      UserError: an archive cannot be fetched.
    """
    if data.tokenizer == 'gpt2':
        return BpeTokenizer.gpt2(archives.vocabulary('gpt2', cache_dir, say))
    return KINDS[data.tokenizer].learn(texts, data, ends)


def end_of(tokenizer: Tokenizer) -> int:
    """The id that ends a document, of a tokenizer that was learnt with one."""
    assert tokenizer.end is not None, f'a {tokenizer.kind} tokenizer without an end'
    return tokenizer.end


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
    except Exception:  # `tokenizers` raises plain ones.
        raise UserError(
            f'not a tokenizer of a known kind ({", ".join(KINDS)}): {text[:60]!r}...; '
            'restore tokenizer.json from a backup'
        ) from None
