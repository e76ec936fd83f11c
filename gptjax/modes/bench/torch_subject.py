"""PyTorch's side of a benchmark, as a process of its own: see `gptjax.modes.bench.worker`.

PyTorch and JAX so share neither threads nor GPU memory.
"""

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, everybody's name for it
from torch import nn

from gptjax.config import TrainConfig
from gptjax.modes.bench import machine, worker
from gptjax.modes.bench.torch_twin import Twin


def make_optimizer(twin: Twin, config: TrainConfig, fused: bool) -> torch.optim.Optimizer:
    """AdamW as ours: decay on kernels and embeddings alone."""
    matrices = [p for p in twin.parameters() if p.dim() >= 2]
    others = [p for p in twin.parameters() if p.dim() < 2]
    groups = [
        {'params': matrices, 'weight_decay': config.weight_decay},
        {'params': others, 'weight_decay': 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=fused)


class TorchSubject:
    """The twin and its optimizer, with the methods that a worker is asked for."""

    def __init__(self, job: worker.Job) -> None:
        """Builds the model with the job's weights, in the job's mode: eager or compile."""
        torch.manual_seed(0)
        self.job = job
        config = job.config
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        torch.set_float32_matmul_precision('highest' if job.exact else 'high')
        self.tokens = job.tokens()
        self.twin = Twin(config.model, job.vocab_size)
        self.twin.load_ours(job.weights())
        self.twin.to(self.device)
        self.optimizer = make_optimizer(self.twin, config.train, fused=True)
        self.model = torch.compile(self.twin) if job.mode == 'compile' else self.twin
        self.autocast = torch.autocast(
            self.device, torch.bfloat16, enabled=config.model.dtype == 'bfloat16'
        )
        self.dtype = getattr(torch, config.model.dtype)
        self.cached: Any = None  # Hugging Face's model, made when it is asked for
        self.step = 0

    def gradients(self) -> dict[str, np.ndarray]:
        """Loss and every gradient of the first batch; nothing is updated."""
        self.twin.train()
        loss = self._backward(0)
        arrays = self.twin.as_ours(lambda p: p.grad)
        self.optimizer.zero_grad(set_to_none=True)
        return {'loss': np.array(loss.item(), np.float32), **arrays}

    def parameters(self) -> dict[str, np.ndarray]:
        """All parameters as they are now."""
        return self.twin.as_ours(lambda p: p)

    def train(self, steps: int) -> float:
        """Seconds that some optimizer steps take."""
        self.twin.train()
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group['lr'] = self.job.learning_rates[self.step % len(self.job.learning_rates)]
            self._backward(self.step)
            if self.job.config.train.grad_clip:
                nn.utils.clip_grad_norm_(self.twin.parameters(), self.job.config.train.grad_clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
        self._wait()
        return time.perf_counter() - began

    @torch.inference_mode()
    def generate(self, batch_size: int, tokens: int, texts: int) -> float:
        """Seconds to sample texts, one after the other, without a cache, as nanoGPT does."""
        self.twin.eval()
        self._wait()
        began = time.perf_counter()
        for _ in range(texts):
            context_BT = torch.zeros((batch_size, 1), dtype=torch.long, device=self.device)
            for _ in range(tokens):
                cropped_BT = context_BT[:, -self.job.config.model.block_size :]
                with self.autocast:
                    logits_BV = self.twin(cropped_BT)
                probs_BV = F.softmax(logits_BV.float(), dim=-1)
                next_B1 = torch.multinomial(probs_BV, num_samples=1)
                context_BT = torch.cat([context_BT, next_B1], dim=1)
        self._wait()
        return time.perf_counter() - began

    @torch.inference_mode()
    def generate_cached(self, batch_size: int, tokens: int, texts: int) -> float:
        """As `generate`, by Hugging Face's GPT-2, which has a cache."""
        if self.cached is None:
            self.cached = as_huggingface(self.twin)
            self.cached.to(self.device, dtype=self.dtype).eval()
        prompt_BT = torch.zeros((batch_size, 1), dtype=torch.long, device=self.device)
        self._wait()
        began = time.perf_counter()
        for _ in range(texts):
            self.cached.generate(
                prompt_BT,
                attention_mask=torch.ones_like(prompt_BT),
                do_sample=True,
                top_k=0,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=0,
            )
        self._wait()
        return time.perf_counter() - began

    def about(self) -> dict:
        """Versions, devices and memory."""
        about = {'version': torch.__version__, 'threads': torch.get_num_threads()}
        if self.device == 'cuda':
            about['peak_bytes'] = torch.cuda.max_memory_allocated()
        return about | {'resident_bytes': machine.resident_bytes()}

    def _backward(self, step: int) -> torch.Tensor:
        batch = self.job.batch(self.tokens, step)
        inputs_BT, targets_BT = (self._put(batch[name]) for name in ('inputs', 'targets'))
        with self.autocast:
            loss = self.model(inputs_BT, targets_BT)
        loss.backward()
        return loss

    def _put(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).long()
        if self.device == 'cuda':
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()


def as_huggingface(twin: Twin) -> Any:
    """The same model and weights as transformers' GPT-2; biases that we lack are zero."""
    import transformers

    config = twin.config
    names = {'gelu': 'gelu_new', 'gelu_exact': 'gelu', 'relu': 'relu'}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=twin.embed.num_embeddings,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_inner=config.n_hidden or None,
            activation_function=names[config.activation],
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    state = {'wte.weight': twin.embed.weight, 'wpe.weight': twin.embed_pos.weight}
    state |= _with_bias('ln_f', twin.norm_final)
    for i, block in enumerate(twin.blocks):
        for name, module in (
            ('ln_1', block.norm_attn),
            ('ln_2', block.norm_mlp),
            ('attn.c_attn', block.qkv),
            ('attn.c_proj', block.out),
            ('mlp.c_fc', block.up),
            ('mlp.c_proj', block.down),
        ):
            state |= _with_bias(f'h.{i}.{name}', module)
    model.transformer.load_state_dict(state)
    return model


def _with_bias(name: str, module: Any) -> dict[str, torch.Tensor]:
    weight, bias = module.weight, module.bias
    if bias is None:
        bias = torch.zeros(len(weight))
    return {f'{name}.weight': weight.T if weight.dim() == 2 else weight, f'{name}.bias': bias}


if __name__ == '__main__':
    worker.serve(TorchSubject)
