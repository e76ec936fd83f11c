"""The decoder's properties: causality, cache, initialisation, options."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ModelConfig
from gptjax.errors import UserError
from gptjax.models import attention
from gptjax.models.attention import rotate, uses_cudnn, why_not_cudnn
from gptjax.models.block import sinusoids
from gptjax.models.cache import NO_POSITION, Cache
from gptjax.models.decoder import Decoder

V = 11
BASE = ModelConfig(block_size=16, n_layer=2, n_head=2, n_embd=16, residual_init='plain')
VARIANTS = {
    'default': {},
    'gpt2': {
        'position': 'learned',
        'norm': 'layer',
        'activation': 'gelu',
        'qk_norm': False,
        'bias': True,
        'tied_head': True,
        'residual_init': 'scaled',
    },
    'textbook': {
        'position': 'none',
        'norm': 'layer',
        'norm_place': 'after',
        'activation': 'relu',
        'qk_norm': False,
        'head_bias': True,
        'scale_embedding': True,
    },
    'ngram': {'ngram': 3, 'ngram_rows': 37},
    'branch': {'position': 'sinusoidal', 'norm_place': 'branch', 'activation': 'gelu_exact'},
}


@functools.cache
def make(variant: str):
    """A model, random parameters of a size that matters, tokens and the jitted forward pass."""
    model = Decoder(dataclasses.replace(BASE, **VARIANTS[variant]), V)
    tokens_BT = jax.random.randint(jax.random.key(1), (3, 16), 0, V)
    params = jax.jit(model.init)(jax.random.key(0), tokens_BT)
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)
    return model, params, tokens_BT, jax.jit(model.apply)


@pytest.mark.parametrize('variant', VARIANTS)
def test_no_logit_depends_on_a_later_token(variant):
    _, params, tokens_BT, apply = make(variant)
    before, _ = apply(params, tokens_BT)
    for t in (1, 7, 15):
        changed, _ = apply(params, tokens_BT.at[:, t:].set((tokens_BT[:, t:] + 1) % V))
        assert (changed[:, :t] == before[:, :t]).all()
        assert (changed[:, t] != before[:, t]).any()


def test_gradients_from_later_inputs_are_exactly_zero():
    model, params, _, _ = make('default')
    x_BTD = jax.random.normal(jax.random.key(3), (1, 16, 16))
    # The embedding table is indexed with one token a position, so a row of it is one input.
    table = {**params['params'], 'embed': {'embedding': x_BTD[0]}}

    def logit_sum(rows, t):
        variables = {'params': {**table, 'embed': {'embedding': rows}}}
        wide = Decoder(model.config, 16)
        head = jnp.zeros((16, 16)).at[:, :V].set(params['params']['head']['kernel'])
        variables['params']['head'] = {'kernel': head}
        return wide.apply(variables, jnp.arange(16)[None])[0][0, t].sum()

    gradient = jax.jit(jax.grad(logit_sum))
    for t in (0, 5, 14):
        rows = gradient(x_BTD[0], t)
        assert (rows[t + 1 :] == 0).all()
        assert (rows[: t + 1] != 0).any(axis=1).all()


@pytest.mark.parametrize('variant', VARIANTS)
def test_decoding_with_the_cache_equals_the_full_pass(variant):
    model, params, tokens_BT, apply = make(variant)
    full, _ = apply(params, tokens_BT)
    cache = Cache.empty(model.config, 3, 20)
    pos_BT = jnp.broadcast_to(jnp.arange(16), (3, 16))
    pieces = [slice(0, 5), *(slice(t, t + 1) for t in range(5, 16))]
    logits = []
    for piece in pieces:
        new, cache = apply(params, tokens_BT[:, piece], pos_BT[:, piece], cache)
        logits.append(new)
    np.testing.assert_allclose(jnp.concatenate(logits, 1), full, atol=1e-5)


def test_padding_on_the_left_changes_nothing():
    model, params, tokens_BT, apply = make('gpt2')
    alone, _ = apply(params, tokens_BT[:1, :9])
    padded_BT = jnp.concatenate([jnp.full((1, 5), 3), tokens_BT[:1, :9]], 1)
    pos_BT = jnp.concatenate([jnp.full((1, 5), NO_POSITION), jnp.arange(9)[None]], 1)
    cached, _ = apply(params, padded_BT, pos_BT, Cache.empty(model.config, 1, 14))
    np.testing.assert_allclose(cached[:, 5:], alone, atol=1e-5)


@pytest.mark.parametrize('variant', VARIANTS)
def test_loss_at_initialisation_is_that_of_guessing(variant):
    config = dataclasses.replace(BASE, **VARIANTS[variant], n_embd=64)
    model = Decoder(config, 65)
    tokens_BT = jax.random.randint(jax.random.key(1), (8, 16), 0, 65)
    params = model.init(jax.random.key(0), tokens_BT)
    logits_BTV, _ = model.apply(params, tokens_BT)
    targets_BT = jax.random.randint(jax.random.key(2), (8, 16), 0, 65)
    log_probs = jax.nn.log_softmax(logits_BTV)
    loss = -jnp.take_along_axis(log_probs, targets_BT[..., None], -1).mean()
    assert abs(loss - math.log(65)) < 0.1


def test_parameters_are_float32_and_computation_bfloat16_on_request():
    model = Decoder(dataclasses.replace(BASE, dtype='bfloat16'), V)
    tokens_BT = jnp.zeros((1, 4), jnp.int32)
    params = model.init(jax.random.key(0), tokens_BT)
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {'float32'}
    assert model.apply(params, tokens_BT)[0].dtype == jnp.bfloat16


def test_zero_init_makes_every_block_the_identity():
    model = Decoder(dataclasses.replace(BASE, residual_init='zero'), V)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    for block in ('block_0', 'block_1'):
        assert (params['params'][block]['attn']['out']['kernel'] == 0).all()
        assert (params['params'][block]['mlp']['down']['kernel'] == 0).all()


def test_scaled_init_has_gpt2s_standard_deviation():
    config = dataclasses.replace(BASE, residual_init='scaled', n_embd=128, n_layer=8)
    params = Decoder(config, V).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))['params']
    std = params['block_3']['mlp']['down']['kernel'].std()
    assert std == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
    assert params['block_3']['mlp']['up']['kernel'].std() == pytest.approx(0.02, rel=0.05)


def test_dropout_is_on_in_training_only_and_follows_its_key():
    model = Decoder(dataclasses.replace(BASE, dropout=0.5), V)
    _, params, tokens_BT, _ = make('default')
    train = [
        model.apply(params, tokens_BT, train=True, rngs={'dropout': jax.random.key(k)})[0]
        for k in (0, 0, 1)
    ]
    assert (train[0] == train[1]).all()
    assert (train[0] != train[2]).any()
    plain = [model.apply(params, tokens_BT)[0] for _ in range(2)]
    assert (plain[0] == plain[1]).all()


def test_attention_weights_can_be_looked_at_and_add_up_to_one():
    model, params, tokens_BT, _ = make('default')
    _, looked = model.apply(params, tokens_BT, mutable=['intermediates'])
    (weights_BNTS,) = looked['intermediates']['block_1']['attn']['weights_BNTS']
    assert weights_BNTS.shape == (3, 2, 16, 16)
    np.testing.assert_allclose(weights_BNTS.sum(-1), 1, rtol=1e-5)
    assert (jnp.triu(weights_BNTS, 1) == 0).all()


def test_parameter_names_are_public():
    """Checkpoints, import tables and sharding rules depend on them."""
    _, params, _, _ = make('default')
    names = {
        jax.tree_util.keystr(path, simple=True, separator='/')
        for path, _ in jax.tree_util.tree_leaves_with_path(params['params'])
    }
    block = {
        'attn/query/kernel',
        'attn/key/kernel',
        'attn/value/kernel',
        'attn/out/kernel',
        'mlp/up/kernel',
        'mlp/down/kernel',
        'norm_attn/scale',
        'norm_mlp/scale',
    }
    expected = {f'block_{i}/{name}' for i in (0, 1) for name in block}
    assert names == expected | {'embed/embedding', 'head/kernel', 'norm_final/scale'}


def test_rotary_scores_depend_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    score = [
        float((rotate(q, jnp.array([[a]])) * rotate(k, jnp.array([[b]]))).sum())
        for a, b in ((3, 1), (13, 11), (3, 2))
    ]
    assert score[0] == pytest.approx(score[1], rel=1e-4)
    assert score[0] != pytest.approx(score[2], rel=1e-2)


def test_sinusoids_have_the_textbook_values():
    """The frequency falls with the dimension, not with the position."""
    table = sinusoids(jnp.array([[1, 2, 3]]), 4)[0]
    np.testing.assert_allclose(table[:, 0], np.sin([1, 2, 3]), atol=1e-6)
    np.testing.assert_allclose(table[:, 2], [0.0100, 0.0200, 0.0300], atol=1e-4)
    np.testing.assert_allclose(table[:, 3], [0.99995, 0.9998, 0.99955], atol=1e-5)


def test_a_padded_vocabulary_changes_nothing():
    model, params, tokens_BT, apply = make('default')
    padded = Decoder(dataclasses.replace(model.config, vocab_multiple=8), V)
    table = params['params']['embed']['embedding']
    kernel = params['params']['head']['kernel']
    noise = jax.random.normal(jax.random.key(5), (16, 16))
    wide = {
        **params['params'],
        'embed': {'embedding': noise.at[:V].set(table)},
        'head': {'kernel': noise.at[:, :V].set(kernel)},
    }
    logits_BTV, _ = padded.apply({'params': wide}, tokens_BT)
    expected_BTV, _ = apply(params, tokens_BT)
    np.testing.assert_allclose(logits_BTV[..., :V], expected_BTV, atol=1e-5)
    assert (logits_BTV[..., V:] == -jnp.inf).all()


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        ({}, ''),
        ({'dtype': 'float32'}, 'float32'),
        ({'n_head': 4}, '4 wide'),
        ({'dropout': 0.1}, 'dropout=0.1'),
        ({'attention': 'xla'}, None),
    ],
)
def test_cudnn_is_chosen_exactly_where_it_can_be_used(monkeypatch, change, why):
    on_a_gpu(monkeypatch)
    config = dataclasses.replace(BASE, **{'dtype': 'bfloat16', **change})
    assert uses_cudnn(config, train=True) == (why == '')
    if why:
        assert why in why_not_cudnn(config, train=True)
        with pytest.raises(UserError, match=f'model.attention=cudnn is impossible: .*{why}.*auto'):
            uses_cudnn(dataclasses.replace(config, attention='cudnn'), train=True)


def test_without_a_gpu_cudnn_is_refused_and_auto_is_ours():
    config = dataclasses.replace(BASE, dtype='bfloat16')
    assert not uses_cudnn(config, train=False)
    with pytest.raises(UserError, match='there is no NVIDIA GPU'):
        uses_cudnn(dataclasses.replace(config, attention='cudnn'), train=False)


def test_cudnn_is_asked_for_the_same_attention(monkeypatch):
    on_a_gpu(monkeypatch)
    config = dataclasses.replace(BASE, dtype='bfloat16')
    tokens_BT = jax.random.randint(jax.random.key(1), (2, 16), 0, V)
    asked = []
    original = jax.nn.dot_product_attention

    def on_a_cpu(*qkv, implementation, **options):
        asked.append(implementation)
        return original(*qkv, implementation='xla', **options)

    monkeypatch.setattr(jax.nn, 'dot_product_attention', on_a_cpu)
    model = Decoder(config, V)
    params = model.init(jax.random.key(0), tokens_BT)
    fused, _ = model.apply(params, tokens_BT)
    assert asked == ['cudnn'] * config.n_layer
    plain, _ = Decoder(dataclasses.replace(config, attention='xla'), V).apply(params, tokens_BT)
    np.testing.assert_allclose(fused, plain, atol=0.02)
    _, looked = model.apply(params, tokens_BT, mutable='intermediates')
    assert looked['intermediates']['block_0']['attn']['weights_BNTS']


def on_a_gpu(monkeypatch):
    """Lets the choice of attention believe that it runs on an NVIDIA GPU."""
    client = types.SimpleNamespace(platform_version='cuda 12090')
    device = types.SimpleNamespace(client=client, platform='gpu')
    monkeypatch.setattr(attention, '_device', lambda: device)
