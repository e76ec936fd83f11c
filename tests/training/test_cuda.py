"""As far as a CPU can tell, nothing fails for want of a GPU: train steps are lowered for CUDA."""

import re

import jax
import jax._src.cudnn.fused_attention_stablehlo as cudnn
import pytest

import gptjax
from gptjax import tasks
from gptjax.config import MeshConfig
from gptjax.models import attention
from gptjax.parallel.mesh import Layout
from gptjax.training.loop import abstract_state
from tests.conftest import replace


def lowered(config, verse_file):
    """The program of a train step for a GPU, as text; nothing is compiled or computed."""
    data = {'path': str(verse_file), 'tokenizer': 'byte'}
    config = replace(config, data=data, train={'batch_size': 4}, model={'dtype': 'bfloat16'})
    task = tasks.create(config, print)
    state = abstract_state(task, Layout(MeshConfig(data=1), 4))
    traced = jax.jit(task.train_step, donate_argnums=0).trace(state, task.train_batch(0))
    return traced.lower(lowering_platforms=('cuda',)).as_text()


@pytest.mark.parametrize('recipe', ['gpt2:124m', 'char:baby', 'char:small', 'char_nanogpt:gpu'])
def test_train_steps_of_recipes_can_be_lowered(recipe, verse_file):
    config = replace(gptjax.recipe(recipe), model={'block_size': 64})
    text = lowered(config, verse_file)
    products = re.findall(
        r'stablehlo\.dot_general.*: \(tensor<[\dx]*x(\w+)>, tensor<[\dx]*x(\w+)>', text
    )
    assert products
    assert not any(a != b for a, b in products)  # No product of two types, which is a slow one.


def test_flash_attention_forward_and_backward_can_be_lowered(verse_file, monkeypatch):
    """Its shapes and types are those that cuDNN accepts: JAX checks them when it lowers."""
    monkeypatch.setattr(attention, 'uses_cudnn', lambda config, train: True)
    monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91000)
    monkeypatch.setattr(cudnn, 'check_compute_capability', lambda capability: capability != '10.0')
    config = replace(gptjax.recipe('gpt2:124m'), model={'block_size': 128, 'n_layer': 2})
    calls = re.findall(r'custom_call @__cudnn\$(\w+)', lowered(config, verse_file))
    assert [calls.count(name) for name in ('fmhaSoftmax', 'fmhaSoftmaxBackward')] == [2, 2]
