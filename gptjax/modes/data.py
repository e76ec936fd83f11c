"""--mode=data: prepares a text and shows what a model would see of it."""

import json

import numpy as np

from gptjax import tasks
from gptjax.modes.request import Request
from gptjax.training.progress import say

FREQUENT = 20  # tokens shown
PREVIEW = 120  # tokens shown
PIECE = 1 << 24  # tokens counted at a time


def run(request: Request) -> int:
    """Prints sizes, split, vocabulary, the most frequent tokens and a preview."""
    task = tasks.create(request.config, say)
    corpus = task.corpus
    tokenizer, tokens = corpus.tokenizer, corpus.train.tokens
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for first in range(0, len(tokens), PIECE):
        counts += np.bincount(tokens[first : first + PIECE], minlength=len(counts))
    order = np.argsort(-counts, kind='stable')[:FREQUENT]
    frequent = [(_shown(tokenizer, i), int(counts[i])) for i in order.tolist() if counts[i]]
    figures = {
        'train_tokens': len(tokens),
        'val_tokens': len(corpus.val),
        'train_chars': corpus.train.chars,
        'val_chars': corpus.val.chars,
        'vocab_size': tokenizer.vocab_size,
        'unused': int(np.sum(counts == 0)),
        'chars_per_token': corpus.train.chars / max(1, len(tokens)),
        'frequent': frequent,
    }
    if request.as_json:
        print(json.dumps(figures, ensure_ascii=False))
        return 0
    shares = f'{figures["chars_per_token"]:.2f} characters a token, {figures["unused"]:,} unused'
    print(f'Text        {corpus.train.chars:,} characters, {corpus.val.chars:,} held out')
    print(f'Tokens      {len(tokens):,}, {len(corpus.val):,} held out')
    print(f'Vocabulary  {tokenizer.vocab_size:,} ({tokenizer.kind}), {shares}')
    print('Frequent    ' + '  '.join(f'{name} {n:,}' for name, n in frequent))
    print(f'Files       {corpus.train.path.parent}')
    print(f'Preview\n{tokenizer.decode(tokens[:PREVIEW])}')
    return 0


def _shown(tokenizer, i: int) -> str:
    """A token as it can be told from others in a line."""
    text = tokenizer.decode([i])
    return repr(text) if text else f'<{i}>'
