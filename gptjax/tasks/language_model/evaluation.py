"""What a language model's loss is, in several units."""

import math
from collections.abc import Iterable

import numpy as np

from gptjax.config import Config
from gptjax.tasks.base import own_rows
from gptjax.text import batches
from gptjax.text.batches import Batch
from gptjax.text.token_files import Split
from gptjax.text.tokenizers import Tokenizer

EVAL_TOKENS = 8192  # computed at a time
EVAL_LOGITS = 2**25  # of these tokens in memory at a time: 134 MB


def windows(tokens_T: np.ndarray, config: Config, parts: int, whole: bool) -> Iterable[Batch]:
    """This process's rows of the batches of an evaluation, the same at every call.

    All windows of the tokens, or `train.eval_batches` batches of drawn ones; the rows of a batch
    are a multiple of `parts`.
    """
    block_size, train = config.model.block_size, config.train
    rows = -(-EVAL_TOKENS // block_size // parts) * parts
    shape = {'batch_size': rows, 'block_size': block_size} | own_rows()
    if whole:
        return batches.whole_split(tokens_T, **shape)
    return (
        batches.random_windows(tokens_T, seed=(train.seed, 1), step=i, **shape)
        for i in range(train.eval_batches)
    )


def logits_chunk(shape: tuple[int, int], vocab_size: int) -> int:
    """Positions of each row whose logits are in memory at a time, of (rows, T); 0: all."""
    rows, length = shape
    chunk = max(1, EVAL_LOGITS // (rows * vocab_size))
    return chunk if chunk < length else 0


def figures(nats: float, count: float, val: Split, tokenizer: Tokenizer) -> dict[str, float]:
    """The figures of a whole split.

    Bits per character make tokenizers comparable, unless words are `unknown` (a share of tokens):
    what these were is not told, and costs nothing.
    """
    chars = val.chars - len(tokenizer.decode(val.tokens[:1]))  # The first token is no target.
    result = {
        'val_loss': nats / count,
        'bits_per_char': nats / math.log(2) / chars,
        'perplexity': math.exp(min(nats / count, 700.0)),
        'tokens': int(count),
    }
    if tokenizer.unknown is not None:
        result['unknown'] = float(np.mean(val.tokens == tokenizer.unknown))
    return result


def describe(figures: dict[str, float]) -> str:
    """The figures as a line for people."""
    line = (
        f'loss {figures["val_loss"]:.4f} nats per token, {figures["bits_per_char"]:.4f} bits per '
        f'character, perplexity {figures["perplexity"]:.3f}, over {figures["tokens"]:,} tokens'
    )
    unknown = figures.get('unknown', 0)
    return line + f', {unknown:.1%} of them unknown words' * (unknown > 0)
