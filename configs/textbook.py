"""The textbook GPT: scaled embeddings, no positions, norms after each sublayer, plain SGD.

  python main.py --config=configs/textbook.py --mode=train         # SGD at 1e-3, as specified
  python main.py --config=configs/textbook.py:adamw --mode=train   # the same with AdamW

5000 steps; every 100 steps the whole validation split and as much of the training text are
evaluated. SGD ends at 2.796 nats per character, AdamW at 1.997, each after about 3 minutes on
2 CPU cores.
"""

from gptjax.config import default_config
from gptjax.errors import UserError


def get_config(optimizer: str = 'sgd'):
    if optimizer not in ('sgd', 'adamw'):
        raise UserError(f'configs/textbook.py:{optimizer} is unknown; use :sgd or :adamw')
    c = default_config()
    c.name = f'textbook:{optimizer}'
    c.data.update(corpus='shakespeare', order='consecutive')
    c.model.update(block_size=32, n_layer=4, n_head=4, n_embd=64, dropout=0.0, bias=True)
    c.model.update(position='none', scale_embedding=True, norm='layer', norm_place='after')
    c.model.update(activation='relu', qk_norm=False, head_bias=True, residual_init='plain')
    c.train.update(steps=5000, batch_size=16, optimizer=optimizer, learning_rate=1e-3)
    c.train.update(schedule='constant', weight_decay=0.0, grad_clip=0.0)
    c.train.update(eval_every=100, eval_batches=0, eval_train=True, save_every=1000)
    c.train.steps_per_call = 10
    return c
