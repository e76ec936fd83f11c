"""Tokenizers in the files of Hugging Face: reading theirs, writing ours where there is a form."""

import json
from pathlib import Path

import tokenizers as hf

from gptjax.errors import UserError
from gptjax.text.bpe import END, BpeTokenizer
from gptjax.text.characters import CharTokenizer
from gptjax.text.tokenizers import Tokenizer

# Any character by itself, also a line break.
ANY = r'[\s\S]'


def read(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder; None if there is none. Raises UserError for other kinds."""
    fast = folder / 'tokenizer.json'
    if fast.exists():
        data = fast.read_text(encoding='utf-8')
        model = json.loads(data)
        if model['model'].get('type', 'BPE') == 'BPE' and 'ByteLevel' in data:
            return BpeTokenizer(data)
        if (model.get('pre_tokenizer') or {}).get('pattern') == {'Regex': ANY}:
            vocab = model['model']['vocab']
            characters = sorted((word for word in vocab if word != END), key=vocab.get)
            return CharTokenizer(''.join(characters), END in vocab)
        raise UserError(
            f'{fast} is neither a byte-level BPE nor one that gptjax wrote; remove it to import '
            'the weights alone (for a vocabulary of 50,257 that of GPT-2 is taken then)'
        )
    vocab, merges = folder / 'vocab.json', folder / 'merges.txt'
    if vocab.exists() and merges.exists():
        words = json.loads(vocab.read_text(encoding='utf-8'))
        return BpeTokenizer.from_vocab(words, merges.read_text(encoding='utf-8'))
    return None


def write(tokenizer: Tokenizer, folder: Path) -> bool:
    """Writes the tokenizer for `transformers.AutoTokenizer`; False if there is no form for it."""
    if isinstance(tokenizer, BpeTokenizer):
        data = tokenizer.data
    elif isinstance(tokenizer, CharTokenizer):
        data = _characters(tokenizer)
    else:
        return False
    (folder / 'tokenizer.json').write_text(data, encoding='utf-8')
    about = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False}
    if tokenizer.end is not None:
        about |= {'bos_token': END, 'eos_token': END}
    # CTranslate2 asks for one, though neither kind ever needs it; GPT-2 names its end token.
    unknown = END if isinstance(tokenizer, BpeTokenizer) else tokenizer.characters[-1]
    about['unk_token'] = END if tokenizer.end is not None else unknown
    (folder / 'tokenizer_config.json').write_text(json.dumps(about, indent=1) + '\n')
    return True


def _characters(tokenizer: CharTokenizer) -> str:
    vocab = {character: i for i, character in enumerate(tokenizer.characters)}
    made = hf.Tokenizer(hf.models.WordLevel(vocab | ({END: len(vocab)} if tokenizer.ends else {})))
    made.pre_tokenizer = hf.pre_tokenizers.Split(hf.Regex(ANY), 'isolated')
    made.decoder = hf.decoders.Fuse()
    if tokenizer.ends:
        made.add_special_tokens([END])
    return made.to_str()
