"""What a work directory keeps of its text: the tokenizer and the held-out tokens."""

import json
import os
import shutil
from pathlib import Path

from gptjax.files import write_atomically
from gptjax.text import tokenizers
from gptjax.text.reading import file_sha256
from gptjax.text.token_files import Corpus, open_split
from gptjax.text.words import WordTokenizer


def save(corpus: Corpus, workdir: Path) -> None:
    """Leaves in a work directory all that sampling and evaluation need of a text."""
    write_atomically(workdir / 'tokenizer.json', corpus.tokenizer.to_json().encode())
    if isinstance(corpus.tokenizer, WordTokenizer):
        write_atomically(workdir / 'vocabulary.csv', corpus.tokenizer.to_csv().encode())
    about = {'sha256': corpus.sha256}
    if corpus.val:
        unfinished = workdir / '.val.bin'
        unfinished.unlink(missing_ok=True)
        try:
            os.link(corpus.val.path, unfinished)
        except OSError:  # Another file system.
            shutil.copyfile(corpus.val.path, unfinished)
        unfinished.replace(workdir / 'val.bin')
        about |= {'dtype': corpus.val.tokens.dtype.name, 'val_chars': corpus.val.chars}
        about['val_sha256'] = file_sha256(workdir / 'val.bin')
    write_atomically(workdir / 'data.json', json.dumps(about, indent=1).encode())


def load(workdir: Path) -> Corpus:
    """The corpus as `save` left it: without its training text.

    Raises:
      OSError, ValueError, KeyError: something is missing or damaged.
    """
    about = json.loads((workdir / 'data.json').read_text())
    tokenizer = tokenizers.from_json((workdir / 'tokenizer.json').read_text())
    val = None
    if 'val_sha256' in about:
        path = workdir / 'val.bin'
        if file_sha256(path) != about['val_sha256']:
            raise ValueError(f'{path} is not what was saved')
        val = open_split(path, about['dtype'], about['val_chars'])
    return Corpus(tokenizer, None, val, about['sha256'])
