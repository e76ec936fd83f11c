"""Sentences from noise.

python main.py --config=configs/gan.py:toy --mode=train
"""

from pathlib import Path

from gptjax.config import default_config
from gptjax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def get_config(size: str = 'fortunes'):
    c = default_config()
    c.name, c.task = f'gan:{size}', 'gan'
    c.data.update(tokenizer='word', lowercase=True, split='documents')
    c.model.update(position='sinusoidal', norm='layer', norm_place='branch', activation='gelu')
    c.model.update(bias=True, qk_norm=False, residual_init='plain')
    c.train.update(optimizer='adam', beta1=0.0, beta2=0.9, schedule='constant', grad_clip=0.0)
    c.sample.update(temperature=1.0, num_samples=10)
    if size == 'toy':
        c.data.path = str(ROOT / 'data' / 'toy_language.txt')
        c.model.update(block_size=10, n_embd=32, n_head=4, n_hidden=64)
        c.gan.update(max_words=8)
        c.train.update(steps=2000, batch_size=32, learning_rate=1e-3, eval_every=250)
    else:
        raise UserError(f'configs/gan.py:{size} is unknown; use :fortunes')
    return c
