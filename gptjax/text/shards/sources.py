"""Files of text, JSON lines or Parquet, here or elsewhere, and their documents in pieces.

A path with `://` is opened by fsspec. What a file holds is told by its name; `.gz` is unpacked.
"""

import contextlib
import dataclasses
import glob
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.extras import need
from gptjax.text import corpora
from gptjax.text.reading import PIECE, pieces

LINES = ('.jsonl', '.ndjson')
ROWS = 256  # of a Parquet file, read at a time


@dataclasses.dataclass(frozen=True)
class File:
    """A file of texts."""

    path: str
    size: int  # bytes
    is_val: bool = False  # all of it is held out
    marked: bool = False  # recipes.END_OF_DOCUMENT ends documents in it


def listed(data: DataConfig, say: Say) -> list[File]:
    """The files of `data.path` (one, a folder, or a pattern with *) and of `data.val_path`.

    Without a path those of `data.corpus`. Raises UserError if there are none.
    """
    if not data.path:
        source = corpora.source(data, say)
        parts = [
            (path, is_val) for is_val, ps in enumerate((source.train, source.val)) for path in ps
        ]
        return [File(str(x), x.stat().st_size, bool(is_val), marked=True) for x, is_val in parts]
    held_out = _found(data.val_path) if data.val_path else {}
    train = {path: size for path, size in _found(data.path).items() if path not in held_out}
    found = [File(path, size) for path, size in train.items()]
    return found + [File(path, size, is_val=True) for path, size in held_out.items()]


def _found(path: str) -> dict[str, int]:
    """Paths and sizes, in the order of names."""
    if '://' in path:
        sizes = _found_elsewhere(path)
    elif Path(path).is_dir():
        below = (x for x in Path(path).rglob('*') if x.is_file())
        sizes = {str(x): x.stat().st_size for x in below if '/.' not in f'/{x.relative_to(path)}'}
    else:
        names = [path] if Path(path).exists() else glob.glob(path, recursive=True)
        sizes = {name: Path(name).stat().st_size for name in names if Path(name).is_file()}
    if not sizes:
        raise UserError(f'there are no files at {path}; check data.path and val_path')
    return dict(sorted(sizes.items()))


def _found_elsewhere(path: str) -> dict[str, int]:
    try:
        files, root = need('fsspec', 'data').core.url_to_fs(path)
        found = (
            files.glob(root, detail=True) if glob.has_magic(root) else files.find(root, detail=True)
        )
        return {
            files.unstrip_protocol(name): about['size']
            for name, about in found.items()
            if about['type'] == 'file' and '/.' not in name[len(root.partition('*')[0]) - 1 :]
        }
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f'cannot list {path} ({error}); check data.path and val_path') from None


def documents(file: File, field: str) -> Iterator[tuple[str, bool]]:
    """(text, whether it ends a document): all documents of a file, long ones in pieces.

    Args:
      file: of texts.
      field: of JSON lines, or column of a Parquet file, that has the text.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or has no such field.
    """
    kind = PurePosixPath(file.path.removesuffix('.gz')).suffix
    try:
        with _opened(file.path) as stream:
            if kind == '.parquet':
                yield from _rows(stream, file.path, field)
            elif kind in LINES:
                yield from _lines(stream, file.path, field)
            else:
                text = io.TextIOWrapper(stream, encoding='utf-8-sig')
                yield from pieces(iter(lambda: text.read(PIECE), ''), file.marked)
    except UnicodeDecodeError as error:
        raise UserError(f'{file.path} is not UTF-8 ({error.reason}); convert it first') from None
    except OSError as error:
        raise UserError(
            f'cannot read {file.path} ({error}); check data.path and val_path'
        ) from None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    opened: Any = need('fsspec', 'data').open if '://' in path else open
    with opened(path, 'rb') as file:
        if not path.endswith('.gz'):
            yield file
            return
        with gzip.open(file) as unpacked:
            yield cast(IO[bytes], unpacked)


def _lines(stream: IO[bytes], path: str, field: str) -> Iterator[tuple[str, bool]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise UserError(
                f'{path}, line {number}: {line[:60].decode("utf-8", "replace")!r} is no JSON '
                f'object with a text under data.text_field={field}; name the field that has it'
            )
        yield text, True


def _rows(stream: IO[bytes], path: str, field: str) -> Iterator[tuple[str, bool]]:
    arrow = need('pyarrow.parquet', 'data')
    try:
        table = arrow.ParquetFile(stream)
    except ValueError as error:  # pyarrow's own errors are ValueErrors.
        raise UserError(f'{path} is no Parquet file ({error}); check data.path') from None
    names = table.schema_arrow.names
    if field not in names:
        raise UserError(f'{path} has no column data.text_field={field}; it has {", ".join(names)}')
    for batch in table.iter_batches(batch_size=ROWS, columns=[field]):
        for text in batch.column(0).to_pylist():
            if text is not None:
                yield str(text), True
