"""The encoder and decoder: cache, padding, causality, what can be looked at."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ModelConfig, TranslationConfig
from gptjax.errors import UserError
from gptjax.generation.rules import RowRules, Rules
from gptjax.models.attention import Attention
from gptjax.models.cache import Cache
from gptjax.tasks.translation.decode import Decoding, translate
from gptjax.tasks.translation.seq2seq import Seq2Seq

V = 11
BASE = ModelConfig(block_size=12, n_layer=2, n_head=2, n_embd=16, residual_init='plain')
VARIANTS = {
    'copying': ({'tied_head': True}, {'copy': True}),
    'separate': ({'position': 'learned', 'bias': True, 'ngram': 2}, {'shared_vocab': False}),
    'textbook': (
        {'position': 'sinusoidal', 'norm': 'layer', 'norm_place': 'after', 'qk_norm': False},
        {'n_encoder_layer': 1},
    ),
    'padded': ({'vocab_multiple': 8}, {'copy': True}),
}


@functools.cache
def make(variant: str):
    """A model with random parameters that matter, three sources with padding, and targets."""
    model_knobs, knobs = VARIANTS[variant]
    config = dataclasses.replace(BASE, **model_knobs)
    sizes = (V, V) if knobs.get('shared_vocab', True) else (V + 2, V)
    model = Seq2Seq(config, TranslationConfig(**knobs), *sizes)
    source_BS = jax.random.randint(jax.random.key(1), (3, 9), 0, sizes[0])
    tokens_BT = jax.random.randint(jax.random.key(2), (3, 8), 0, V)
    lengths_B = jnp.array([9, 4, 1])
    params = jax.jit(model.init)(jax.random.key(0), source_BS, lengths_B, tokens_BT)
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)
    return model, params, (source_BS, lengths_B, tokens_BT), jax.jit(model.apply)


@pytest.mark.parametrize('variant', VARIANTS)
def test_cached_decoding_equals_the_full_pass(variant):
    model, params, (source_BS, lengths_B, tokens_BT), apply = make(variant)
    full = apply(params, source_BS, lengths_B, tokens_BT)
    memory = model.apply(params, source_BS, lengths_B, method='encode')
    step = jax.jit(functools.partial(model.apply, method='decode'))
    cache, logits = Cache.empty(model.config, 3, 10), []
    for t in range(8):
        new, cache = step(params, tokens_BT[:, t : t + 1], jnp.full((3, 1), t), cache, memory)
        logits.append(new)
    np.testing.assert_allclose(jnp.concatenate(logits, 1)[..., :V], full[..., :V], atol=1e-5)


@pytest.mark.parametrize('variant', VARIANTS)
def test_padding_and_batch_mates_change_no_logit(variant):
    _, params, (source_BS, lengths_B, tokens_BT), apply = make(variant)
    before = apply(params, source_BS, lengths_B, tokens_BT)
    padding_BS = jnp.arange(9) >= lengths_B[:, None]
    other = apply(
        params, jnp.where(padding_BS, (source_BS + 1) % V, source_BS), lengths_B, tokens_BT
    )
    assert (other == before).all()  # The same bits: what is masked does not exist.
    mates = apply(params, source_BS.at[1:].set(3), lengths_B.at[1:].set(7), tokens_BT)
    assert (mates[0] == before[0]).all()
    short = apply(params, source_BS[1:2, :4], lengths_B[1:2], tokens_BT[1:2])
    np.testing.assert_allclose(short[0, :, :V], before[1, :, :V], atol=1e-5)


@pytest.mark.parametrize('variant', ['copying', 'separate'])
def test_every_source_token_and_no_later_target_matters(variant):
    _, params, (source_BS, lengths_B, tokens_BT), apply = make(variant)
    before = apply(params, source_BS, lengths_B, tokens_BT)
    for t in (1, 5, 7):
        changed = apply(params, source_BS, lengths_B, tokens_BT.at[:, t:].set(0))
        assert (changed[:, :t] == before[:, :t]).all()
    for s in (0, 3, 8):
        changed = apply(params, source_BS.at[0, s].add(1), lengths_B, tokens_BT)
        assert (changed[0, :, :V] != before[0, :, :V]).any(axis=-1).all()


def test_loss_at_initialisation_is_that_of_guessing():
    model, _, inputs, _ = make('separate')
    config = dataclasses.replace(model.config, n_embd=64)
    model = Seq2Seq(config, model.translation, V + 2, V)
    logits_BTV = model.apply(model.init(jax.random.key(0), *inputs), *inputs)
    assert abs(-jax.nn.log_softmax(logits_BTV)[..., 0].mean() - math.log(V)) < 0.1


def test_attention_maps_of_source_against_target_can_be_looked_at():
    model, params, inputs, _ = make('copying')
    _, looked = model.apply(params, *inputs, mutable=['intermediates'])
    looked = looked['intermediates']
    (weights_BNTS,) = looked['decoder']['block_1']['cross_attn']['weights_BNTS']
    assert weights_BNTS.shape == (3, 2, 8, 9)
    np.testing.assert_allclose(weights_BNTS.sum(-1), 1, rtol=1e-5)
    assert (weights_BNTS[1, ..., 4:] == 0).all()  # Padding.
    (pointer_B1TS,) = looked['pointer_B1TS']
    assert pointer_B1TS.shape == (3, 1, 8, 9)


def test_cross_attention_is_the_same_function_with_other_keys():
    attention = Attention(BASE)
    x_BTD, other_BSD = jax.random.normal(jax.random.key(0), (2, 1, 6, 16))
    pos, mask = jnp.arange(6)[None], jnp.ones((1, 6, 6), bool)
    params = attention.init(jax.random.key(1), x_BTD, pos, mask)

    def run(memory_of):
        memory = attention.apply(params, memory_of, pos, method='keys_values')
        return attention.apply(params, x_BTD, pos, mask, memory=memory)[0]

    alone, _ = attention.apply(params, x_BTD, pos, mask)
    np.testing.assert_allclose(run(x_BTD), alone, atol=1e-6)
    assert (run(other_BSD) != run(x_BTD)).any()


def test_the_source_is_encoded_once(monkeypatch):
    model, params, (source_BS, lengths_B, _), _ = make('copying')
    calls, original = [], Attention.keys

    def keys(self, x_BSD, pos_BS):
        calls.append(x_BSD.shape[1])
        return original(self, x_BSD, pos_BS)

    monkeypatch.setattr(Attention, 'keys', keys)
    translate.clear_cache()
    translate(
        model,
        params,
        source_BS,
        lengths_B=lengths_B,
        rules=RowRules.of([Rules()]),
        samples=1,
        decoding=Decoding(0, 11, 4),
    )
    # Self- and cross-attention of each block and the pointer; in the loop, single tokens alone.
    assert calls.count(9) == 2 + 2 + 1
    assert set(calls) == {9, 1}


def test_parameter_names_are_public():
    """Checkpoints and sharding rules depend on them."""
    _, params, _, _ = make('copying')
    assert params['params'].keys() == {'encoder', 'decoder', 'pointer', 'gate'}
    assert params['params']['decoder']['block_0'].keys() == {
        *('norm_attn', 'attn', 'norm_cross', 'cross_attn', 'norm_mlp', 'mlp')
    }
    assert params['params']['encoder'].keys() == {'block_0', 'block_1', 'norm_final'}
    assert params['params']['pointer'].keys() == {'query', 'key'}
    separate = make('separate')[1]['params']
    assert separate['embed_source']['embedding'].shape == (V + 2, 16)


def test_copying_needs_a_shared_vocabulary():
    with pytest.raises(UserError, match=r'copy=True needs one vocabulary.*shared_vocab=True'):
        TranslationConfig(copy=True, shared_vocab=False)
