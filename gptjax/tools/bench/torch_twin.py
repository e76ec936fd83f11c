"""The same GPT in PyTorch, as fast as we can write it: what --mode=bench measures against.

The only file that imports torch. It is run as a process of its own, so that PyTorch and JAX share
neither threads nor GPU memory.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, everybody's name for it
from torch import nn

from gptjax.config import ModelConfig, TrainConfig
from gptjax.tools.bench import worker

ACTIVATIONS = {
    'gelu': lambda x: F.gelu(x, approximate='tanh'),
    'gelu_exact': F.gelu,
    'relu': F.relu,
    'relu2': lambda x: F.relu(x).square(),
}


def _norm(config: ModelConfig) -> nn.Module:
    if config.norm == 'rms':
        return nn.RMSNorm(config.n_embd, eps=1e-6)
    return nn.LayerNorm(config.n_embd, eps=1e-5, bias=config.bias)


def _rotate(x_BNTH, cos_TH, sin_TH):
    a, b = x_BNTH.float().chunk(2, dim=-1)
    rotated = torch.cat([a * cos_TH - b * sin_TH, b * cos_TH + a * sin_TH], dim=-1)
    return rotated.type_as(x_BNTH)


class Block(nn.Module):
    """As `gptjax.models.layers.Block`, with one projection for queries, keys and values."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        d, hidden = config.n_embd, config.n_hidden or 4 * config.n_embd
        self.qkv = nn.Linear(d, 3 * d, bias=config.bias)
        self.out = nn.Linear(d, d, bias=config.bias)
        self.up = nn.Linear(d, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, d, bias=config.bias)
        self.norm_attn, self.norm_mlp = _norm(config), _norm(config)

    def attention(self, x_BTD, cos_TH, sin_TH):
        config = self.config
        b, t, d = x_BTD.shape
        q, k, v = (
            y.view(b, t, config.n_head, -1).transpose(1, 2) for y in self.qkv(x_BTD).split(d, -1)
        )
        if config.qk_norm:
            q, k = (F.rms_norm(y, y.shape[-1:], eps=1e-6) for y in (q, k))
        if config.position == 'rotary':
            q, k = _rotate(q, cos_TH, sin_TH), _rotate(k, cos_TH, sin_TH)
        dropout = config.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, d))

    def feed_forward(self, x_BTD):
        return self.down(ACTIVATIONS[self.config.activation](self.up(x_BTD)))

    def add(self, x_BTD, branch, norm):
        def drop(y):
            return F.dropout(y, self.config.dropout, self.training)

        match self.config.norm_place:
            case 'before':
                return x_BTD + drop(branch(norm(x_BTD)))
            case 'after':
                return norm(x_BTD + drop(branch(x_BTD)))
            case 'branch':
                return x_BTD + norm(drop(branch(x_BTD)))

    def forward(self, x_BTD, cos_TH, sin_TH):
        x_BTD = self.add(x_BTD, lambda y: self.attention(y, cos_TH, sin_TH), self.norm_attn)
        return self.add(x_BTD, self.feed_forward, self.norm_mlp)


class Twin(nn.Module):
    """As `gptjax.models.decoder.Decoder`, for training: no cache."""

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(vocab_size, config.n_embd)
        if config.position == 'learned':
            self.embed_pos = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        if config.norm_place != 'after':
            self.norm_final = _norm(config)
        self.head = nn.Linear(config.n_embd, vocab_size, bias=config.head_bias)
        if config.tied_head:
            self.head.weight = self.embed.weight
        half = config.n_embd // config.n_head // 2
        time_T = torch.arange(config.block_size)
        angle_TH = time_T[:, None] * 10_000.0 ** (-torch.arange(half) / max(half, 1))
        self.register_buffer('cos', angle_TH.cos(), persistent=False)
        self.register_buffer('sin', angle_TH.sin(), persistent=False)
        width = config.n_embd
        angle_TD = time_T[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
        waves = torch.stack([angle_TD.sin(), angle_TD.cos()], -1).reshape(config.block_size, -1)
        self.register_buffer('waves', waves, persistent=False)

    def forward(self, tokens_BT, targets_BT=None):
        """The mean loss with targets, the last position's logits without."""
        t = tokens_BT.shape[1]
        x_BTD = self.embed(tokens_BT)
        if self.config.scale_embedding:
            x_BTD = x_BTD * self.config.n_embd**0.5
        if self.config.position == 'learned':
            x_BTD = x_BTD + self.embed_pos.weight[:t]
        elif self.config.position == 'sinusoidal':
            x_BTD = x_BTD + self.waves[:t]
        x_BTD = F.dropout(x_BTD, self.config.dropout, self.training)
        for block in self.blocks:
            x_BTD = block(x_BTD, self.cos[:t], self.sin[:t])
        if self.config.norm_place != 'after':
            x_BTD = self.norm_final(x_BTD)
        if targets_BT is None:
            return self.head(x_BTD[:, -1])
        logits = self.head(x_BTD).float()
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())

    def pairs(self):
        """For each array of ours: its name, their parameter, the rows, whether transposed."""
        everything = slice(None)
        yield 'embed.embedding', self.embed.weight, everything, False
        if self.config.position == 'learned':
            yield 'embed_pos.embedding', self.embed_pos.weight, everything, False
        modules = {}
        d = self.config.n_embd
        for i, block in enumerate(self.blocks):
            for j, name in enumerate(('query', 'key', 'value')):
                modules[f'block_{i}.attn.{name}'] = block.qkv, slice(j * d, (j + 1) * d)
            modules[f'block_{i}.attn.out'] = block.out, everything
            modules[f'block_{i}.mlp.up'] = block.up, everything
            modules[f'block_{i}.mlp.down'] = block.down, everything
            modules[f'block_{i}.norm_attn'] = block.norm_attn, everything
            modules[f'block_{i}.norm_mlp'] = block.norm_mlp, everything
        if self.config.norm_place != 'after':
            modules['norm_final'] = self.norm_final, everything
        if not self.config.tied_head:
            modules['head'] = self.head, everything
        for name, (module, rows) in modules.items():
            is_linear = isinstance(module, nn.Linear)
            yield f'{name}.{"kernel" if is_linear else "scale"}', module.weight, rows, is_linear
            if getattr(module, 'bias', None) is not None:  # RMSNorm has no such attribute.
                yield f'{name}.bias', module.bias, rows, False

    @torch.no_grad()
    def load_ours(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes over our parameters.

        Raises:
          ValueError: one side has an array that the other lacks.
        """
        names = {name for name, *_ in self.pairs()}
        if names != arrays.keys():
            raise ValueError(f'the two models differ in {sorted(names ^ arrays.keys())}')
        for name, parameter, rows, transposed in self.pairs():
            theirs, ours = parameter[rows], torch.from_numpy(arrays[name])
            shape = theirs.shape[::-1] if transposed else theirs.shape
            theirs.copy_(ours.reshape(shape).T if transposed else ours.reshape(shape))

    def as_ours(self, of) -> dict[str, np.ndarray]:
        """Our view of some tensor of each parameter: `lambda p: p.grad`, for example."""
        views = {}
        for name, parameter, rows, transposed in self.pairs():
            theirs = of(parameter).detach()[rows].float().cpu()
            views[name] = (theirs.T if transposed else theirs).numpy()
        return views


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
    """PyTorch's side of a benchmark: see `gptjax.tools.bench.worker`."""

    def __init__(self, job: worker.Job):
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
        self.cached = None  # Hugging Face's model, made when it is asked for
        self.step = 0

    def gradients(self) -> dict[str, np.ndarray]:
        """Loss and every gradient of the first batch; nothing is updated."""
        self.twin.train()
        loss = self._backward(0)
        arrays = self.twin.as_ours(lambda p: p.grad)
        self.optimizer.zero_grad(set_to_none=True)
        return {'loss': np.float32(loss.item()), **arrays}

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
    def generate(self, batch_size: int, tokens: int) -> float:
        """Seconds to sample tokens without a cache, as nanoGPT does."""
        self.twin.eval()
        context_BT = torch.zeros((batch_size, 1), dtype=torch.long, device=self.device)
        self._wait()
        began = time.perf_counter()
        for _ in range(tokens):
            cropped_BT = context_BT[:, -self.job.config.model.block_size :]
            with self.autocast:
                logits_BV = self.twin(cropped_BT)
            probs_BV = F.softmax(logits_BV.float(), dim=-1)
            next_B1 = torch.multinomial(probs_BV, num_samples=1)
            context_BT = torch.cat([context_BT, next_B1], dim=1)
        self._wait()
        return time.perf_counter() - began

    def generate_cached(self, batch_size: int, tokens: int) -> float | None:
        """Seconds that Hugging Face needs, which has a cache; None if it has no such model."""
        if self.cached is None:
            self.cached = _huggingface(self.twin)
            self.cached.to(self.device, dtype=self.dtype).eval()
        prompt_BT = torch.zeros((batch_size, 1), dtype=torch.long, device=self.device)
        self._wait()
        began = time.perf_counter()
        with torch.inference_mode():
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
        return about | {'resident_bytes': worker.resident_bytes()}

    def _backward(self, step: int):
        batch = self.job.batch(self.tokens, step)
        inputs_BT, targets_BT = (self._put(batch[name]) for name in ('inputs', 'targets'))
        with self.autocast:
            loss = self.model(inputs_BT, targets_BT)
        loss.backward()
        return loss

    def _put(self, array: np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(array)).long()
        if self.device == 'cuda':
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()


def _huggingface(twin: Twin):
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


def _with_bias(name: str, module: nn.Module) -> dict[str, torch.Tensor]:
    weight, bias = module.weight, module.bias
    if bias is None:
        bias = torch.zeros(len(weight))
    return {f'{name}.weight': weight.T if weight.dim() == 2 else weight, f'{name}.bias': bias}


if __name__ == '__main__':
    worker.serve(TorchSubject)
