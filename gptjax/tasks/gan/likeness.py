"""How like real sentences are generated ones? Figures of two lists of sentences, nothing else.

A sentence is a tuple of word ids. A distance is Jensen and Shannon's: the root of the divergence to
the base 2, from 0 (the same) to 1 (nothing in common).
"""

import collections
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from gptjax.errors import UserError

Sentence = tuple[int, ...]
LENGTH_BIN = 5  # words: in finer bins a thousand sentences differ from a thousand of their kind
BLEU_SENTENCES = 200  # each is compared with all others, so this is what self-BLEU costs


def figures(
    sentences: Sequence[Sentence], held_out: Sequence[Sentence], real: Sequence[Sentence]
) -> dict[str, float]:
    """All that is told quickly: distances from held-out sentences, shares known to real ones."""
    both = sentences, held_out
    return {
        'unigram_distance': distance(*(ngrams(x, 1) for x in both)),
        'bigram_distance': distance(*(ngrams(x, 2) for x in both)),
        'trigram_distance': distance(*(ngrams(x, 3) for x in both)),
        'length_distance': distance(*([len(s) // LENGTH_BIN for s in x] for x in both)),
        'bigram_share': share_known(sentences, real, 2),
        'trigram_share': share_known(sentences, real, 3),
        'distinct_2': share_distinct(ngrams(sentences, 2)),
        'duplicates': 1 - share_distinct(sentences),
        'mean_words': float(np.mean([len(sentence) for sentence in sentences])),
    }


def distance(ours: Iterable[Hashable], theirs: Iterable[Hashable]) -> float:
    """Jensen-Shannon distance of two lists of anything; 1 if one of them is empty."""
    a, b = collections.Counter(ours), collections.Counter(theirs)
    if not a or not b:
        return 1.0
    keys = list(a.keys() | b.keys())
    p, q = (np.array([c[key] for key in keys]) / c.total() for c in (a, b))
    middle = (p + q) / 2

    def divergence(x: np.ndarray) -> float:
        some = x > 0
        return np.sum(x[some] * np.log2(x[some] / middle[some]))

    return float(np.sqrt(max((divergence(p) + divergence(q)) / 2, 0.0)))


def ngrams(sentences: Iterable[Sentence], n: int) -> list[Sentence]:
    """All sequences of n words, those of different sentences apart."""
    return [s[i : i + n] for s in sentences for i in range(len(s) - n + 1)]


def share_known(sentences: Iterable[Sentence], real: Iterable[Sentence], n: int) -> float:
    """Share of the n-grams of some sentences that occur in real ones; 0 if there are none."""
    known, ours = set(ngrams(real, n)), ngrams(sentences, n)
    return sum(gram in known for gram in ours) / max(len(ours), 1)


def share_distinct(items: Sequence[Hashable]) -> float:
    """How many different ones there are, divided by how many; 0 if there are none."""
    return len(set(items)) / max(len(items), 1)


def self_bleu(sentences: Sequence[Sentence]) -> float:
    """Mean BLEU (0 to 1) of each sentence against all others (Zhu et al., 2018, 1802.01886).

    Of at most BLEU_SENTENCES of them, spread evenly. Low is diverse: 1 is the same sentence always.

    Raises:
      UserError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise UserError(
            "self-BLEU needs sacrebleu, which is not installed; pip install -e '.[gan]'"
        ) from None
    chosen = np.linspace(0, len(sentences) - 1, min(len(sentences), BLEU_SENTENCES)).astype(int)
    texts = [' '.join(map(str, sentences[i])) for i in chosen]
    score = BLEU(tokenize='none', effective_order=True).sentence_score
    scores = [score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return float(np.mean(scores)) / 100


def by_frequency(
    learnt: Sequence[Sentence], count: int, draw: np.random.Generator
) -> list[Sentence]:
    """The baseline: lengths and words drawn as often as they occur, each by itself."""
    words = np.array([word for sentence in learnt for word in sentence])
    chosen = draw.choice([len(sentence) for sentence in learnt], size=count)
    return [tuple(draw.choice(words, size=n).tolist()) for n in chosen]


def table(columns: dict[str, dict[str, float]]) -> str:
    """Figures of several lists, with the same names in each, as a Markdown table."""
    lines = ['| | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 1) + '|']
    for name in next(iter(columns.values())):
        values = [figures[name] for figures in columns.values()]
        cells = (f'{value:.1f}' if abs(value) >= 10 else f'{value:.3f}' for value in values)
        lines.append(f'| {name.replace("_", " ")} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
