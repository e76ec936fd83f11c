"""The parts of a forward pass add up to the model's own logits, whatever the model's options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ModelConfig
from gptjax.explain import heads, inspection, lens
from gptjax.explain.trace import contributions, trace
from gptjax.models.decoder import Decoder

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5], np.int32)
OPTIONS = {
    'gpt2': {'position': 'learned', 'norm': 'layer', 'bias': True, 'activation': 'gelu'},
    'rotary': {'qk_norm': True, 'vocab_multiple': 16},
    'ngram': {'ngram': 3, 'ngram_rows': 50, 'scale_embedding': True},
    'post_norm': {'norm_place': 'after', 'norm': 'layer', 'bias': True, 'position': 'sinusoidal'},
    'branch_norm': {'norm_place': 'branch', 'norm': 'layer', 'bias': True},
    'untied': {'tied_head': False, 'head_bias': True},
}


@pytest.fixture(scope='module', params=OPTIONS)
def taken_apart(request):
    """(model, variables, trace) of a random model with large weights."""
    options = {'tied_head': True, 'residual_init': 'plain', **OPTIONS[request.param]}
    config = ModelConfig(block_size=12, n_layer=2, n_head=2, n_embd=16, **options)
    model = Decoder(config, 11)
    variables = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))
    keys = iter(jax.random.split(jax.random.key(2), 200))
    variables = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), variables)
    return model, variables, trace(model, variables, TOKENS)


def test_the_parts_add_up_to_every_logit(taken_apart):
    model, variables, found = taken_apart
    ids_TK = np.tile(np.arange(model.vocab_size), (len(TOKENS), 1))
    parts_PTK = contributions(model, variables, found.parts_PTD, ids_TK)
    wanted_TV = found.logits_TV[:, : model.vocab_size]
    assert np.abs(parts_PTK.sum(0) - wanted_TV).max() <= 1e-4 * np.abs(wanted_TV).max()
    assert len(found.part_names) == len(set(found.part_names)) == len(parts_PTK)
    assert {'embed', 'block_0/head_0', 'block_1/head_1', 'block_1/mlp'} <= set(found.part_names)
    assert found.part_names[-1] == 'bias'


def test_the_lens_ends_in_the_logits_of_the_model_bit_for_bit(taken_apart):
    model, variables, found = taken_apart
    readings, error = lens.read_layers(model, variables, found)
    assert error == 0.0
    own = inspection.forward(model, variables, TOKENS, attention=False).logits
    own = own[:, : model.vocab_size]
    np.testing.assert_array_equal(own, found.logits_TV)
    assert len(readings) == 1 + model.config.n_layer
    last = readings[-1]
    np.testing.assert_array_equal(last.ids_TK[:, 0], own.argmax(-1))
    assert (last.ranks_T == 1).all() and np.abs(last.divergence_T).max() < 1e-6
    assert (np.diff(last.probs_TK, axis=-1) <= 0).all()


def test_attention_is_what_the_model_uses_and_rows_sum_to_one(taken_apart):
    model, variables, found = taken_apart
    own = inspection.forward(model, variables, TOKENS, attention=True).attention
    for layer, weights_NTT in zip(found.layers, own, strict=True):
        np.testing.assert_array_equal(layer.weights_NTS, weights_NTT)
        assert np.abs(layer.weights_NTS.sum(-1) - 1).max() <= 1e-6
        assert (np.triu(layer.weights_NTS, 1) == 0).all()
        scores = np.einsum('nth,nsh->nts', layer.q_NTH, layer.k_NSH) / np.sqrt(8)
        scores = np.where(np.tri(len(TOKENS), dtype=bool), scores, -np.inf)
        again = np.exp(scores - scores.max(-1, keepdims=True))
        again /= again.sum(-1, keepdims=True)
        np.testing.assert_allclose(again, weights_NTT, atol=1e-5)


def test_the_loss_without_a_head_is_that_of_a_model_without_it(taken_apart):
    model, variables, _ = taken_apart
    loss, increase_LN = heads.losses_without(model, variables, TOKENS)
    assert loss == pytest.approx(inspection.score(model, variables, TOKENS).loss, rel=1e-5)
    changed = jax.tree.map(lambda x: x, variables)
    kernel = changed['params']['block_1']['attn']['out']['kernel']
    changed['params']['block_1']['attn']['out']['kernel'] = kernel.at[0].set(0)
    without = inspection.score(model, changed, TOKENS).loss
    assert increase_LN.shape == (2, 2)
    assert loss + increase_LN[1, 0] == pytest.approx(without, rel=1e-5)


def test_heads_that_look_back_by_a_fixed_distance_are_found():
    """Score 1 of exactly the kind that a head was built to be."""
    weights = np.zeros((1, 3, 20, 20))
    queries = np.arange(20)
    for head, back in enumerate((1, 10, 9)):
        weights[0, head, queries[back:], queries[back:] - back] = 1
    scores = heads.mean_weights(weights, 10)
    np.testing.assert_allclose(np.array(scores), np.eye(3), atol=1e-9)
    found = heads.HeadScores(*(np.array(score)[None] for score in scores))
    labels = [found.label(0, head) for head in range(3)]
    assert labels == ['previous token', 'duplicate token', 'induction']
    weak = heads.HeadScores(*(np.full((1, 1), 0.1) for _ in range(3)))
    assert weak.label(0, 0) == ''


def test_a_block_without_room_for_repeated_tokens_has_no_scores():
    config = ModelConfig(block_size=3, n_layer=1, n_head=1, n_embd=8)
    assert heads.score_heads(Decoder(config, 5), {}) is None
