"""GPT-2 with LoRA by PEFT, as a worker of a benchmark: see scripts/lora_race.py."""

import time

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gptjax.modes.bench import worker


class PeftSubject:
    """The same shapes as ours, with random weights: time does not depend on them."""

    def __init__(self, job: worker.Job) -> None:
        """The job's mode says eager or compile, and with _bfloat16 that products are rounded."""
        self.job, self.tokens, self.done = job, job.tokens(), 0
        model, train = job.config.model, job.config.train
        shape = {'n_layer': model.n_layer, 'n_head': model.n_head, 'n_embd': model.n_embd}
        zero = dict.fromkeys(('resid_pdrop', 'embd_pdrop', 'attn_pdrop'), model.dropout)
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=job.vocab_size, **shape, **zero))
        lora = LoraConfig(
            r=train.lora_rank,
            lora_alpha=train.lora_alpha,
            target_modules=['c_attn'],
            fan_in_fan_out=True,
            task_type='CAUSAL_LM',
        )
        self.model = get_peft_model(gpt2, lora).train()
        learns = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learns, lr=train.learning_rate, fused=True)
        self.forward = torch.compile(self.model) if 'compile' in job.mode else self.model
        rounds = job.mode.endswith('bfloat16')
        self.autocast = torch.autocast('cpu', torch.bfloat16, enabled=rounds)

    def train(self, steps: int) -> float:
        """Seconds that some optimizer steps take."""
        began = time.perf_counter()
        for _ in range(steps):
            batch = self.job.batch(self.tokens, self.done)
            inputs, targets = (
                torch.from_numpy(np.ascontiguousarray(batch[name])).long()
                for name in ('inputs', 'targets')
            )
            with self.autocast:
                logits_BTV = self.forward(input_ids=inputs, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits_BTV.float().flatten(0, 1), targets.flatten()
            )
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.done += 1
        return time.perf_counter() - began


if __name__ == '__main__':
    worker.serve(PeftSubject)
