"""What simpler predictors reach on the same tokens, to compare a loss with."""

import lzma
import math

import numpy as np

from gptjax.text.tokenizers import Tokenizer


def baselines(
    tokens_M: np.ndarray, before_M: np.ndarray, train_S: np.ndarray | None, tokenizer: Tokenizer
) -> dict[str, float]:
    """Losses in nats per token, by the names of the predictors.

    Args:
      tokens_M: what is to be predicted.
      before_M: the token before each.
      train_S: the training text, if it is at hand: unigrams and bigrams are counted in it.
      tokenizer: of all of them.
    """
    size = tokenizer.vocab_size
    found = {'uniform': math.log(size)}
    if train_S is not None and len(train_S) > 1:
        # Add-one smoothing: what the training text lacks has a probability too.
        counts_V = np.bincount(train_S, minlength=size).astype(np.float64)
        unigram_V = (counts_V + 1) / (counts_V.sum() + size)
        found['unigram'] = -float(np.log(unigram_V[tokens_M]).mean())
        found['bigram'] = _bigram(tokens_M, before_M, train_S, unigram_V)
    compressed = lzma.compress(tokenizer.to_bytes(tokens_M.tolist()), preset=lzma.PRESET_EXTREME)
    found['xz'] = 8 * len(compressed) * math.log(2) / len(tokens_M)
    return found


def _bigram(
    tokens_M: np.ndarray, before_M: np.ndarray, train_S: np.ndarray, unigram_V: np.ndarray
) -> float:
    """Bigrams mixed with unigrams by Witten and Bell's rule (1991)."""
    size = len(unigram_V)
    pairs, counts = np.unique(
        train_S[:-1].astype(np.int64) * size + train_S[1:], return_counts=True
    )
    first = pairs // size
    total_V = np.bincount(first, counts, minlength=size)
    kinds_V = np.bincount(first, minlength=size)  # different tokens that follow
    wanted = before_M.astype(np.int64) * size + tokens_M
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen_M = np.where(pairs[place] == wanted, counts[place], 0)
    unigram_M, total_M, kinds_M = unigram_V[tokens_M], total_V[before_M], kinds_V[before_M]
    mixed_M = (seen_M + kinds_M * unigram_M) / np.maximum(total_M + kinds_M, 1)
    return -float(np.log(np.where(total_M > 0, mixed_M, unigram_M)).mean())
