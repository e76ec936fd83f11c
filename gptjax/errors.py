"""What a user's mistake looks like in code."""

import difflib


class UserError(ValueError):
    """A mistake that the user can mend: main prints it as one line and leaves with status 1.

    The message names the value, the constraint and the remedy.
    """


class UnknownTextError(UserError):
    """A text has something that the vocabulary lacks."""


def nearest(word: str, known: list[str]) -> str:
    """'did you mean X?' or, with nothing near, 'known are ...': the end of an error message."""
    # A knob under the wrong section (--config.n_layer) is nearer than any misspelling.
    near = [name for name in known if name.split('.')[-1] == word.split('.')[-1]]
    near = near or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f'did you mean {near[0]}?' if near else f'known are {", ".join(known)}'
