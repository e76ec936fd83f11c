"""Fine-tunes a GPT-2 that was imported into runs/gpt2, on Shakespeare or Hafez.

  python main.py --config=configs/gpt2.py --mode=import --source=gpt2
  python main.py --config=configs/gpt2_finetune.py --mode=train
  python main.py --config=configs/gpt2_finetune.py:hafez --mode=train
  python main.py --config=configs/gpt2_finetune.py --mode=train --workdir=runs/lora \\
    --config.train.lora_rank=8 --config.train.learning_rate=1e-3    # LoRA, merged by export

--config.train.init_from=DIR starts from any other trained model. The architecture and the tokenizer
are always those of that model. Not timed yet.
"""

from gptjax.config import default_config
from gptjax.errors import UserError


def get_config(corpus: str = 'shakespeare'):
    if corpus not in ('shakespeare', 'hafez'):
        raise UserError(f'configs/gpt2_finetune.py:{corpus} is unknown; use :shakespeare or :hafez')
    c = default_config()
    c.name = f'gpt2_finetune:{corpus}'
    c.data.corpus = corpus
    if corpus == 'hafez':
        c.data.split = 'documents'
    c.model.update(block_size=256, dropout=0.1)
    c.train.update(init_from='runs/gpt2', steps=300, batch_size=8, learning_rate=3e-5)
    c.train.update(warmup_steps=20, eval_every=50, save_every=50, logits_chunk=64)
    c.sample.max_new_tokens = 200
    return c
