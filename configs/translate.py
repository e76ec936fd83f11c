"""Translates King James's English to today's (World English Bible), verse by verse.

python main.py --config=configs/translate.py --mode=train          # :base with a GPU, else :small
python main.py --config=configs/translate.py:small --mode=train
python main.py --config=configs/translate.py:base --mode=train

Ruth, Jonah, Romans and Philemon are held out; a copy of the source scores BLEU 46.1 and chrF 66.4.
:small (1.8M parameters) took 27 minutes on 2 CPU cores, shared with other work, and ended at loss
1.250, BLEU 57.1 and chrF 72.5, still rising. :base is not measured yet.
"""

from gptjax.chips import has_accelerator
from gptjax.config import default_config
from gptjax.errors import UserError


def get_config(size: str = ''):
    if not size:
        size = 'base' if has_accelerator() else 'small'
    c = default_config()
    c.name, c.task = f'translate:{size}', 'translation'
    c.data.update(corpus='verses', tokenizer='bpe', vocab_size=2048)
    c.model.update(block_size=192, tied_head=True)
    c.translation.copy = True
    c.train.update(optimizer='muon', eval_every=200, save_every=200, eval_batches=10)
    c.sample.update(temperature=0.0, chunk=8)
    if size == 'small':
        c.model.update(n_layer=2, n_head=4, n_embd=160)
        c.train.update(steps=1500, batch_size=32, learning_rate=4e-3, warmup_steps=50)
    elif size == 'base':
        c.model.update(n_layer=6, n_head=8, n_embd=512, dropout=0.2)
        c.train.update(steps=8000, batch_size=128, learning_rate=1e-3, warmup_steps=200)
    else:
        raise UserError(f'configs/translate.py:{size} is unknown; use :small or :base')
    return c
