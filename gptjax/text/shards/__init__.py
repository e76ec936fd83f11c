"""Token shards: data that are larger than memory, written in parallel and read by windows."""

import contextlib
from pathlib import Path

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.text.shards import index, writing
from gptjax.text.shards.sources import listed
from gptjax.text.token_files import Corpus
from gptjax.text.tokenizers import Tokenizer


def prepare(data: DataConfig, tokenizer: Tokenizer | None, say: Say) -> Corpus:
    """The corpus in the folder `data.shards`, which is written first if it is not complete.

    Args:
      data: where the texts and the shards are. A complete folder is used as it is: the texts need
        not be there any more. If they are, and their names or sizes changed, a line says so.
      tokenizer: to use instead of learning one.
      say: receives a line for each file that is finished.

    Raises:
      UserError: a text cannot be read, or the folder is damaged or of other knobs.
    """
    folder = Path(data.shards)
    if data.path and Path(data.path).resolve() in folder.resolve().parents:
        raise UserError(
            f'data.shards={folder} is inside data.path={data.path}, so shards would be read as '
            'texts; use a folder beside it'
        )
    if index.is_complete(data):
        _tell_changes(data, say)
    else:
        with writing.only_writer(folder, say):
            if not index.is_complete(data):  # While this one waited.
                writing.write(data, tokenizer, say)
    corpus = index.open_corpus(data)
    if tokenizer is not None and corpus.tokenizer != tokenizer:
        raise UserError(
            f'the shards in {data.shards} have other tokens than the model to start from; '
            'use another folder for data.shards'
        )
    return corpus


def _tell_changes(data: DataConfig, say: Say) -> None:
    """Says if local texts are not those that the shards were written from."""
    if not data.path or '://' in data.path:
        return
    with contextlib.suppress(UserError):  # Texts that are not there any more are not needed.
        files = {file.path: file.size for file in listed(data, say)}
        if change := index.change_since(data, files):
            say(
                f'Warning: {change}, and the shards in {data.shards} are used as they were '
                f'written; to write them again, remove {Path(data.shards) / index.INDEX}'
            )
