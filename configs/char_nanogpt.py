"""nanoGPT's character recipe, unchanged, on tiny Shakespeare, for comparison.

  python main.py --config=configs/char_nanogpt.py:cpu --mode=train   # its laptop recipe
  python main.py --config=configs/char_nanogpt.py:gpu --mode=train   # its GPU recipe

:cpu takes 1 to 2 minutes on 2 CPU cores and ends at 1.901 over the whole split (nanoGPT itself:
1.898, and 1.88 on its sampled batches). For :gpu, nanoGPT's README reports 1.4697 at best.

Without a network: --config.data.path=FILE, with tiny Shakespeare in that file.
"""

from gptjax.config import default_config
from gptjax.errors import UserError


def get_config(machine: str = ''):
    if machine not in ('cpu', 'gpu'):
        raise UserError(f'configs/char_nanogpt.py:{machine} is unknown; use :cpu or :gpu')
    c = default_config()
    c.name = f'char_nanogpt:{machine}'
    c.data.corpus = 'tinyshakespeare'
    c.model.update(position='learned', norm='layer', norm_place='before', activation='gelu_exact')
    c.model.update(qk_norm=False, bias=False, tied_head=True, residual_init='scaled')
    c.train.update(optimizer='adamw', learning_rate=1e-3, min_learning_rate=1e-4, warmup_steps=100)
    c.train.update(beta1=0.9, beta2=0.99, weight_decay=0.1, grad_clip=1.0, eval_every=250)
    if machine == 'cpu':
        c.model.update(block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.0)
        c.train.update(steps=2000, batch_size=12, steps_per_call=10)
        c.sample.chunk = 32
    else:
        c.model.update(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2)
        c.train.update(steps=5000, batch_size=64)
    return c
