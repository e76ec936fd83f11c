"""The GPT of the well-known notebooks, in both sizes.

  python main.py --config=configs/notebook.py:small --mode=train   # 64 wide, for a CPU
  python main.py --config=configs/notebook.py:large --mode=train   # 384 wide, for a GPU

A norm before each sublayer (and a final norm, which the notebooks lack), learned positions, ReLU,
an untied head with a bias, initialisation N(0, 0.02), AdamW.

:small takes about 3 minutes on 2 CPU cores and ends at 1.830 nats per character; :large is not
timed yet.
"""

from gptjax.config import default_config
from gptjax.errors import UserError


def get_config(size: str = 'small'):
    if size not in ('small', 'large'):
        raise UserError(f'configs/notebook.py:{size} is unknown; use :small or :large')
    c = default_config()
    c.name = f'notebook:{size}'
    c.data.corpus = 'shakespeare'
    c.model.update(position='learned', norm='layer', activation='relu', qk_norm=False)
    c.model.update(bias=True, head_bias=True, residual_init='plain')
    if size == 'small':
        c.model.update(block_size=32, n_layer=4, n_head=4, n_embd=64)
        c.train.update(steps=5000, batch_size=16, learning_rate=1e-3, steps_per_call=10)
    else:
        c.model.update(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2)
        c.train.update(steps=5000, batch_size=64, learning_rate=3e-4)
    c.train.update(schedule='constant', eval_every=500, save_every=500)
    return c
