"""The bigram baseline: a table of what follows each character, and nothing else.

python main.py --config=configs/bigram.py --mode=train

Seconds on 2 CPU cores; 2.495 nats per character, and counting the training text's pairs gives
2.492 (each counted once more) to 2.496 (a hundredth more): there is nothing left to learn.
"""

from gptjax.config import default_config


def get_config():
    c = default_config()
    c.name = 'bigram'
    c.data.corpus = 'shakespeare'
    c.model.update(kind='bigram', block_size=64, n_layer=1, n_head=1, n_embd=2)
    c.train.update(steps=1000, batch_size=64, learning_rate=0.1, weight_decay=0.0, grad_clip=0.0)
    c.train.update(steps_per_call=10)
    return c
