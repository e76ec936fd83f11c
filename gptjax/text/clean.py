"""Cleaning of texts before they are tokenized: the same for what is learnt and for prompts."""

import unicodedata
from collections.abc import Callable

from gptjax.config import DataConfig

# Arabic letters that Persian writes otherwise, and signs that only decorate.
PERSIAN = str.maketrans(
    {
        '\N{ARABIC LETTER YEH}': '\N{ARABIC LETTER FARSI YEH}',
        '\N{ARABIC LETTER ALEF MAKSURA}': '\N{ARABIC LETTER FARSI YEH}',
        '\N{ARABIC LETTER KAF}': '\N{ARABIC LETTER KEHEH}',
        '\N{ARABIC TATWEEL}': None,  # It stretches a word and has no sound.
        '\N{ZERO WIDTH NO-BREAK SPACE}': None,
        '\N{LEFT-TO-RIGHT MARK}': None,
        '\N{RIGHT-TO-LEFT MARK}': None,
    }
)


def nfkc(text: str) -> str:
    """Unicode's compatibility composition: one way to write each character (UAX 15).

    Presentation forms, as PDF files have them, become letters. The zero-width non-joiner stays.
    """
    return unicodedata.normalize('NFKC', text)


def persian(text: str) -> str:
    """NFKC, then Persian's own yeh and kaf, without tatweel and invisible marks."""
    return nfkc(nfkc(text).translate(PERSIAN))


NORMALIZE: dict[str, Callable[[str], str]] = {'none': str, 'nfkc': nfkc, 'persian': persian}


def clean(text: str, data: DataConfig) -> str:
    """The text as a configuration wants it. Doing it twice changes nothing."""
    text = NORMALIZE[data.normalize](text)
    return text.lower() if data.lowercase else text
