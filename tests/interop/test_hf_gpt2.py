"""GPT-2 in Hugging Face's form: the same numbers on both sides, and every mismatch named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ModelConfig, SampleConfig
from gptjax.errors import UserError
from gptjax.generation.engine import Engine, generate
from gptjax.interop import hf_gpt2
from gptjax.models.decoder import Decoder
from gptjax.training.checkpoint import flat_leaves
from tests.conftest import import_or_none

torch, transformers = import_or_none('torch'), import_or_none('transformers')

SHAPES = [
    {'vocab_size': 61, 'n_positions': 128, 'n_embd': 24, 'n_layer': 2, 'n_head': 3},
    {'vocab_size': 130, 'n_positions': 17, 'n_embd': 10, 'n_layer': 3, 'n_head': 5, 'n_inner': 7},
    {'n_layer': 1, 'n_head': 1, 'n_embd': 6, 'vocab_size': 5, 'n_positions': 9}
    | {'activation_function': 'gelu', 'tie_word_embeddings': False},
    {'n_layer': 2, 'n_head': 2, 'n_embd': 8, 'vocab_size': 33, 'n_positions': 64}
    | {'activation_function': 'relu'},
]


def both(shape):
    """Their random model; our model with its parameters."""
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # Biases are zeros in a fresh model.
            parameter += 0.1 * torch.randn_like(parameter)
    arrays = {name: array.numpy() for name, array in theirs.state_dict().items()}
    config = ModelConfig(**hf_gpt2.config_to_ours(theirs.config.to_dict()))
    model = Decoder(config, shape['vocab_size'])
    return theirs, arrays, model, load(arrays, model)


def load(arrays, model):
    like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))['params']
    shapes = {name: leaf.shape for name, leaf in flat_leaves(like).items()}
    ours = hf_gpt2.to_ours(arrays, model.config, shapes)
    leaves = [ours[name] for name in shapes]
    return {'params': jax.tree.unflatten(jax.tree.structure(like), leaves)}


@pytest.fixture(scope='module')
def first():
    return both(SHAPES[0])


@pytest.mark.torch
@pytest.mark.parametrize('i', range(len(SHAPES)))
def test_logits_equal_theirs(i, first):
    theirs, _, model, params = first if i == 0 else both(SHAPES[i])
    length = model.config.block_size
    tokens_BT = np.random.default_rng(0).integers(0, model.vocab_size, (3, length))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens_BT)).logits.numpy()
    found = jax.jit(lambda params, tokens_BT: model.apply(params, tokens_BT)[0])(params, tokens_BT)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.torch
def test_greedy_generation_is_theirs_token_for_token(first):
    theirs, _, model, params = first
    prompt = [3, 1, 4, 1, 5]
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=100, do_sample=False, pad_token_id=0, eos_token_id=-1
    )
    config = SampleConfig(max_new_tokens=100, temperature=0.0, chunk=25)
    (found,) = generate(Engine(model, params, rows=1), [np.array(prompt)], config)
    assert found == expected[0, len(prompt) :].tolist()


@pytest.mark.torch
@pytest.mark.parametrize('i', range(len(SHAPES)))
def test_export_undoes_import_bit_by_bit(i, first):
    _, arrays, model, params = first if i == 0 else both(SHAPES[i])
    back = hf_gpt2.to_theirs(flat_leaves(params['params']), model.config, model.vocab_size)
    if model.config.tied_head:
        del arrays['lm_head.weight']
    assert back.keys() == arrays.keys()
    for name, array in back.items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.torch
def test_models_without_biases_and_with_padding_are_expressed_too():
    config = ModelConfig(
        block_size=8, n_layer=1, n_head=2, n_embd=8, position='learned', norm='layer',
        activation='gelu', qk_norm=False, bias=False, tied_head=True, vocab_multiple=16,
        residual_init='plain',
    )  # fmt: skip
    model = Decoder(config, 11)
    tokens_BT = jnp.arange(8)[None]
    params = model.init(jax.random.key(0), tokens_BT)
    arrays = hf_gpt2.to_theirs(flat_leaves(params['params']), config, 11)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**hf_gpt2.config_to_theirs(config, 11, None))
    ).eval()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert (missing, unexpected) == (['lm_head.weight'], [])
    with torch.no_grad():
        expected = theirs(torch.arange(8)[None]).logits.numpy()
    found = model.apply(params, tokens_BT)[0][..., :11]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.torch
def test_every_mismatch_is_listed(first):
    _, arrays, model, _ = first
    arrays = dict(arrays)
    arrays['transformer.h.7.ln_1.bias'] = arrays.pop('transformer.h.1.ln_1.bias')
    arrays['transformer.wpe.weight'] = arrays['transformer.wpe.weight'][:5]
    arrays['transformer.h.0.attn.bias'] = np.ones((1, 1, 8, 8))  # A mask: no parameter.
    with pytest.raises(UserError) as caught:
        load(arrays, model)
    assert str(caught.value) == (
        'the weights do not fit their config.json: h.1.ln_1.bias is missing; h.7.ln_1.bias is not '
        'known; wpe.weight is [5, 24] and not [128, 24]; get all files of one model again'
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model_type': 'llama'}, r"model_type='llama', and only gpt2 can be imported"),
        ({'scale_attn_by_inverse_layer_idx': True}, 'layer_idx=True, and our decoder has False'),
        ({'layer_norm_epsilon': 1e-6}, r'layer_norm_epsilon=1e-06, and our decoder has 1e-05'),
        ({'activation_function': 'silu'}, r"'silu', which our decoder lacks; it has gelu_new, gel"),
        ({'n_layer': None}, "config.json lacks 'n_layer'"),
    ],
)
def test_what_is_not_our_decoder_is_refused(change, message):
    theirs = {'model_type': 'gpt2'} | SHAPES[0] | change
    theirs = {name: value for name, value in theirs.items() if value is not None}
    with pytest.raises(UserError, match=message):
        hf_gpt2.config_to_ours(theirs)


def test_what_gpt2_lacks_is_named():
    with pytest.raises(
        UserError, match=r'model.position=rotary \(GPT-2 has learned\), model.norm='
    ):
        hf_gpt2.config_to_theirs(ModelConfig(), 11, None)
