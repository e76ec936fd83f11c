"""Knobs of texts and tokens."""

import dataclasses

from gptjax.config.schema import check_bounds, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is cut."""

    corpus: str = knob('shakespeare', 'a name from text/corpora.toml; unused if path is given')
    path: str = knob('', 'a UTF-8 text file of your own, or a folder of such files')
    val_path: str = knob('', 'a separate validation text; otherwise a part of the text is held out')
    val_fraction: float = knob(0.1, 'share of the text held out', above=0.0, below=1.0)
    split: str = knob(
        'end',
        'what is held out: the end of the text, or whole documents at random',
        choices=('end', 'documents'),
    )
    normalize: str = knob(
        'none', 'cleaning of text and prompts', choices=('none', 'nfkc', 'persian')
    )
    lowercase: bool = knob(False, 'no capital letters')
    tokenizer: str = knob(
        'char', 'what a token is', choices=('char', 'byte', 'word', 'bpe', 'gpt2')
    )
    vocab_size: int = knob(
        0, 'most tokens of a vocabulary of words or BPE; 0: all words, 4096 pieces', low=0
    )
    min_count: int = knob(1, 'words that are rarer become <UNKNOWN>', low=1)
    vocab_order: str = knob(
        'frequency', 'words that a limited vocabulary keeps', choices=('frequency', 'appearance')
    )
    order: str = knob(
        'random', 'training batches: random windows, or in order', choices=('random', 'consecutive')
    )
    cache_dir: str = knob('', 'downloads and token files; empty: ~/.cache/gptjax')

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.val_path and not self.path:
            raise UserError(
                f'data.val_path={self.val_path} needs a training text of your own beside it; '
                'add data.path=FILE'
            )
