"""Where a text comes from: a corpus by name, a file, or a folder of files."""

import dataclasses
import hashlib
import sys
from pathlib import Path

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError, nearest
from gptjax.files import user_cache, write_atomically
from gptjax.text import archives, recipes


@dataclasses.dataclass(frozen=True)
class Source:
    """The UTF-8 files of a text, and where its documents end."""

    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()  # empty: a part of `train` is held out
    marked: bool = False  # whether recipes.END_OF_DOCUMENT ends documents within a file

    @property
    def has_documents(self) -> bool:
        """Whether the text is several documents (each file is one) rather than one."""
        return self.marked or len(self.train) > 1


def cache_folder(data: DataConfig) -> Path:
    """Where downloads and token files of a configuration are."""
    return Path(data.cache_dir) if data.cache_dir else user_cache()


def source(data: DataConfig, say: Say = print) -> Source:
    """The text of `data.path` (a file, or a folder in the order of names) or of `data.corpus`.

    `say` receives a line before anything is fetched. Raises UserError if the corpus is unknown,
    cannot be fetched or has another hash, or if a folder is empty.
    """
    if not data.path:
        return named(data.corpus, cache_folder(data), say)
    return Source(_files(Path(data.path)), _files(Path(data.val_path)) if data.val_path else ())


def named(name: str, cache_dir: Path, say: Say = print) -> Source:
    """A corpus by its name; see `source`. Texts are made once, in `cache_dir/texts`."""
    entries = archives.table('corpora')
    if name not in entries:
        raise UserError(f'data.corpus={name!r} is unknown; {nearest(name, list(entries))}')
    entry = entries[name]
    # The text depends on the archives, on the recipes and (pydoc) on Python.
    made_of = ''.join(archive['sha256'] for archive in entry['archives']) + sys.version
    made_by = hashlib.sha256(Path(recipes.__file__).read_bytes() + made_of.encode()).hexdigest()
    train, val = (
        cache_dir / 'texts' / f'{name}-{made_by[:12]}-{part}.txt' for part in ('train', 'val')
    )
    if not train.exists():
        texts = recipes.RECIPES[entry['recipe']](*archives.fetch(entry, cache_dir, say))
        if texts.val:
            write_atomically(val, texts.val.encode())
        write_atomically(train, texts.train.encode())
    return Source((train,), (val,) if val.exists() else (), marked=True)


def _files(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,)
    files = [file for file in sorted(path.rglob('*')) if file.is_file()]
    seen = tuple(file for file in files if '/.' not in f'/{file.relative_to(path)}')
    if not seen:
        raise UserError(f'{path} has no files; give a text, or a folder of texts')
    return seen
