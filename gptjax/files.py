"""Files that are written whole or not at all, and JSON files that are checked when read."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


class DamagedError(Exception):
    """A file that is not what was saved."""


def read_object(path: Path, **kinds: type) -> dict[str, Any]:
    """The JSON object in a file, with values of these types under these names, or DamagedError."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DamagedError(f'{path} cannot be read: {error}') from None
    if not isinstance(content, dict):
        raise DamagedError(f'{path} holds no JSON object')
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise DamagedError(f'{path} has no {name} of type {kind.__name__}')
    return content


def user_cache() -> Path:
    """Where what can be made again is kept: gptjax/ in the user's cache folder."""
    chosen = Path(os.environ.get('XDG_CACHE_HOME', ''))
    # The XDG specification: a relative path is to be ignored.
    return (chosen if chosen.is_absolute() else Path.home() / '.cache') / 'gptjax'


def write_atomically(path: Path, content: bytes) -> None:
    """Writes the file whole or not at all: under another name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix='.', delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
