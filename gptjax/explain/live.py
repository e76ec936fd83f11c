"""The model itself for the page: weights in half precision, and what its tokenizer needs.

`web/model.js` computes with it what `models/decoder.py` does, so that the page can explain another
text without Python.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptjax.config import DataConfig
from gptjax.models.bigram import Bigram
from gptjax.models.decoder import Decoder
from gptjax.text.bpe import END, BpeTokenizer
from gptjax.text.characters import ByteTokenizer, CharTokenizer
from gptjax.text.clean import PERSIAN
from gptjax.text.display import name_tokens
from gptjax.text.tokenizers import Tokenizer
from gptjax.training.checkpoint import flat_leaves

MOST_PARAMS = 8_000_000
# Knobs of the model that its forward pass depends on.
KNOBS = (
    *('block_size', 'n_layer', 'n_head', 'n_embd', 'position', 'norm', 'norm_place'),
    *('activation', 'qk_norm', 'tied_head', 'ngram', 'ngram_rows', 'scale_embedding'),
)


@dataclasses.dataclass(frozen=True)
class Live:
    """A model that a page can run."""

    config: dict[str, Any]
    weights: dict[str, np.ndarray]  # by the names of modules, with / between them
    tokenizer: dict[str, Any]
    names: list[str]  # how to show each token

    @property
    def count(self) -> int:
        """Numbers in the model."""
        return sum(array.size for array in self.weights.values())


def live_model(
    model: Decoder | Bigram, variables: Mapping[str, Any], tokenizer: Tokenizer, data: DataConfig
) -> tuple[Live | None, str]:
    """(the model for the page, nothing), or (None, why it cannot be in one)."""
    if isinstance(model, Bigram):
        return None, 'it is a table of bigrams'
    leaves = flat_leaves(variables['params']).items()
    weights = {name.replace('.', '/'): np.asarray(leaf, np.float32) for name, leaf in leaves}
    if (count := sum(array.size for array in weights.values())) > MOST_PARAMS:
        return None, f'it has {count:,} parameters, and pages have models of up to {MOST_PARAMS:,}'
    about = _tokenizer(tokenizer)
    if about is None:
        return None, f'the page cannot split a text into tokens of kind {tokenizer.kind}'
    # A padded table: what pads it is no token.
    for name in ('embed/embedding', 'head/kernel', 'head/bias'):
        if name in weights:
            axis = 0 if name.startswith('embed') else -1
            weights[name] = np.take(weights[name], range(tokenizer.vocab_size), axis)
    cleaning = {'nfkc': data.normalize != 'none', 'lowercase': data.lowercase, 'replace': {}}
    if data.normalize == 'persian':
        cleaning['replace'] = {chr(code): other or '' for code, other in PERSIAN.items()}
    named = name_tokens(tokenizer, range(tokenizer.vocab_size))
    config = {name: getattr(model.config, name) for name in KNOBS}
    names = [named[i] for i in range(tokenizer.vocab_size)]
    return Live(config, weights, about | cleaning, names), ''


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """What the page needs to encode a text; None for a kind that it does not know."""
    match tokenizer:
        case CharTokenizer():
            return {'kind': 'char', 'characters': tokenizer.characters}
        case ByteTokenizer():
            return {'kind': 'byte'}
        case BpeTokenizer():
            content = json.loads(tokenizer.data)['model']
            merges = [
                ' '.join(pair) if isinstance(pair, list) else pair for pair in content['merges']
            ]
            vocab = {piece: i for piece, i in content['vocab'].items() if piece != END}
            return {'kind': 'bpe', 'vocab': vocab, 'merges': merges}
    return None
