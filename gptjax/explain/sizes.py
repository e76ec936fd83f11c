"""How many parameters each part of a model has, and how much it computes for a token."""

import dataclasses

import jax

from gptjax.config import ModelConfig
from gptjax.models.linear import is_multiplied


@dataclasses.dataclass(frozen=True)
class Size:
    """A part of the model, of all layers together."""

    name: str
    parameters: int
    flops: int  # of the forward pass, for one token


def sizes(params: dict, config: ModelConfig, n_tokens: int) -> list[Size]:
    """A row for each part, for the last token of `n_tokens`, and their sum."""
    parameters: dict[str, int] = {}
    flops: dict[str, int] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path]
        name = '/'.join(['blocks', *names[1:3]] if names[0].startswith('block_') else names[:1])
        parameters[name] = parameters.get(name, 0) + x.size
        head = name == 'embed' and config.tied_head
        works = is_multiplied(path) and (name != 'embed' or head)
        flops[name] = flops.get(name, 0) + 2 * x.size * works
    if any(name.startswith('blocks/') for name in parameters):
        name = f'attention over {n_tokens} tokens'
        parameters[name], flops[name] = 0, 4 * config.n_layer * n_tokens * config.n_embd
    rows = [Size(name, parameters[name], flops[name]) for name in parameters]
    return [*rows, Size('all', sum(parameters.values()), sum(flops.values()))]
