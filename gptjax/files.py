"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path


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
