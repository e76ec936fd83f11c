"""Lines for the user, on standard error: standard output is for results."""

import contextlib
import sys
from collections.abc import Callable

Say = Callable[[str], None]

_process = 0  # of several that work together; see `speak_as`


def say(line: str) -> None:
    """Prints a line on standard error; a run goes on when nobody can read it."""
    if _process == 0:
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def speak_as(process: int) -> None:
    """From now on this is that one of several processes: only number 0 says what all do."""
    global _process
    _process = process


def speaker() -> str:
    """Who speaks, for the beginning of an error message: empty for process 0."""
    return f'process {_process}: ' if _process else ''
