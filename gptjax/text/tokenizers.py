"""Tokenizers by name: text <-> arrays of token ids. Saved as JSON, never as code."""

import json
from collections.abc import Iterable
from pathlib import Path

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.text import archives
from gptjax.text.base import Tokenizer
from gptjax.text.bpe import BpeTokenizer
from gptjax.text.characters import ByteTokenizer, CharTokenizer
from gptjax.text.words import WordTokenizer

KINDS: dict[str, type[Tokenizer]] = {
    cls.kind: cls for cls in (CharTokenizer, ByteTokenizer, WordTokenizer, BpeTokenizer)
}


def learn(
    texts: Iterable[str], data: DataConfig, *, ends: bool, cache_dir: Path, say: Say = print
) -> Tokenizer:
    """The tokenizer of some texts, which are read as far as is needed.

    With `ends` it has a token that ends a document. An archive, if its kind needs one, comes from
    `cache_dir`, after a line to `say`; raises UserError if it cannot be fetched.
    """
    if data.tokenizer == 'gpt2':
        return BpeTokenizer.gpt2(archives.vocabulary('gpt2', cache_dir, say))
    return KINDS[data.tokenizer].learn(texts, data, ends)


def end_of(tokenizer: Tokenizer) -> int:
    """The id that ends a document, of a tokenizer that was learnt with one."""
    assert tokenizer.end is not None, f'a {tokenizer.kind} tokenizer without an end'
    return tokenizer.end


def from_json(text: str) -> Tokenizer:
    """The inverse of `Tokenizer.to_json`; raises UserError for what is no known tokenizer."""
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
