"""Cleaning: one way to write each character, and nothing lost that matters."""

import unicodedata

import pytest

from gptjax.config import DataConfig
from gptjax.text.clean import NORMALIZE, clean, persian


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('علي', 'علی'),  # Arabic yeh
        ('عيسى', 'عیسی'),  # and alef maksura
        ('كتاب', 'کتاب'),  # Arabic kaf
        ('کـــتاب', 'کتاب'),  # tatweel
        ('ﺗﺮاﻧﻪ ﻻ', 'ترانه لا'),  # presentation forms, as from a PDF
        ('ﻱ ﻙ', 'ی ک'),  # both
        ('می\u200cخواهم', 'می\u200cخواهم'),  # the zero-width non-joiner is spelling
        ('\ufeffآ\u200f', 'آ'),  # invisible marks
        ('آ', 'آ'),  # decomposed alef with madda
        ('۱۲۳ ١', '۱۲۳ ١'),
    ],
)
def test_persian(text, expected):
    assert persian(text) == expected
    assert unicodedata.is_normalized('NFKC', persian(text))


@pytest.mark.parametrize('name', NORMALIZE)
def test_cleaning_twice_changes_nothing(name):
    text = 'ﷺ كـيـ \ufeffＡﬁ e\u0301\u200c' + ''.join(map(chr, range(0x600, 0x700)))
    once = NORMALIZE[name](text)
    assert NORMALIZE[name](once) == once


def test_nothing_is_cleaned_unless_asked():
    assert clean('ＡBc ي', DataConfig()) == 'ＡBc ي'
    assert clean('ＡBc ي', DataConfig(normalize='nfkc', lowercase=True)) == 'abc ي'
