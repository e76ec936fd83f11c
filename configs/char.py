"""A character GPT on the plays of Shakespeare.

python main.py --config=configs/char.py --mode=train          # :baby with a GPU, else :small
python main.py --config=configs/char.py:small --mode=train    # 3.6M parameters
python main.py --config=configs/char.py:laptop --mode=train   # 4.3M parameters
python main.py --config=configs/char.py:baby --mode=train     # 10.7M parameters, nanoGPT's size

:small takes 2 minutes on 2 CPU cores and ends near 1.52 nats per character. 3.1M of its parameters
are n-gram embedding tables, of which each character reads three rows. :laptop takes 9 minutes on 2
CPU cores with AVX-512 BF16 and ends at 1.464 on tiny Shakespeare (--config.data.path), below the
1.470 of nanoGPT's :baby on an A100; chosen on training text held out. :baby is not timed yet.
"""

from gptjax.chips import has_accelerator
from gptjax.config import default_config
from gptjax.errors import UserError


def get_config(size: str = ''):
    if not size:
        size = 'baby' if has_accelerator() else 'small'
    c = default_config()  # Rotary positions, RMS norm, squared ReLU, zero-initialised residuals.
    c.name = f'char:{size}'
    c.data.corpus = 'shakespeare'
    if size == 'small':
        # Embeddings of 2, 3 and 4 characters together help more than two more layers.
        c.model.update(block_size=64, n_layer=2, n_head=4, n_embd=128, ngram=4)
        c.train.update(steps=2000, batch_size=24, learning_rate=4e-3, warmup_steps=20)
        c.train.update(optimizer='muon', steps_per_call=10)
        c.sample.chunk = 32
    elif size == 'laptop':
        # Three heads cost less than six, since each has a matrix of weights for each window.
        c.model.update(block_size=256, n_layer=6, n_head=3, n_embd=192, ngram=2, dropout=0.1)
        c.train.update(steps=2500, batch_size=8, learning_rate=4e-3, warmup_steps=20)
        c.train.update(optimizer='muon', weight_decay=0.2, steps_per_call=5)
        c.train.update(eval_every=500, eval_batches=16, save_every=500)
    elif size == 'baby':
        c.model.update(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2)
        c.train.update(steps=5000, batch_size=64, learning_rate=1e-3, warmup_steps=100)
        c.train.update(min_learning_rate=1e-4)
    else:
        raise UserError(f'configs/char.py:{size} is unknown; use :small, :laptop or :baby')
    return c
