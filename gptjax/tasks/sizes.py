"""How large models are, in numbers and in words; for all tasks."""

from typing import Any

import jax

from gptjax.config import ModelConfig
from gptjax.models.attention import uses_cudnn, why_not_cudnn
from gptjax.training.learner import Learner
from gptjax.training.steps import run_key


def abstract_params(task: Learner) -> dict:
    """The shapes and types of a task's parameters, without computing anything."""
    return jax.eval_shape(task.init_state, run_key(0)).params


def count(tree: Any) -> int:
    """Numbers in all arrays of a tree."""
    return sum(x.size for x in jax.tree.leaves(tree))


def in_words(n_params: int) -> str:
    """As '10.7M parameters'."""
    return f'{n_params / 1e6:.1f}M parameters' if n_params >= 1e5 else f'{n_params:,} parameters'


def attention_in_words(config: ModelConfig) -> str:
    """Who computes attention, where there is a choice; empty where there is none.

    Raises:
      UserError: the configuration demands what is impossible.
    """
    if uses_cudnn(config, train=True):
        return ", cuDNN's flash attention"
    if jax.default_backend() == 'gpu':
        why = 'model.attention=xla' if config.attention == 'xla' else why_not_cudnn(config, True)
        return f", XLA's attention ({why})"
    return ''
