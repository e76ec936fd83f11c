"""Where a training text has what stands before a token: learnt, or copied?"""

import dataclasses

import numpy as np

SHOWN = 24  # tokens of the training text around a place
MOST_SCANNED = 50_000_000  # tokens


@dataclasses.dataclass(frozen=True)
class Source:
    """The longest end of a context that the training text has too."""

    length: int  # tokens
    count: int  # places
    followed: int  # of these, places with the same next token
    start: int  # of what is shown of the first of them
    excerpt: tuple[int, ...]  # token ids: what stands there, some before and after


def find_sources(train_S: np.ndarray, tokens_T: np.ndarray) -> list[Source]:
    """For each token but the first, where the training text has the tokens before it.

    `train_S` is searched in full, at most MOST_SCANNED tokens of it.
    """
    train_S = train_S[:MOST_SCANNED]
    places = {int(i): np.flatnonzero(train_S == i) for i in set(tokens_T[:-1].tolist())}
    found = []
    for t in range(1, len(tokens_T)):
        ends = places[int(tokens_T[t - 1])]
        length = min(len(ends), 1)
        while len(ends) and length < t:
            longer = ends[ends >= length]
            longer = longer[train_S[longer - length] == tokens_T[t - 1 - length]]
            if not len(longer):
                break
            ends, length = longer, length + 1
        followed = ends[ends + 1 < len(train_S)] + 1
        same = int(np.sum(train_S[followed] == tokens_T[t]))
        start = max(0, int(ends[0]) - SHOWN + 1) if len(ends) else 0
        excerpt = train_S[start : int(ends[0]) + SHOWN + 1] if len(ends) else train_S[:0]
        found.append(Source(length, len(ends), same, start, tuple(excerpt.tolist())))
    return found
