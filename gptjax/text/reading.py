"""Reading texts of any size: in pieces, cut where no tokenizer can tell, and by their hashes."""

import codecs
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.file_sums import file_sha256
from gptjax.text.corpora import Source
from gptjax.text.recipes import END_OF_DOCUMENT

PIECE = 1 << 20  # characters read at a time
LARGE = 64 * PIECE  # characters or bytes that take long enough to say so


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a document; all parts in order are the document."""

    text: str
    document: int  # counted over all files
    ends: bool  # whether it is the last of its document
    is_val: bool  # whether it comes from a validation file


def read(source: Source) -> Iterator[Piece]:
    """All documents in pieces: no byte-order mark, every line end a newline; empty ones left out.

    Raises UserError if a file is not UTF-8.
    """
    document = 0
    for path in source.train + source.val:
        for text, ends in pieces(_blocks(path), source.marked):
            yield Piece(text, document, ends, path in source.val)
            document += ends


def pieces(blocks: Iterable[str], marked: bool) -> Iterator[tuple[str, bool]]:
    """(text, whether it ends a document): blocks of a file, cut where no tokenizer can tell.

    `marked`: END_OF_DOCUMENT ends documents; otherwise the file is one. Empty ones are left out.
    """
    begun, rest = False, ''
    for block in blocks:
        *whole, rest = (rest + block).split(END_OF_DOCUMENT) if marked else [rest + block]
        for text in whole:
            if begun or text:
                yield text, True
                begun = False
        if cut := _cut(rest):
            yield rest[:cut], False
            rest, begun = rest[cut:], True
    if begun or rest:
        yield rest, True


def _cut(text: str) -> int:
    """Where to cut a text that goes on: before the last white space that follows something else.

    No word, no piece of a word and no composed character extends over such a place.
    """
    if len(text) > 4 * PIECE:  # Somebody's file without any white space, or of nothing else.
        return len(text)
    at = len(text) - 1
    while at > 0 and not (text[at].isspace() and not text[at - 1].isspace()):
        at -= 1
    return max(at, 0)


def _blocks(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding='utf-8-sig') as file:
            while block := file.read(PIECE):
                yield block
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


def source_sha256(source: Source, say: Say) -> str:
    """The hash of all files and, after a plus sign, of a validation text. Raises UserError."""
    return '+'.join(_files_sha256(paths, say) for paths in (source.train, source.val) if paths)


def _files_sha256(paths: tuple[Path, ...], say: Say) -> str:
    hashes = [_checked_sha256(path, say) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(''.join(hashes).encode()).hexdigest()


def _checked_sha256(path: Path, say: Say) -> str:
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
            f'cannot read {path} ({error.strerror}); check data.path and val_path'
        ) from None
