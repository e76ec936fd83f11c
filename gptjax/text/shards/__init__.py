"""Token shards: data that are larger than memory, written in parallel and read by windows."""

from pathlib import Path

from gptjax.config import DataConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.text.shards import index, writing
from gptjax.text.token_files import Corpus
from gptjax.text.tokenizers import Tokenizer


def prepare(data: DataConfig, tokenizer: Tokenizer | None, say: Say) -> Corpus:
    """The corpus in the folder `data.shards`, which is written first if it is not complete.

    Args:
      data: where the texts and the shards are. A complete folder is used as it is: the texts need
        not be there any more, and nobody looks whether they changed.
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
    if not index.is_complete(data):
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
