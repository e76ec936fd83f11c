"""Settings of texts and tokens."""

import dataclasses

from gptjax.config.schema import Section, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """Source of the text, its tokenizer, and the split."""

    corpus: str = knob('shakespeare', 'name of a built-in corpus; unused if data.path is set')
    path: str = knob(
        '',
        'UTF-8 text file, or folder of such files; with data.shards also JSON lines, Parquet, URLs',
    )
    shards: str = knob('', 'folder of token shards, for large data; made if it is not there')
    text_field: str = knob('text', 'field of JSON lines, or column of Parquet, with the text')
    workers: int = knob(0, 'processes that write shards; 0: one for each core', low=0, high=1024)
    val_path: str = knob('', 'separate validation text; empty: a part of the text is held out')
    val_fraction: float = knob(0.1, 'held-out share of the text', above=0.0, below=1.0)
    split: str = knob(
        'end',
        'held-out part: the end of the text, or whole documents at random (always with shards)',
        choices=('end', 'documents'),
    )
    normalize: str = knob(
        'none', 'Unicode normalisation of text and prompts', choices=('none', 'nfkc', 'persian')
    )
    lowercase: bool = knob(False, 'conversion of text and prompts to lower case')
    tokenizer: str = knob('char', 'kind of token', choices=('char', 'byte', 'word', 'bpe', 'gpt2'))
    vocab_size: int = knob(
        0, 'size limit of a word or BPE vocabulary; 0: all words, or 4096 pieces', low=0
    )
    min_count: int = knob(1, 'occurrences below which a word becomes <UNKNOWN>', low=1)
    vocab_order: str = knob(
        'frequency', 'words kept in a limited vocabulary', choices=('frequency', 'appearance')
    )
    order: str = knob(
        'random',
        'training windows: anywhere at random, each once an epoch in random order, or in order',
        choices=('random', 'shuffled', 'consecutive'),
    )
    cache_dir: str = knob('', 'folder of downloads and token files; empty: ~/.cache/gptjax')

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.val_path and not self.path:
            raise UserError(
                f'data.val_path={self.val_path} needs a training text of your own beside it; '
                'add data.path=FILE'
            )
