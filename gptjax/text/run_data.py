"""What a work directory keeps of its text: the tokenizer and the held-out tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

from gptjax.file_sums import file_sha256
from gptjax.files import DamagedError, read_object, write_atomically
from gptjax.text import tokenizers
from gptjax.text.token_files import Corpus, open_split
from gptjax.text.words import WordTokenizer

DTYPES = ('uint16', 'uint32')


def save(corpus: Corpus, workdir: Path) -> None:
    """Leaves in a work directory all that sampling and evaluation need of a text."""
    write_atomically(workdir / 'tokenizer.json', corpus.tokenizer.to_json().encode())
    if isinstance(corpus.tokenizer, WordTokenizer):
        write_atomically(workdir / 'vocabulary.csv', corpus.tokenizer.to_csv().encode())
    about: dict[str, Any] = {'sha256': corpus.sha256}
    if corpus.val:
        unfinished = workdir / '.val.bin'
        shutil.copyfile(corpus.val.path, unfinished)  # No link: damage must not reach the cache.
        unfinished.replace(workdir / 'val.bin')
        about |= {'dtype': corpus.val.tokens.dtype.name, 'val_chars': corpus.val.chars}
        about['val_sha256'] = file_sha256(workdir / 'val.bin')
    write_atomically(workdir / 'data.json', json.dumps(about, indent=1).encode())


def load(workdir: Path) -> Corpus:
    """The corpus as `save` left it: without its training text.

    Raises:
      OSError, UnicodeDecodeError, DamagedError, UserError: something is missing or damaged.
    """
    about = read_object(workdir / 'data.json', sha256=str)
    tokenizer = tokenizers.from_json((workdir / 'tokenizer.json').read_text())
    val = None
    if 'val_sha256' in about:
        about = read_object(workdir / 'data.json', sha256=str, dtype=str, val_chars=int)
        path = workdir / 'val.bin'
        if about['dtype'] not in DTYPES:
            raise DamagedError(f'{workdir / "data.json"} has an unknown dtype')
        if file_sha256(path) != about['val_sha256']:
            raise DamagedError(f'{path} is not what was saved')
        val = open_split(path, about['dtype'], about['val_chars'])
    return Corpus(tokenizer, None, val, about['sha256'])
