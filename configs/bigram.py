"""The bigram baseline: a table of logits for the character after each character.

python main.py --config=configs/bigram.py --mode=train

Takes seconds on 2 CPU cores and ends at 2.495 nats per character. Counting the pairs of the
training text gives 2.492 (with 1 added to each count) to 2.496 (with 0.01 added), so training has
reached the optimum.
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
