"""Splits an overlong line at sentence, clause or word boundaries."""

import re
from collections.abc import Callable

# Ends of sentences, then of clauses, then of words.
PLACES = (r'(?<=[.!?…])\s+', r'(?<=[;:,])\s+', r'\s+')


def split_line(line: str, fits: Callable[[str], bool]) -> list[str] | None:
    """Parts of a line that all fit, in order and without the white space where it was cut.

    Returns:
      None if a single word does not fit.
    """
    if fits(line):
        return [line]
    for place in PLACES:
        cuts = list(re.finditer(place, line.strip()))
        if cuts:
            middle = min(cuts, key=lambda cut: abs(cut.start() - len(line) / 2))
            halves = line.strip()[: middle.start()], line.strip()[middle.end() :]
            parts = [split_line(half, fits) for half in halves]
            return None if None in parts else [part for half in parts for part in half or ()]
    return None
