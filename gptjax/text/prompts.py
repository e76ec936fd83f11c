"""Prompts -> tokens: cleaned as the text was, and never empty."""

import numpy as np

from gptjax.config import DataConfig
from gptjax.errors import UnknownTextError
from gptjax.text.clean import clean
from gptjax.text.tokenizers import Tokenizer


def encode_prompt(prompt: str, tokenizer: Tokenizer, data: DataConfig) -> np.ndarray:
    """int32 ids, at least one.

    An empty prompt stands for the end of the document before or, without documents, for a line
    break (in a text that has none, for the first token). Raises UnknownTextError.
    """
    text = clean(prompt, data)
    tokenizer.check(text)
    ids = tokenizer.encode(text)
    if ids.size:
        return ids
    if tokenizer.end is not None:
        return np.array([tokenizer.end], np.int32)
    try:
        return tokenizer.encode('\n')
    except UnknownTextError:
        return np.zeros(1, np.int32)
