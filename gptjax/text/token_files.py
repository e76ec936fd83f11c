"""Texts of any size -> memory-mapped files of token ids, cached by content.

The text is read in pieces (`reading.py`), never as a whole, so a 10 GB file needs no more memory
than a small one. A cache folder holds `train.bin`, `val.bin`, `tokenizer.json` and `about.json`;
its name is a hash of the texts' contents and of everything else that decides what the files hold.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import mmap
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.text import tokenizers
from gptjax.text.clean import clean
from gptjax.text.corpora import Source, cache_folder
from gptjax.text.reading import LARGE, Piece, read, source_sha256
from gptjax.text.tokenizers import Tokenizer

# What of a configuration decides the tokens, besides the texts.
DECIDING = (
    *('val_fraction', 'split', 'normalize', 'lowercase'),
    *('tokenizer', 'vocab_size', 'min_count', 'vocab_order'),
)


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

    tokenizer: Tokenizer
    train: Split | None  # None where the corpus comes from a work directory
    val: Split | None  # None where the work directory has an imported model
    sha256: str

    @property
    def splits(self) -> tuple[Split, Split]:
        """The training and the validation split, of a corpus that `prepare` made."""
        assert self.train is not None and self.val is not None
        return self.train, self.val


def prepare(
    source: Source, data: DataConfig, *, tokenizer: Tokenizer | None = None, say: Say = print
) -> Corpus:
    """The token files of a text, made on the first call and read from the cache afterwards.

    A `tokenizer` is used instead of learning one; `say` receives a line before anything that may
    take long. Raises UserError if a file is missing, unreadable, empty or not UTF-8.
    """
    sha256 = source_sha256(source, say)
    folder = _folder(sha256, source.has_documents, data, tokenizer)
    if not (folder / 'about.json').exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.') as workspace:
            made = Path(workspace) / folder.name
            made.mkdir()
            _encode(source, data, tokenizer, sha256, made, say)
            try:
                made.rename(folder)
            except OSError:
                # Another process was faster; or somebody took files out of the folder.
                if not (folder / 'about.json').exists():
                    shutil.rmtree(folder)
                    made.rename(folder)
    about = json.loads((folder / 'about.json').read_text())
    dtype = about['dtype']
    return Corpus(
        tokenizers.from_json((folder / 'tokenizer.json').read_text()),
        open_split(folder / 'train.bin', dtype, about['train_chars'], data.order == 'random'),
        open_split(folder / 'val.bin', dtype, about['val_chars']),
        about['sha256'],
    )


def cached_train(sha256: str, data: DataConfig, tokenizer: Tokenizer) -> Split | None:
    """The training split that `prepare` made, if the cache still has it.

    Args:
      sha256: of the texts.
      data: as it was for `prepare`.
      tokenizer: of the tokens.
    """
    for documents, given in itertools.product((True, False), (None, tokenizer)):
        folder = _folder(sha256, documents, data, given)
        with contextlib.suppress(OSError, ValueError, KeyError, UserError):  # None, or damaged.
            about = json.loads((folder / 'about.json').read_text())
            if tokenizers.from_json((folder / 'tokenizer.json').read_text()) == tokenizer:
                return open_split(folder / 'train.bin', about['dtype'], about['train_chars'])
    return None


def _folder(sha256: str, has_documents: bool, data: DataConfig, given: Tokenizer | None) -> Path:
    """Where the token files of some texts are, if they are cached."""
    recipe = [sha256, has_documents, *(getattr(data, name) for name in DECIDING)]
    recipe += [given.to_json()] if given else []
    name = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    return cache_folder(data) / 'tokens' / name


def open_split(path: Path, dtype: str, chars: int, windows: bool = False) -> Split:
    """A split from its file, mapped into memory; with `windows` the system reads nothing ahead."""
    if not path.stat().st_size:  # Nothing cannot be mapped.
        return Split(path, np.zeros(0, dtype), chars)
    with open(path, 'rb') as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if windows:
        mapped.madvise(mmap.MADV_RANDOM)
    return Split(path, np.frombuffer(mapped, dtype), chars)


def encode_all(path: Path, tokenizer: Tokenizer, data: DataConfig) -> Split:
    """A whole text, cleaned and encoded in memory; raises UserError if it is too short."""
    source = Source((path,))
    source_sha256(source, lambda line: None)
    texts = [piece.text for piece in _clean_pieces(source, data)]
    tokens = np.concatenate([np.zeros(0, np.int32), *map(tokenizer.encode, texts)])
    if len(tokens) < 2:
        raise UserError(f'{path} has {len(tokens)} tokens; give a longer text')
    return Split(path, tokens, sum(map(len, texts)))


def _encode(
    source: Source, data: DataConfig, tokenizer: Tokenizer | None, sha256: str, out: Path, say: Say
) -> None:
    """Reads the texts for their lengths, then for the vocabulary, then for the tokens."""
    documents = _documents(source, data, say)
    held_out = _held_out(documents, data)
    val_chars = sum(held_out)
    train_chars = sum(document.chars for document in documents) - val_chars

    def parts() -> Iterator[tuple[bool, str, bool]]:
        """(is held out, text, ends a document): each piece, cut where the splits meet."""
        left = [document.chars - out for document, out in zip(documents, held_out, strict=True)]
        for piece in _clean_pieces(source, data):
            cut = min(len(piece.text), left[piece.document])
            left[piece.document] -= cut
            kept, out = piece.text[:cut], piece.text[cut:]
            ends = piece.ends and source.has_documents
            if kept or not out:
                yield False, kept, ends and not out
            if out:
                yield True, out, ends

    total = train_chars + val_chars
    if tokenizer is None:
        if total > LARGE:
            say(f'Learning the vocabulary of {total:,} characters')
        # Without a character that only the held-out text has, that text could not be encoded.
        everything = data.tokenizer == 'char'
        texts = (text for is_val, text, _ in parts() if everything or not is_val)
        tokenizer = tokenizers.learn(
            texts, data, ends=source.has_documents, cache_dir=cache_folder(data), say=say
        )
    dtype = dtype_of(tokenizer)
    done, told = 0, 0
    with open(out / 'train.bin', 'wb') as train, open(out / 'val.bin', 'wb') as val:
        for is_val, text, ends in parts():
            ids = tokenizer.encode(text)
            if ends and tokenizer.end is not None:
                ids = np.append(ids, tokenizer.end)
            ids.astype(dtype).tofile(val if is_val else train)
            done += len(text)
            if total > LARGE and done * 10 // total > told:
                told = done * 10 // total
                say(f'Encoding: {10 * told}% of {total:,} characters')
    (out / 'tokenizer.json').write_text(tokenizer.to_json())
    about = {'sha256': sha256, 'dtype': dtype, 'train_chars': train_chars, 'val_chars': val_chars}
    (out / 'about.json').write_text(json.dumps(about, indent=1) + '\n')


def dtype_of(tokenizer: Tokenizer) -> str:
    """The type in which the ids of a tokenizer are stored."""
    return 'uint16' if tokenizer.vocab_size <= 1 << 16 else 'uint32'


def _clean_pieces(source: Source, data: DataConfig) -> Iterator[Piece]:
    for piece in read(source):
        yield dataclasses.replace(piece, text=clean(piece.text, data))


@dataclasses.dataclass
class _Document:
    chars: int
    is_val: bool  # from a validation file


def _documents(source: Source, data: DataConfig, say: Say) -> list[_Document]:
    if (size := sum(path.stat().st_size for path in source.train + source.val)) > LARGE:
        say(f'Counting the characters of {size / 1e9:.1f} GB')
    documents: list[_Document] = []
    for piece in _clean_pieces(source, data):
        if piece.document == len(documents):
            documents.append(_Document(0, piece.is_val))
        documents[piece.document].chars += len(piece.text)
    for paths, is_val in ((source.train, False), (source.val, True)):
        if paths and not any(d.chars for d in documents if d.is_val == is_val):
            raise UserError(f'{paths[0]} is empty; give a text with data.path=FILE')
    return documents


def _held_out(documents: list[_Document], data: DataConfig) -> list[int]:
    """How many characters at the end of each document are held out."""
    if any(document.is_val for document in documents):
        return [document.chars * document.is_val for document in documents]
    if data.split == 'documents':
        count = round(len(documents) * data.val_fraction)
        if not 0 < count < len(documents):
            raise UserError(
                f'data.split=documents cannot hold out {data.val_fraction} of {len(documents)} '
                'documents; give more of them, or use data.split=end'
            )
        # The same ones in every run, whatever its seed: losses are to be comparable.
        chosen = set(np.random.default_rng(0).permutation(len(documents))[:count].tolist())
        return [document.chars * (i in chosen) for i, document in enumerate(documents)]
    total = sum(document.chars for document in documents)
    wanted, held_out = total - int(total * (1 - data.val_fraction)), []
    for document in reversed(documents):
        held_out.append(min(wanted, document.chars))
        wanted -= held_out[-1]
    return held_out[::-1]
