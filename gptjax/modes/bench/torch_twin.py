"""The same GPT in PyTorch, as fast as we can write it: what --mode=bench measures against.

Only this file and `torch_subject.py` import torch.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, everybody's name for it
from torch import Tensor, nn

from gptjax.config import ModelConfig

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


def _rotate(x_BNTH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    a, b = x_BNTH.float().chunk(2, dim=-1)
    rotated = torch.cat([a * cos_TH - b * sin_TH, b * cos_TH + a * sin_TH], dim=-1)
    return rotated.type_as(x_BNTH)


class Block(nn.Module):
    """As `gptjax.models.block.Block`, with one projection for queries, keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d, hidden = config.n_embd, config.n_hidden or 4 * config.n_embd
        self.qkv = nn.Linear(d, 3 * d, bias=config.bias)
        self.out = nn.Linear(d, d, bias=config.bias)
        self.up = nn.Linear(d, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, d, bias=config.bias)
        self.norm_attn, self.norm_mlp = _norm(config), _norm(config)

    def attention(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
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

    def feed_forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(ACTIVATIONS[self.config.activation](self.up(x_BTD)))

    def add(self, x_BTD: Tensor, branch: Callable, norm: nn.Module) -> Tensor:
        def drop(y: Tensor) -> Tensor:
            return F.dropout(y, self.config.dropout, self.training)

        match self.config.norm_place:
            case 'before':
                return x_BTD + drop(branch(norm(x_BTD)))
            case 'after':
                return norm(x_BTD + drop(branch(x_BTD)))
        return x_BTD + norm(drop(branch(x_BTD)))

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        x_BTD = self.add(x_BTD, lambda y: self.attention(y, cos_TH, sin_TH), self.norm_attn)
        return self.add(x_BTD, self.feed_forward, self.norm_mlp)


class Ngrams(nn.Module):
    """As `gptjax.models.ngram` and its tables: what the last tokens together add."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rows = config.ngram_rows
        self.tables = nn.ModuleList(
            nn.Embedding(config.ngram_rows, config.n_embd) for _ in range(2, config.ngram + 1)
        )

    def forward(self, tokens_BT: Tensor) -> Tensor:
        total: Any = 0
        most = len(self.tables)
        before = F.pad(tokens_BT, (most, 0), value=-1).unfold(1, tokens_BT.shape[1], 1)
        for length, table in enumerate(self.tables, 2):
            hash_BT = torch.zeros_like(tokens_BT)
            for token_BT in before[:, most + 1 - length :].unbind(1):
                hash_BT = ((hash_BT + token_BT + 1) * 0x9E3779B1) & 0xFFFFFFFF
                hash_BT = hash_BT ^ (hash_BT >> 15)
            total = total + table(hash_BT % self.rows)
        return total


class Twin(nn.Module):
    """As `gptjax.models.decoder.Decoder`, for training: no cache."""

    cos: Tensor
    sin: Tensor
    waves: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        padded = -(-vocab_size // config.vocab_multiple) * config.vocab_multiple
        self.embed = nn.Embedding(padded, config.n_embd)
        if config.ngram > 1:
            self.ngrams = Ngrams(config)
        if config.position == 'learned':
            self.embed_pos = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        if config.norm_place != 'after':
            self.norm_final = _norm(config)
        self.head = nn.Linear(config.n_embd, padded, bias=config.head_bias)
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

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """The mean loss with targets, the last position's logits without."""
        t = tokens_BT.shape[1]
        x_BTD = self.embed(tokens_BT)
        if self.config.ngram > 1:
            x_BTD = x_BTD + self.ngrams(tokens_BT)
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
            return self.head(x_BTD[:, -1])[:, : self.vocab_size]
        logits = self.head(x_BTD)[..., : self.vocab_size].float()
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())

    def pairs(self) -> Iterator[tuple[str, Any, slice, bool]]:
        """For each array of ours: its name, their parameter, the rows, whether transposed."""
        everything = slice(None)
        yield 'embed.embedding', self.embed.weight, everything, False
        for i, table in enumerate(self.ngrams.tables if self.config.ngram > 1 else (), 2):
            yield f'embed_ngrams.last_{i}.embedding', table.weight, everything, False
        if self.config.position == 'learned':
            yield 'embed_pos.embedding', self.embed_pos.weight, everything, False
        modules: dict[str, tuple[nn.Module, slice]] = {}
        d, blocks = self.config.n_embd, cast(list[Block], self.blocks)
        for i, block in enumerate(blocks):
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
        module: Any  # A module's attributes have no types.
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

    def as_ours(self, of: Callable[[Any], Any]) -> dict[str, np.ndarray]:
        """Our view of some tensor of each parameter: `lambda p: p.grad`, for example."""
        views = {}
        for name, parameter, rows, transposed in self.pairs():
            theirs = of(parameter).detach()[rows].float().cpu()
            views[name] = (theirs.T if transposed else theirs).numpy()
        return views
