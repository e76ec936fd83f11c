"""Texts and tokens as people can see them, whatever their script."""

import unicodedata
from collections.abc import Iterable

from gptjax.text.base import Tokenizer

# What has no shape of its own, or would break a line.
VISIBLE = {
    ' ': '␣',
    '\n': '↵',
    '\r': '␍',
    '\t': '⇥',
    '\u00a0': 'NBSP',
    '\u200b': 'ZWSP',
    '\u200c': 'ZWNJ',
    '\u200d': 'ZWJ',
    '\u200e': 'LRM',
    '\u200f': 'RLM',
    '\u2060': 'WJ',
    '\ufeff': 'BOM',
}


def direction(text: str) -> str:
    """'rtl' or 'ltr', by the first letter that has one (Unicode's annex 9, rules P2 and P3)."""
    kinds = map(unicodedata.bidirectional, text)
    return 'rtl' if next((k for k in kinds if k in ('L', 'R', 'AL')), 'L') != 'L' else 'ltr'


def visible(piece: bytes) -> str:
    """A token's bytes with everything in them shown: spaces, controls, parts of characters."""
    shown = []
    for character in piece.decode('utf-8', 'surrogateescape'):
        if character in VISIBLE:
            shown.append(VISIBLE[character])
        elif '\udc80' <= character <= '\udcff':  # A byte that is no UTF-8 by itself.
            shown.append(f'\\x{ord(character) - 0xDC00:02X}')
        elif unicodedata.category(character) in ('Cc', 'Cf', 'Cs', 'Co', 'Cn', 'Zl', 'Zp', 'Zs'):
            shown.append(f'U+{ord(character):04X}')
        elif unicodedata.combining(character) and not shown:
            shown.append('◌' + character)  # A mark needs something to stand on.
        else:
            shown.append(character)
    return ''.join(shown)


def name_tokens(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[int, str]:
    """How to show each of some tokens; the one that ends a document is 'END'."""
    return {
        token: 'END' if token == tokenizer.end else visible(tokenizer.to_bytes([token]))
        for token in sorted(set(map(int, ids)))
    }
