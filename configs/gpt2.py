"""GPT-2 trained from scratch, and the recipe of an imported GPT-2.

  python main.py --config=configs/gpt2.py:124m --mode=train              # from scratch
  python main.py --config=configs/gpt2.py --mode=import --source=gpt2    # OpenAI's weights
  python main.py --config=configs/gpt2.py --mode=sample --prompt="The answer is"
  python main.py --config=configs/gpt2.py --mode=export --target=exported

--source is a folder with Hugging Face's files (used without a network) or a name on its hub.
Sizes: 124m, 355m, 774m, 1558m. Training needs a GPU and is not timed yet.
"""

from gptjax.config import default_config
from gptjax.errors import UserError

SIZES = {  # blocks, heads, width
    '124m': (12, 12, 768),
    '355m': (24, 16, 1024),
    '774m': (36, 20, 1280),
    '1558m': (48, 25, 1600),
}


def get_config(size: str = '124m'):
    if size not in SIZES:
        raise UserError(f'configs/gpt2.py:{size} is unknown; use :{", :".join(SIZES)}')
    n_layer, n_head, n_embd = SIZES[size]
    c = default_config()
    c.name = f'gpt2:{size}'
    c.data.update(corpus='shakespeare', tokenizer='gpt2')
    c.model.update(block_size=1024, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    c.model.update(position='learned', norm='layer', activation='gelu', qk_norm=False, bias=True)
    c.model.update(tied_head=True, residual_init='scaled', vocab_multiple=128)
    c.train.update(steps=5000, batch_size=32, learning_rate=6e-4, min_learning_rate=6e-5)
    c.train.update(warmup_steps=200, beta2=0.95, logits_chunk=256, eval_every=250)
    c.sample.update(max_new_tokens=200, temperature=0.8, top_k=50)
    return c
