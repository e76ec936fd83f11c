"""What a model would see of a text: sizes, vocabulary, frequent tokens, an excerpt."""

import numpy as np

from gptjax.tasks.protocols import Report
from gptjax.text.token_files import Corpus
from gptjax.text.tokenizers import Tokenizer

FREQUENT = 20  # tokens shown
EXCERPT = 120  # tokens shown
PIECE = 1 << 24  # tokens counted at a time
MOST = 1 << 28  # tokens counted, of larger data the first ones


def of_corpus(corpus: Corpus) -> Report:
    """The figures of a prepared corpus."""
    tokenizer, (train, val) = corpus.tokenizer, corpus.splits
    tokens, chars = train.tokens, train.chars
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for first in range(0, min(len(tokens), MOST), PIECE):
        counts += np.bincount(tokens[first : first + PIECE], minlength=len(counts))
    order = np.argsort(-counts, kind='stable')[:FREQUENT]
    frequent = [(_shown(tokenizer, i), int(counts[i])) for i in order.tolist() if counts[i]]
    unused, per_token = int(np.sum(counts == 0)), chars / max(1, len(tokens))
    figures = {
        'train_tokens': len(tokens),
        'val_tokens': len(val),
        'train_chars': chars,
        'val_chars': val.chars,
        'vocab_size': tokenizer.vocab_size,
        'unused': unused,
        'chars_per_token': per_token,
        'frequent': frequent,
    }
    lines = [
        f'Text        {chars:,} characters, {val.chars:,} held out',
        f'Tokens      {len(tokens):,}, {len(val):,} held out',
        f'Vocabulary  {tokenizer.vocab_size:,} ({tokenizer.kind}), '
        f'{per_token:.2f} characters a token, {unused:,} unused',
        'Frequent    ' + '  '.join(f'{name} {n:,}' for name, n in frequent),
        f'Files       {train.path.parent}',
        f'Preview\n{tokenizer.decode(tokens[:EXCERPT])}',
    ]
    return Report(figures, '\n'.join(lines))


def _shown(tokenizer: Tokenizer, i: int) -> str:
    """A token, so that spaces and tokens without a text can be told apart."""
    text = tokenizer.decode([i])
    return repr(text) if text else f'<{i}>'
