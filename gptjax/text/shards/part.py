"""One file of texts -> its shards and a record of them, as a process of its own does it."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

import numpy as np

from gptjax.config import DataConfig
from gptjax.files import DamagedError, read_object, write_atomically
from gptjax.text import tokenizers
from gptjax.text.clean import clean
from gptjax.text.shards.sources import File, documents
from gptjax.text.token_files import dtype_of
from gptjax.text.tokenizers import Tokenizer, end_of

SHARD_TOKENS = 1 << 27  # after which a document begins a new shard


@dataclasses.dataclass(frozen=True)
class Job:
    """A file of texts to be written as shards."""

    number: int
    file: File
    recipe: str
    data: DataConfig
    holds_out: bool  # some of the documents

    @property
    def folder(self) -> Path:
        """Of the shards."""
        return Path(self.data.shards)

    @property
    def vocabulary(self) -> Path:
        """Where the tokenizer is, till the index is written."""
        return vocabulary_path(self.folder, self.recipe)

    @property
    def record(self) -> Path:
        """Where it is written that the shards are complete."""
        return self.folder / f'{self.number:05}.json'


def vocabulary_path(folder: Path, recipe: str) -> Path:
    """The file of the tokenizer that a recipe learnt."""
    return folder / f'.{recipe}.json'


def finished(job: Job) -> dict[str, Any] | None:
    """The record of a job, if its shards are there and of the same recipe."""
    try:
        record = read_object(job.record, recipe=str, bytes=int, train=list, val=list)
        whole = record['recipe'] == job.recipe and all(
            (job.folder / shard['file']).stat().st_size == shard['bytes']
            for shard in record['train'] + record['val']
        )
        return record if whole else None
    except (DamagedError, OSError, KeyError, TypeError):
        return None


def write_file(job: Job) -> dict[str, Any]:
    """Writes the shards of a file and then their record, which is returned."""
    data, file = job.data, job.file
    tokenizer = tokenizers.from_json(job.vocabulary.read_text())
    end = end_of(tokenizer)
    sinks = {name: _Sink(job, name, tokenizer) for name in ('train', 'val')}
    number, begins = 0, True
    for text, ends in documents(file, data.text_field):
        if begins:
            sink = sinks['val' if file.is_val or _held_out(job, number) else 'train']
            sink.begin()
        text = clean(text, data)
        sink.add(tokenizer.encode(text), len(text))
        if ends:
            sink.add(np.array([end]), 0)
            number += 1
        begins = ends
    record: dict[str, Any] = {'source': file.path, 'bytes': file.size, 'recipe': job.recipe}
    record |= {name: sink.finish() for name, sink in sinks.items()}
    write_atomically(job.record, json.dumps(record, indent=1).encode())
    return record


def _held_out(job: Job, document: int) -> bool:
    """Whether a document is held out: the same ones whatever the number of workers."""
    if not job.holds_out:
        return False
    digest = hashlib.blake2b(f'{job.number}/{document}'.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < job.data.val_fraction * 2**64


class _Sink:
    """The shards of one file and split: token ids, and where documents begin."""

    def __init__(self, job: Job, split: str, tokenizer: Tokenizer) -> None:
        self._stem, self._folder = f'{split}-{job.number:05}', job.folder
        self._dtype = dtype_of(tokenizer)
        self._unfinished = self._folder / f'.{self._stem}.bin'
        self._shards: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        self._tokens = self._chars = 0

    def begin(self) -> None:
        """A document begins; what follows is its."""
        if self._file is not None and self._tokens >= SHARD_TOKENS:
            self._close()
        if self._file is None:
            self._name = f'{self._stem}-{len(self._shards):03}'
            self._file = open(self._unfinished, 'wb')  # noqa: SIM115
            self._hash, self._starts = hashlib.sha256(), []
            self._tokens = self._chars = 0
        self._starts.append(self._tokens)

    def add(self, ids: np.ndarray, chars: int) -> None:
        """Token ids of the document, and how many characters they stand for."""
        assert self._file is not None, 'begin comes first'
        content = ids.astype(self._dtype).tobytes()
        self._file.write(content)
        self._hash.update(content)
        self._tokens += len(ids)
        self._chars += chars

    def finish(self) -> list[dict[str, Any]]:
        """What is said of each shard in the index."""
        if self._file is not None:
            self._close()
        return self._shards

    def _close(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        starts = np.array(self._starts, np.int64).tobytes()
        write_atomically(self._folder / f'{self._name}.starts', starts)
        self._unfinished.replace(self._folder / f'{self._name}.bin')
        self._shards.append(
            {
                'file': f'{self._name}.bin',
                'bytes': self._tokens * np.dtype(self._dtype).itemsize,
                'tokens': self._tokens,
                'documents': len(self._starts),
                'chars': self._chars,
                'sha256': self._hash.hexdigest(),
            }
        )
