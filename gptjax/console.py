"""Lines for the user, on standard error: standard output is for results."""

import contextlib
import sys
from collections.abc import Callable

Say = Callable[[str], None]


def say(line: str) -> None:
    """Prints a line on standard error; a run goes on when nobody can read it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
