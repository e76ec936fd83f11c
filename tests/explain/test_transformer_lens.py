"""The logit lens and the parts of logits agree with TransformerLens, on an exported GPT-2."""

import numpy as np
import pytest

from gptjax.config import Config, ModelConfig
from gptjax.explain.lens import read_layers
from gptjax.explain.trace import contributions, trace
from gptjax.modes import export_hf
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text.characters import ByteTokenizer
from gptjax.text.token_files import Corpus
from gptjax.training.steps import run_key

pytestmark = pytest.mark.lens

GPT2 = ModelConfig(
    n_layer=3,
    n_head=4,
    n_embd=32,
    block_size=24,
    position='learned',
    norm='layer',
    activation='gelu',
    qk_norm=False,
    bias=True,
    tied_head=True,
    residual_init='plain',
)


@pytest.fixture(scope='module')
def ours():
    """(model, its variables, a trace of some tokens), and the task for the export."""
    import jax

    task = LanguageModel(Config(model=GPT2), Corpus(ByteTokenizer(), None, None, 'none'))
    params = task.init_state(run_key(0)).params
    key = jax.random.key(1)
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), params)
    tokens_T = np.random.default_rng(0).integers(256, size=20).astype(np.int32)
    return task, params, trace(task.model, params, tokens_T)


@pytest.fixture(scope='module')
def theirs(ours, tmp_path_factory):
    """(their model, their cache) of the same tokens, by way of Hugging Face's files."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    task, params, found = ours
    folder = tmp_path_factory.mktemp('exported') / 'gpt2'
    export_hf.write(task, params['params'], folder)
    model = TransformerBridge.boot_transformers(str(folder), device='cpu')
    model.enable_compatibility_mode(
        disable_warnings=True,
        fold_ln=True,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    tokens_BT = torch.tensor(found.tokens_T[None].astype(np.int64))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens_BT)
    return model, logits[0].numpy(), cache


def test_logits_are_the_same(ours, theirs):
    np.testing.assert_allclose(ours[2].logits_TV, theirs[1], atol=1e-4)


def test_each_layer_predicts_the_same(ours, theirs):
    """Their lens computes the scale of the final norm anew for each layer, since 2026."""
    task, params, found = ours
    model, _, cache = theirs
    stack = cache.accumulated_resid(layer=-1, apply_ln=True)
    logits_LTV = (stack[:, 0] @ model.W_U + model.b_U).detach().numpy()
    readings, _ = read_layers(task.model, params, found)
    assert len(logits_LTV) == len(readings) == GPT2.n_layer + 1
    for logits_TV, reading in zip(logits_LTV, readings, strict=True):
        probs_TV = np.exp(logits_TV - logits_TV.max(-1, keepdims=True))
        probs_TV /= probs_TV.sum(-1, keepdims=True)
        in_theirs = np.take_along_axis(probs_TV, reading.ids_TK, -1)
        np.testing.assert_allclose(in_theirs, reading.probs_TK, rtol=1e-4)


def test_each_head_adds_the_same_to_a_logit(ours, theirs):
    import torch

    task, params, found = ours
    _, _, cache = theirs
    ids_T = np.append(found.tokens_T[1:], 0)
    names = [i for i, name in enumerate(found.part_names) if '/head_' in name]
    added_PT1 = contributions(task.model, params, found.parts_PTD, ids_T[:, None])[names]
    stack = cache.stack_head_results(layer=-1)
    theirs_PT = cache.logit_attrs(stack, tokens=torch.tensor(ids_T).long(), batch_slice=0)
    assert len(names) == GPT2.n_layer * GPT2.n_head
    np.testing.assert_allclose(
        added_PT1[..., 0], theirs_PT.detach().numpy().reshape(len(names), -1), atol=1e-4
    )
