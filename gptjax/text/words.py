"""Words as tokens: punctuation marks and line breaks are tokens too, spaces are not.

Texts are split at Unicode's word boundaries (UAX 29), by the `regex` library, so "don't" stays one
word in any script that has words. Printing puts the spaces back: the vocabulary notes of each
mark whether it mostly stood close to its neighbours, as a comma does to the word before it.
"""

import collections
import csv
import dataclasses
import functools
import io
import itertools
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
import regex

from gptjax.config import DataConfig
from gptjax.errors import UnknownTextError
from gptjax.text.base import Tokenizer

BOUNDARY = regex.compile(r'(?V1w)\b')
PAD, START, END, UNKNOWN = range(4)
SPECIAL = ('<PAD>', '<START>', '<END>', '<UNKNOWN>')
CLOSE_BEFORE, CLOSE_AFTER = 1, 2  # bits: mostly no space before the mark, or after it


@dataclasses.dataclass(frozen=True)
class WordTokenizer(Tokenizer):
    """One token for each word. The first four ids are no words, so none can collide with them."""

    words: tuple[str, ...]
    counts: tuple[int, ...]  # how often each occurred where the vocabulary was learnt
    close: tuple[int, ...]
    kind: ClassVar[str] = 'word'
    banned: ClassVar[tuple[int, ...]] = (PAD, START, UNKNOWN)
    end: ClassVar[int] = END
    unknown: ClassVar[int | None] = UNKNOWN

    @classmethod
    def learn(cls, texts: Iterable[str], data: DataConfig, ends: bool) -> 'WordTokenizer':
        """The words that occur at least `min_count` times, at most `vocab_size` ids in all."""
        counts: collections.Counter[str] = collections.Counter()  # in the order of appearance
        close_before: collections.Counter[str] = collections.Counter()
        close_after: collections.Counter[str] = collections.Counter()
        for text in texts:
            before, spaced = '\n', True
            for part in _parts(text):
                if part.isspace() and part != '\n':
                    spaced = True
                    continue
                counts[part] += 1
                if not spaced and before != '\n' and part != '\n':
                    close_before[part] += 1
                    close_after[before] += 1
                before, spaced = part, False
        order = counts.most_common() if data.vocab_order == 'frequency' else counts.items()
        kept = [(word, n) for word, n in order if n >= data.min_count]
        if data.vocab_size:
            kept = kept[: max(0, data.vocab_size - len(SPECIAL))]
        close = (
            # A word often has a mark close to it; that says something of the mark alone.
            0
            if word[0].isalnum()
            else CLOSE_BEFORE * (2 * close_before[word] > n)
            + CLOSE_AFTER * (2 * close_after[word] > n)
            for word, n in kept
        )
        return cls(tuple(word for word, _ in kept), tuple(n for _, n in kept), tuple(close))

    def __post_init__(self) -> None:
        # JSON has lists, and a frozen dataclass is to be hashable.
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, tuple(getattr(self, field.name)))

    @property
    def vocab_size(self) -> int:
        return len(SPECIAL) + len(self.words)

    def encode(self, text: str) -> np.ndarray:
        """int32 ids; words that the vocabulary lacks become UNKNOWN."""
        return np.fromiter((self._ids.get(word, UNKNOWN) for word in split(text)), np.int32)

    def check(self, text: str) -> None:
        """Raises UnknownTextError, which names the first word that the vocabulary lacks."""
        unknown = [word for word in split(text) if word not in self._ids]
        if unknown:
            raise UnknownTextError(
                f'the word {unknown[0]!r} is not in the vocabulary of {len(self.words)} words; '
                'use another, or drop unknown words with sample.unknown=skip'
            )

    def drop_unknown(self, text: str) -> str:
        """The text without the words that the vocabulary lacks."""
        return self.decode(self._ids[word] for word in split(text) if word in self._ids)

    def to_bytes(self, ids: Iterable[int], after: int | None = None) -> bytes:
        """The text of some ids in UTF-8, with spaces; `after` decides whether one comes first."""
        pieces = []
        for i in map(int, ids):
            if i in (PAD, START, END):
                continue
            word, close = self._shown(i)
            if after is not None and after not in (PAD, START, END):
                before, close_before = self._shown(after)
                close_up = close & CLOSE_BEFORE or close_before & CLOSE_AFTER
                if '\n' not in (before, word) and not close_up:
                    pieces.append(' ')
            pieces.append(word)
            after = i
        return ''.join(pieces).encode()

    def to_csv(self) -> str:
        """id,word,count: a table for people."""
        table = io.StringIO()
        rows = csv.writer(table, lineterminator='\n')
        rows.writerow(('id', 'word', 'count'))
        rows.writerows((i, name, '') for i, name in enumerate(SPECIAL))
        named = zip(self.words, self.counts, strict=True)
        rows.writerows((i, word, n) for i, (word, n) in enumerate(named, len(SPECIAL)))
        return table.getvalue()

    def _shown(self, i: int) -> tuple[str, int]:
        if i < len(SPECIAL):
            return SPECIAL[i], 0
        return self.words[i - len(SPECIAL)], self.close[i - len(SPECIAL)]

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, len(SPECIAL))}


def split(text: str) -> Iterator[str]:
    """Words, punctuation marks and line breaks; other white space only separates them."""
    return (part for part in _parts(text) if part == '\n' or not part.isspace())


def _parts(text: str) -> Iterator[str]:
    """All of the text; a mark that is repeated, as in '--' or '...', is one part."""
    for part, group in itertools.groupby(filter(None, BOUNDARY.split(text))):
        if part == '\n' or part[0].isalnum():
            yield from group
        else:
            yield ''.join(group)
