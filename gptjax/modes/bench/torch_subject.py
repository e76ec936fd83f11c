"""PyTorch's side of a benchmark, as a process of its own: see `gptjax.modes.bench.worker`.

PyTorch and JAX so share neither threads nor GPU memory.
"""

import time

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
        """Builds the model with the job's weights, in the job's mode."""
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
        self.model = torch.compile(self.twin) if job.mode.startswith('compile') else self.twin
        rounds = config.model.dtype == 'bfloat16' or job.mode.endswith('bfloat16')
        self.autocast = torch.autocast(self.device, torch.bfloat16, enabled=rounds)
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
    def generate(self, batch_size: int, tokens: int, texts: int, greedy: bool) -> float:
        """Seconds to continue the prompt, without a cache, as nanoGPT does."""
        prompt_1T = torch.from_numpy(self.job.prompt()).long()[None].to(self.device)
        self.twin.eval()
        self._wait()
        began = time.perf_counter()
        for _ in range(texts):
            context_BT = prompt_1T.repeat(batch_size, 1)
            for _ in range(tokens):
                cropped_BT = context_BT[:, -self.job.config.model.block_size :]
                with self.autocast:
                    logits_BV = self.twin(cropped_BT)
                if greedy:
                    next_B1 = logits_BV.argmax(-1, keepdim=True)
                else:
                    next_B1 = torch.multinomial(F.softmax(logits_BV.float(), dim=-1), num_samples=1)
                context_BT = torch.cat([context_BT, next_B1], dim=1)
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


if __name__ == '__main__':
    worker.serve(TorchSubject)
