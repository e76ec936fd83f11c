"""A GPT with byte-level BPE: tokens are pieces of words, learnt from the text.

python main.py --config=configs/bpe.py --mode=train

Takes 2 to 3 minutes on 2 CPU cores and ends at 3.894 nats per token, 2.119 bits per character
(configs/char.py:small: 2.187).
"""

from gptjax.config import default_config


def get_config():
    c = default_config()
    c.name = 'bpe'
    c.data.update(corpus='shakespeare', tokenizer='bpe', vocab_size=2048)
    c.model.update(block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.1, tied_head=True)
    c.model.ngram = 2  # With 3 it overfits: 2.141 bits.
    c.train.update(steps=1000, batch_size=24, optimizer='muon', learning_rate=4e-3, warmup_steps=20)
    c.train.update(schedule='constant', average=0.995)  # Better than a decay of the rate.
    c.sample.update(max_new_tokens=200)
    return c
