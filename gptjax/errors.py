"""What a user's mistake looks like in code."""

import difflib
from collections.abc import Callable


class UserError(ValueError):
    """A mistake that the user can mend: main prints it as one line and leaves with status 1.

    The message names the value, the constraint and the remedy.
    """


class UnknownTextError(UserError):
    """A text has something that the vocabulary lacks."""


def nearest(word: str, known: list[str], key: Callable[[str], str] = str) -> str:
    """'did you mean X?' or, with nothing near, 'known are ...': the end of an error message.

    What is compared with the word is the key of each known one.
    """
    keys = {key(name): name for name in known}
    near = difflib.get_close_matches(word, keys, n=1, cutoff=0.6)
    return f'did you mean {keys[near[0]]}?' if near else f'known are {", ".join(known)}'


def nearest_knob(name: str, known: list[str]) -> str:
    """As `nearest`; a knob under the wrong section is nearer than any misspelling."""
    same = [other for other in known if other.split('.')[-1] == name.split('.')[-1]]
    return nearest(same[0] if same else name, known)
