"""The index of a folder of token shards, and the shards as one array."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.config import DataConfig
from gptjax.errors import UserError
from gptjax.files import DamagedError, read_object
from gptjax.text import tokenizers
from gptjax.text.token_files import DECIDING, Corpus, Split, open_split

INDEX, TOKENIZER, VAL = 'index.json', 'tokenizer.json', 'val.bin'
KNOBS, SOURCES = 'knobs', 'sources'  # of the index
# What of a configuration decides what shards hold, besides the files.
OF_SHARDS = ('corpus', 'path', 'val_path', 'text_field', *DECIDING)


class ShardedTokens:
    """The token ids of all shards in a row; a slice is read from the files that have it."""

    def __init__(self, shards: list[Split]) -> None:
        """Maps the files into memory; nothing is read yet."""
        self._shards = [shard.tokens for shard in shards]
        self._ends = np.cumsum([len(tokens) for tokens in self._shards])
        self.dtype = self._shards[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, places: slice) -> np.ndarray:
        first, last, step = places.indices(len(self))
        found = [np.zeros(0, self.dtype)]
        for i in range(int(np.searchsorted(self._ends, first, 'right')), len(self._shards)):
            begin = int(self._ends[i]) - len(self._shards[i])
            if begin >= last:
                break
            found.append(self._shards[i][max(0, first - begin) : last - begin])
        return np.concatenate(found)[::step] if len(found) > 2 or step != 1 else found[-1]


def knobs_of(data: DataConfig) -> dict[str, Any]:
    """The knobs that decide what shards hold, as JSON has them."""
    return {f'data.{name}': getattr(data, name) for name in OF_SHARDS}


def is_complete(data: DataConfig) -> bool:
    """Whether the folder has an index.

    Raises UserError if it is of other knobs: what is there is not written over.
    """
    path = Path(data.shards) / INDEX
    if not path.exists():
        return False
    try:
        before = read_object(path, **{KNOBS: dict})[KNOBS]
    except DamagedError as error:
        raise UserError(f'{error}; remove {path} and write the shards again') from None
    for name, value in knobs_of(data).items():
        if before.get(name) != value:
            raise UserError(
                f'the shards in {data.shards} have {name}={before.get(name)}, and {value} is '
                'asked for; use that value, or another folder for data.shards'
            )
    return True


def change_since(data: DataConfig, files: Mapping[str, int]) -> str:
    """The first file of texts that is not as it was for the index, in words; empty if none.

    `files` are paths and sizes in bytes, as they are now.
    """
    before = read_object(Path(data.shards) / INDEX).get(SOURCES)
    if not isinstance(before, dict):  # Of an older version, which has no sizes.
        return ''
    for path in sorted(before.keys() | files.keys()):
        if path not in files:
            return f'{path} is not there any more'
        if before.get(path) != files[path]:
            return f'{path} has changed' if path in before else f'{path} is new'
    return ''


def open_corpus(data: DataConfig) -> Corpus:
    """The corpus of a folder of shards that is complete.

    Raises UserError if a file is missing or has another size than the index says.
    """
    folder = Path(data.shards)
    try:
        index = read_object(folder / INDEX, dtype=str, train=list, val=list)
        tokenizer = tokenizers.from_json((folder / TOKENIZER).read_text())
        sizes = {shard['file']: shard['bytes'] for shard in index['train']}
        sizes[VAL] = sum(shard['bytes'] for shard in index['val'])
        for name, size in sizes.items():
            if (there := (folder / name).stat().st_size) != size:
                raise DamagedError(f'{folder / name} has {there} bytes and should have {size}')
        windows = data.order != 'consecutive'
        shards = [
            open_split(folder / shard['file'], index['dtype'], shard['chars'], windows)
            for shard in index['train']
        ]
        val = open_split(folder / VAL, index['dtype'], sum(x['chars'] for x in index['val']))
    except (OSError, DamagedError, KeyError, TypeError) as error:
        raise UserError(
            f'the shards in {folder} are damaged ({error}); remove {folder / INDEX}, and they are '
            'written again'
        ) from None
    hashes = [[shard['sha256'] for shard in index[name]] for name in ('train', 'val')]
    sha256 = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    tokens: Any = ShardedTokens(shards)
    train = Split(shards[0].path, tokens, sum(shard.chars for shard in shards))
    return Corpus(tokenizer, train, val, sha256)
