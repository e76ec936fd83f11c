"""SHA-256 sums of files: of one, of all in a folder, and what is wrong with them."""

import hashlib
import json
from pathlib import Path

MANIFEST = 'manifest.json'  # beside the folders of a checkpoint: the sum of each file in them


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def sums_of(folder: Path) -> dict[str, str]:
    """The sum of each file in the folders of a folder, by its path; files beside them are left out.

    Orbax writes late notes of its own there.
    """
    files = (path for path in sorted(folder.glob('*/**/*')) if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def damage_of(folder: Path) -> str:
    """What differs from the folder's manifest of `sums_of`, in words; empty if nothing does."""
    try:
        expected = dict(json.loads((folder / MANIFEST).read_text()))
    except FileNotFoundError:
        return f'{MANIFEST} is missing'
    except (OSError, ValueError, TypeError) as error:
        return f'{MANIFEST} cannot be read ({error})'
    try:
        found = sums_of(folder)
    except OSError as error:
        return f'{error.filename} cannot be read ({error.strerror})'
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f'{name} is missing'
        if expected.get(name) != found[name]:
            return f'{name} is not what was saved (its SHA-256 differs)'
    return ''
