"""The players' properties: cache, gradients that flow and gradients that are cut, the penalty."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import GanConfig, ModelConfig
from gptjax.models.cache import Cache
from gptjax.tasks.gan import from_noise
from gptjax.tasks.gan.losses import critic_loss, generator_loss, gradient_penalty
from gptjax.tasks.gan.model import Critic, Generator, Noise, draw_noise
from gptjax.tasks.gan.spectral import spectrally_normalized
from gptjax.text.words import END, PAD, START, UNKNOWN

V, T, D, B = 11, 4, 8, 2
MODEL = ModelConfig(
    block_size=T,
    n_embd=D,
    n_head=2,
    n_hidden=16,
    position='sinusoidal',
    norm='layer',
    norm_place='branch',
    activation='gelu',
    bias=True,
    qk_norm=False,
    residual_init='plain',
)
CAUSAL = GanConfig(n_mapping=2)
PAPER = dataclasses.replace(CAUSAL, causal=False)


@functools.cache
def make(gan: GanConfig):
    """A generator, random parameters of a size that matters, and noise."""
    model = Generator(MODEL, gan, V)
    noise = draw_noise(MODEL, gan, jax.random.key(0), jnp.arange(B))
    params = jax.jit(model.init)(jax.random.key(1), jnp.zeros((B, T), jnp.int32), noise)
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)
    ids_BT, w_BTD = jax.jit(functools.partial(write, model))(params, noise)
    return model, params, noise, ids_BT, w_BTD


def write(model, params, noise):
    w_BTD = from_noise.style(model, params, noise)
    return from_noise.write(model, params, w_BTD, noise), w_BTD


@pytest.mark.parametrize('gan', [CAUSAL, PAPER], ids=['causal', 'paper'])
def test_the_states_of_the_writing_loop_are_those_of_the_replay(gan):
    """Cached generation equals generation that is computed anew, word for word."""
    model, params, noise, ids_BT, w_BTD = make(gan)
    x_BSD = jax.jit(functools.partial(from_noise.replay, model))(params, ids_BT, w_BTD, noise)
    logits_BSV = from_noise.word_logits(model, params, x_BSD, jnp.arange(T - 1))
    assert (ids_BT[:, 0] == START).all()
    np.testing.assert_array_equal(logits_BSV.argmax(-1), ids_BT[:, 1:])
    assert not np.isin(ids_BT[:, 1:], (PAD, START, UNKNOWN)).any()


def test_no_sentence_is_shorter_than_real_ones():
    gan = dataclasses.replace(CAUSAL, min_words=2)
    model, params, *_ = make(gan)
    x_BSD = jax.random.normal(jax.random.key(0), (B, T - 1, D))
    bounded_BSV, free_BSV = (
        from_noise.word_logits(m, params, x_BSD, jnp.arange(T - 1))
        for m in (model, model.clone(gan=CAUSAL))
    )
    assert (bounded_BSV[:, :2, END] < -1e8).all()
    changed = np.asarray(bounded_BSV != free_BSV)
    assert {(t, v) for _, t, v in zip(*changed.nonzero(), strict=True)} == {(1, END)}


def test_the_cached_states_equal_the_recomputed_ones():
    model, params, noise, ids_BT, w_BTD = make(CAUSAL)
    replay = jax.jit(functools.partial(from_noise.replay, model))
    whole_BSD = replay(params, ids_BT, w_BTD, noise)
    cache = Cache.empty(model.cache_config, B, T - 1)
    step = jax.jit(functools.partial(model.apply, method='step'))
    for t in range(T - 1):
        x_BD, cache = step(params, ids_BT[:, t], t, w_BTD, noise, cache)
        np.testing.assert_allclose(x_BD, whole_BSD[:, t], atol=1e-5)


def test_no_causal_state_depends_on_later_words_or_noise():
    model, params, noise, ids_BT, w_BTD = make(CAUSAL)

    def state(w_BTD, place_BTLD):
        changed = noise.replace(place_BTLD=place_BTLD)
        return from_noise.replay(model, params, ids_BT, w_BTD, changed)[:, 1].sum()

    for gradient in jax.jit(jax.grad(state, (0, 1)))(w_BTD, noise.place_BTLD):
        assert (gradient[:, 2:] == 0).all()
        assert (np.abs(gradient[:, :2]).max(axis=(0, *range(2, gradient.ndim))) > 0).all()


@pytest.mark.parametrize('gan', [CAUSAL, PAPER], ids=['causal', 'paper'])
def test_gradients_flow_to_the_noise_and_through_no_word_that_was_fed_back(gan):
    """The gradient of the loop itself, written out with the words as constants, is the replay's."""
    model, params, noise, ids_BT, _ = make(gan)

    def looped(params, style_BTD):
        w_BTD = model.apply(params, style_BTD, method='style')
        cache, states, ids = Cache.empty(model.cache_config, B, T - 1), [], ids_BT
        for t in range(T - 1):
            if gan.causal:
                x_BD, cache = model.apply(params, ids[:, t], t, w_BTD, noise, cache, method='step')
            else:
                x_BD = model.apply(params, ids, w_BTD, noise, t + 1, method='rewritten')
            states.append(x_BD)
            logits_BV = from_noise.word_logits(model, params, x_BD, t)
            ids = ids.at[:, t + 1].set(jnp.argmax(logits_BV, -1).astype(jnp.int32))
        return jnp.sum(jnp.sin(jnp.stack(states, 1)))

    def replayed(params, style_BTD):
        w_BTD = model.apply(params, style_BTD, method='style')
        return jnp.sum(jnp.sin(from_noise.replay(model, params, ids_BT, w_BTD, noise)))

    expected, found = (
        jax.jit(jax.grad(f, (0, 1)))(params, noise.style_BTD) for f in (looped, replayed)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), expected, found)
    assert np.abs(found[1]).max() > 0
    # Nothing goes into the ids: the whole loop, as a function of what it starts from, is flat.
    ids = jax.jit(functools.partial(write, model))(params, noise)[0]
    assert ids.dtype == jnp.int32


def test_cross_attention_has_its_values_from_the_noise_alone():
    """With w = 0 the values are their bias, whatever the text: queries and keys cannot matter."""
    model, params, noise, ids_BT, w_BTD = make(CAUSAL)

    @jax.jit
    @jax.grad
    def gradient(cross, w_BTD):
        tree = jax.tree.map(lambda x: x, params)
        tree['params']['noise_block_0']['cross'] = cross
        return jnp.sum(jnp.sin(from_noise.replay(model, tree, ids_BT, w_BTD, noise)))

    cross = params['params']['noise_block_0']['cross']
    with_noise, without = (gradient(cross, w) for w in (w_BTD, jnp.zeros_like(w_BTD)))
    for name in ('query', 'key', 'value'):
        assert np.abs(with_noise[name]['kernel']).max() > 1e-4
        assert np.abs(without[name]['kernel']).max() < 1e-6


def test_the_mapping_is_not_linear():
    model, params, noise, _, _ = make(CAUSAL)
    z_BTD = noise.style_BTD
    style = jax.jit(functools.partial(model.apply, params, method='style'))
    w, w_negative, zero = style(z_BTD), style(-z_BTD), style(0 * z_BTD)
    assert np.abs((w + w_negative) / 2 - zero).max() > 0.1


@pytest.mark.parametrize(
    ('kind', 'low', 'high'), [('normal', -9, 9), ('uniform', -1, 1), ('truncated', -2, 2)]
)
def test_noise_is_a_function_of_the_row(kind, low, high):
    gan = dataclasses.replace(CAUSAL, noise=kind)
    draw = functools.partial(draw_noise, MODEL, gan, jax.random.key(0))
    noise, part = draw(jnp.arange(4)), draw(jnp.array([2]))
    assert (noise.style_BTD[2] == part.style_BTD[0]).all()
    assert (noise.style_BTD[2] != noise.style_BTD[1]).all()
    assert low <= noise.style_BTD.min() < noise.style_BTD.max() <= high


def test_noise_of_one_number_is_broadcast_over_the_width():
    noise = draw_noise(
        MODEL, dataclasses.replace(CAUSAL, noise_width='one'), jax.random.key(0), jnp.arange(2)
    )
    assert isinstance(noise, Noise)
    assert noise.style_BTD.shape == (2, T, D)
    assert (noise.style_BTD == noise.style_BTD[..., :1]).all()
    assert len(np.unique(noise.style_BTD)) == 2 * T


@functools.cache
def make_critic(pooling: str):
    critic = Critic(MODEL, dataclasses.replace(CAUSAL, pooling=pooling), V)
    e_BSD = jax.random.normal(jax.random.key(3), (B, T - 1, D))
    return critic, jax.jit(critic.init)(jax.random.key(4), e_BSD), e_BSD


@pytest.mark.parametrize('pooling', ['none', 'average', 'max'])
def test_every_position_counts_for_the_critic(pooling):
    critic, params, e_BSD = make_critic(pooling)
    score = jax.jit(lambda e_BSD: critic.apply(params, e_BSD))
    g_BSD = jax.jit(jax.grad(lambda e_BSD: score(e_BSD)[1]))(e_BSD)
    assert score(e_BSD).shape == (B,)
    assert (np.abs(g_BSD[1]).max(-1) > 0).all()
    assert (g_BSD[0] == 0).all()  # A score is of its own row alone.
    assert (np.abs(score(e_BSD[:, ::-1]) - score(e_BSD)) > 1e-5).all()  # Order counts.


def test_the_penalty_is_that_of_one_hot_words_by_a_numerical_derivative():
    critic, params, _ = make_critic('none')
    p_BSV = jax.nn.softmax(jax.random.normal(jax.random.key(5), (1, T - 1, V)) * 2)
    table_VD = jax.random.normal(jax.random.key(6), (V, D))
    score = jax.jit(lambda p_BSV: critic.apply(params, p_BSV @ table_VD)[0])
    numerical = np.zeros(p_BSV.shape)
    for index in np.ndindex(*p_BSV.shape):
        step = jnp.zeros_like(p_BSV).at[index].set(3e-2)
        numerical[index] = (score(p_BSV + step) - score(p_BSV - step)) / 6e-2
    penalty = functools.partial(gradient_penalty, functools.partial(critic.apply, params))
    found = penalty(p_BSV @ table_VD, table_VD)
    assert found == pytest.approx((np.linalg.norm(numerical) - 1) ** 2, rel=1e-2)


def test_the_gradient_of_the_penalty_is_a_second_derivative():
    """Of a score with known derivatives: a sin(sum x) has the norm |a cos(sum x)| sqrt(n)."""
    x_BSD, table_VD = jnp.full((1, 2, 3), 0.1), jnp.eye(3)

    def penalty(a):
        return gradient_penalty(lambda x: a * jnp.sin(x.sum((1, 2))), x_BSD, table_VD)

    a, c = 0.7, np.cos(0.6) * 6**0.5
    assert penalty(a) == pytest.approx((a * c - 1) ** 2, rel=1e-5)
    assert jax.grad(penalty)(a) == pytest.approx(2 * (a * c - 1) * c, rel=1e-5)


def test_losses():
    real_B, fake_B = jnp.array([2.0, 4.0]), jnp.array([-1.0, 1.0])
    assert critic_loss('wgan', real_B, fake_B) == -3
    assert generator_loss('wgan', fake_B) == 0
    soft = np.log1p(np.exp([[-2, -4], [-1, 1]])).mean(1).sum()
    assert critic_loss('minimax', real_B, fake_B) == pytest.approx(soft, rel=1e-6)
    soft = np.log1p(np.exp([1, -1])).mean()
    assert generator_loss('minimax', fake_B) == pytest.approx(soft, rel=1e-6)


def test_spectral_norm_leaves_a_largest_singular_value_of_one():
    _, params, _ = make_critic('none')
    words_VD = jnp.ones((V, D))
    tree = {'params': params['params'] | {'embed': {'embedding': words_VD}}}
    normal = jax.jit(spectrally_normalized)(tree)['params']
    for kernel in (
        normal['join']['kernel'],
        normal['block_0']['mlp']['up']['kernel'],
        normal['block_0']['attn']['query']['kernel'].reshape(D, D),
        normal['block_0']['attn']['out']['kernel'].reshape(D, D),
    ):
        assert np.linalg.norm(kernel, 2) == pytest.approx(1, abs=0.1)
    assert (normal['embed']['embedding'] == words_VD).all()


def test_end_is_a_word_like_others_for_the_generator():
    model, params, noise, _, w_BTD = make(CAUSAL)
    forced_BT = jnp.full((B, T), from_noise.FREE).at[:, 1].set(END).at[0, 2].set(5)
    written = jax.jit(functools.partial(from_noise.write, model))(params, w_BTD, noise, forced_BT)
    assert (written[:, 1] == END).all()
    assert written[0, 2] == 5
