"""Files of texts -> token shards, in several processes; after a kill it goes on where it was.

Each file of texts becomes shards of its own. When they are complete, a record of them is written;
records that are there are not made again. The index is written last, from all records.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.files import write_atomically
from gptjax.text import tokenizers
from gptjax.text.clean import clean
from gptjax.text.corpora import cache_folder
from gptjax.text.shards.index import INDEX, KNOBS, SOURCES, TOKENIZER, VAL, knobs_of
from gptjax.text.shards.part import Job, finished, vocabulary_path, write_file
from gptjax.text.shards.sources import File, documents, listed
from gptjax.text.token_files import dtype_of
from gptjax.text.tokenizers import Tokenizer

LEARN_CHARS = 1 << 28  # from which a vocabulary is learnt


def write(data: DataConfig, tokenizer: Tokenizer | None, say: Say) -> None:
    """Writes the shards of `data.path` into the folder `data.shards`, or goes on with it.

    A `tokenizer` is used instead of learning one; `say` receives a line for each finished file.
    Raises UserError if a file cannot be read, or no document or every one was held out.
    """
    files, folder = listed(data, say), Path(data.shards)
    for split in ('train', 'val'):
        for unfinished in folder.glob(f'.{split}-[0-9][0-9][0-9][0-9][0-9].bin'):
            unfinished.unlink()
    recipe = _recipe(data, tokenizer, files)
    tokenizer = _vocabulary(folder, recipe, data, tokenizer, files, say)
    holds_out = not any(file.is_val for file in files)
    jobs = [Job(i, file, recipe, data, holds_out) for i, file in enumerate(files)]
    records = {job.number: record for job in jobs if (record := finished(job)) is not None}
    waiting = [job for job in jobs if job.number not in records]
    if waiting and records:
        say(f'{len(records)} of {len(files)} files were finished before')
    for number, record in _all_done(waiting, data.workers):
        records[number] = record
        tokens = sum(shard['tokens'] for shard in record['train'] + record['val'])
        say(f'{len(records)} of {len(files)} files: {files[number].path}, {tokens:,} tokens')
    _finish(folder, data, tokenizer, [records[i] for i in range(len(files))])


@contextlib.contextmanager
def only_writer(folder: Path, say: Say) -> Iterator[None]:
    """Waits while another process writes into the folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f'Waiting for another process that writes shards into {folder}')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _recipe(data: DataConfig, tokenizer: Tokenizer | None, files: Sequence[File]) -> str:
    """A hash of all that decides what the shards hold, but for the contents of the files."""
    given = tokenizer.to_json() if tokenizer else ''
    about = [knobs_of(data), given, [dataclasses.astuple(file) for file in files]]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _vocabulary(
    folder: Path,
    recipe: str,
    data: DataConfig,
    tokenizer: Tokenizer | None,
    files: Sequence[File],
    say: Say,
) -> Tokenizer:
    """The tokenizer of the folder, made if need be."""
    about = vocabulary_path(folder, recipe)
    if about.exists():
        return tokenizers.from_json(about.read_text())
    if tokenizer is None:
        if data.tokenizer not in ('byte', 'gpt2'):
            say(f'Learning the vocabulary from up to {LEARN_CHARS:,} characters')
        texts, cache = _beginning(files, data), cache_folder(data)
        tokenizer = tokenizers.learn(texts, data, ends=True, cache_dir=cache, say=say)
    write_atomically(about, tokenizer.to_json().encode())
    return tokenizer


def _beginning(files: Sequence[File], data: DataConfig) -> Iterator[str]:
    """The first texts to learn from."""
    left = LEARN_CHARS
    for file in files:
        for text, _ in documents(file, data.text_field) if not file.is_val else ():
            yield clean(text, data)
            left -= len(text)
            if left <= 0:
                return


def _all_done(jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, record) of each job as it is finished, in `workers` processes."""
    count = min(len(jobs), workers or os.cpu_count() or 1)
    if count <= 1:
        for job in jobs:
            yield job.number, write_file(job)
        return
    # Not by fork: the threads of JAX would be copied in any state.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(count, context, _end_with, (os.getpid(),)) as pool:
        futures = {pool.submit(write_file, job): job.number for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenExecutor:
            raise UserError(
                'a process that writes shards was ended from outside, perhaps for want of memory; '
                f'set data.workers below {count} and start again: finished files stay'
            ) from None
        except BaseException:  # At an interrupt nobody waits for gigabytes.
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _end_with(parent: int) -> None:
    """In a process of its own: ends with its parent, which alone answers Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _finish(
    folder: Path, data: DataConfig, tokenizer: Tokenizer, records: Sequence[dict[str, Any]]
) -> None:
    """Joins what is held out, and writes the index."""
    train, val = ([shard for r in records for shard in r[name]] for name in ('train', 'val'))
    count = sum(shard['documents'] for shard in train + val)
    if not train or not val:
        what = 'all' if val else 'none'
        raise UserError(
            f'{what} of {count} documents were held out by data.val_fraction={data.val_fraction}; '
            'give more documents, or a text to validate on with data.val_path'
        )
    with open(folder / f'.{VAL}', 'wb') as joined:
        for shard in val:
            with open(folder / shard['file'], 'rb') as file:
                shutil.copyfileobj(file, joined)
    os.replace(joined.name, folder / VAL)
    write_atomically(folder / TOKENIZER, tokenizer.to_json().encode())
    index = {
        KNOBS: knobs_of(data),
        'dtype': dtype_of(tokenizer),
        SOURCES: {record['source']: record['bytes'] for record in records},
        'train': train,
        'val': val,
    }
    write_atomically(folder / INDEX, json.dumps(index, indent=1).encode())
