"""Texts of any size -> memory-mapped files of token ids, cached by content.

The text is read in pieces, never as a whole, so a 10 GB file needs no more memory than a small
one. A cache folder holds `train.bin`, `val.bin`, `tokenizer.json` and `about.json`; its name is a
hash of the texts' contents and of everything else that decides what the files hold.
"""

import codecs
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gptjax.errors import UserError
from gptjax.text import tokenizers

PIECE = 1 << 22  # characters read at a time
LARGE = 16 * PIECE  # characters or bytes that take long enough to say so
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of a corpus: its tokens (a read-only memory map) and what they stand for."""

    path: Path
    tokens: np.ndarray
    chars: int  # characters of text behind the tokens

    def __len__(self) -> int:
        return len(self.tokens)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Both splits, the tokenizer that made them, and the hash of the texts."""

    tokenizer: tokenizers.Tokenizer
    train: Split
    val: Split
    sha256: str


def prepare(
    path: Path,
    *,
    kind: str,
    val_fraction: float,
    cache_dir: Path,
    val_path: Path | None = None,
    say: Say = print,
) -> Corpus:
    """The token files of a text, made on the first call and read from the cache afterwards.

    Args:
      path: a UTF-8 text; a byte-order mark is dropped, line ends become newlines.
      kind: of tokenizer, a key of `tokenizers.KINDS`.
      val_fraction: the share at the end of the text that is held out, unless `val_path` is given.
      cache_dir: the folder of all token files.
      val_path: a separate validation text.
      say: receives a line before anything that may take long.

    Raises:
      UserError: a file is missing, unreadable, empty or not UTF-8.
    """
    paths = [path] if val_path is None else [path, val_path]
    sha256 = '+'.join(_file_hash(p, say) for p in paths)
    recipe = json.dumps([sha256, kind, None if val_path else val_fraction])
    folder = cache_dir / 'tokens' / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not (folder / 'about.json').exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(dir=folder.parent, prefix='.'))
        try:
            _encode(paths, kind, val_fraction, sha256, workspace, say)
            workspace.chmod(0o755)
            try:
                os.rename(workspace, folder)
            except OSError:
                # Another process was faster; or somebody took files out of the folder.
                if not (folder / 'about.json').exists():
                    shutil.rmtree(folder)
                    os.rename(workspace, folder)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
    about = json.loads((folder / 'about.json').read_text())
    return Corpus(
        tokenizers.from_json((folder / 'tokenizer.json').read_text()),
        open_split(folder / 'train.bin', about['dtype'], about['train_chars']),
        open_split(folder / 'val.bin', about['dtype'], about['val_chars']),
        about['sha256'],
    )


def open_split(path: Path, dtype: str, chars: int) -> Split:
    """A split from its file, mapped into memory and not read."""
    return Split(path, np.memmap(path, dtype, mode='r'), chars)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _encode(paths, kind, val_fraction, sha256, folder: Path, say: Say) -> None:
    """Reads the texts twice: for the characters and the length, then for the tokens."""
    lengths, characters = [], set()
    for path in paths:
        lengths.append(0)
        if path.stat().st_size > LARGE:
            say(f'Looking for the characters of {path}')
        for piece in _pieces(path):
            lengths[-1] += len(piece)
            characters.update(piece)
        if not lengths[-1]:
            raise UserError(f'{path} is empty; give a text with --config.data.path=FILE')
    tokenizer = tokenizers.KINDS[kind].from_characters(characters)
    dtype = 'uint16' if tokenizer.vocab_size <= 1 << 16 else 'uint32'
    train_chars = lengths[0] if len(paths) > 1 else int(lengths[0] * (1 - val_fraction))
    total = sum(lengths)
    done, told = 0, 0
    with open(folder / 'train.bin', 'wb') as train, open(folder / 'val.bin', 'wb') as val:
        for path in paths:
            for piece in _pieces(path):
                cut = max(0, min(len(piece), train_chars - done))
                for file, part in ((train, piece[:cut]), (val, piece[cut:])):
                    if part:
                        tokenizer.encode(part).astype(dtype).tofile(file)
                done += len(piece)
                if total > LARGE and done * 10 // total > told:
                    told = done * 10 // total
                    say(f'Encoding: {10 * told}% of {total:,} characters')
    (folder / 'tokenizer.json').write_text(tokenizer.to_json())
    about = {'sha256': sha256, 'dtype': dtype}
    about |= {'train_chars': train_chars, 'val_chars': total - train_chars}
    (folder / 'about.json').write_text(json.dumps(about, indent=1) + '\n')


def _pieces(path: Path) -> Iterator[str]:
    """The text in pieces: no byte-order mark, every line end a newline."""
    try:
        with open(path, encoding='utf-8-sig') as file:
            while piece := file.read(PIECE):
                yield piece
    except UnicodeDecodeError:
        offset, byte = _first_invalid_byte(path)
        raise UserError(
            f'{path} is not UTF-8: byte 0x{byte:02X} at offset {offset}; '
            f'convert it, for example with: iconv -f WINDOWS-1252 -t UTF-8'
        ) from None


def _first_invalid_byte(path: Path) -> tuple[int, int]:
    decoder = codecs.getincrementaldecoder('utf-8')()
    offset = 0  # of the bytes that the decoder has not yet turned into characters
    with open(path, 'rb') as file:
        while True:
            block = file.read(PIECE)
            pending = decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return offset + error.start, error.object[error.start]
            offset += len(pending) + len(block) - len(decoder.getstate()[0])


def _file_hash(path: Path, say: Say) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError(
                f'{path} is not a regular file, and it is read more than once; '
                'write the text to a file first'
            )
        if (size := path.stat().st_size) > LARGE:
            say(f'Reading {path} ({size / 1e9:.1f} GB)')
        return file_sha256(path)
    except OSError as error:
        raise UserError(
            f'cannot read {path} ({error.strerror}); check --config.data.path and val_path'
        ) from None
