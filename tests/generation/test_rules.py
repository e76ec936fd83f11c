"""Logit rules: exact sets, exact frequencies, and the identities between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gptjax.config import SampleConfig
from gptjax.generation.rules import (
    RowRules,
    Rules,
    choose,
    min_p,
    penalize_repetition,
    truncate,
)

PROBS = jnp.array([[0.05, 0.4, 0.15, 0.3, 0.1]])
LOGITS = jnp.log(PROBS)


def kept(logits_BV):
    return set(np.flatnonzero(np.isfinite(logits_BV[0])))


def each(value, dtype=np.float32):
    """The value of a rule for a single row."""
    return jnp.array([value], dtype)


def top_k(logits_BV, k):
    return truncate(logits_BV, jnp.full(len(logits_BV), k), jnp.ones(len(logits_BV)))


def top_p(logits_BV, p):
    return truncate(logits_BV, each(99, np.int32), each(p))


def draw(config: SampleConfig, n: int, logits_BV=LOGITS, seed=0):
    rules = RowRules.of([Rules.from_config(config)] * n)
    logits_BV = jnp.broadcast_to(logits_BV, (n, logits_BV.shape[1]))
    noise = jax.random.gumbel(jax.random.key(seed), logits_BV.shape)
    return np.asarray(jax.jit(choose)(logits_BV, rules, noise, jnp.zeros(logits_BV.shape, bool)))


@pytest.mark.parametrize(
    ('k', 'expected'), [(1, {1}), (2, {1, 3}), (5, {0, 1, 2, 3, 4}), (9, {0, 1, 2, 3, 4})]
)
def test_top_k(k, expected):
    assert kept(top_k(LOGITS, k)) == expected


def test_top_k_keeps_exactly_k_of_equal_logits_the_lowest_ids_first():
    assert kept(top_k(jnp.zeros((1, 6)), 2)) == {0, 1}


@pytest.mark.parametrize(
    ('p', 'expected'),
    [
        (1e-300, {1}),
        (0.01, {1}),
        (0.4, {1}),
        (0.41, {1, 3}),
        (0.71, {1, 2, 3}),
        (0.999, {0, 1, 2, 3, 4}),
    ],
)
def test_top_p_is_the_smallest_set_that_reaches_p(p, expected):
    assert kept(top_p(LOGITS, p)) == expected


@pytest.mark.parametrize(
    ('p', 'expected'), [(0.5, {1, 3}), (1.0, {1}), (0.9, {1}), (0.2, {1, 2, 3, 4})]
)
def test_min_p_is_relative_to_the_likeliest(p, expected):
    assert kept(min_p(LOGITS, each(p))) == expected


def reference(logits_V, k, p):
    """What is kept, by sorting everything in float64."""
    order = np.argsort(-logits_V, kind='stable')[:k]
    probs = np.exp(logits_V[order].astype(np.float64) - logits_V.max())
    before = np.cumsum(probs / probs.sum()) - probs / probs.sum()
    return set(order[(before < p) | (np.arange(len(order)) == 0)].tolist())


# Few are kept, by k, by p or by both; many are, by k or by p; or all.
WIDE = [(50, 1.0), (50, 0.5), (10**9, 0.3), (10**9, 0.99), (900, 1.0), (900, 0.97), (10**9, 1.0)]


@pytest.mark.parametrize('spread', [1.0, 6.0])
def test_of_a_large_vocabulary_the_same_are_kept_as_by_sorting(spread):
    logits_BV = spread * jax.random.normal(jax.random.key(1), (len(WIDE), 5000))
    k_B, p_B = (np.array(column) for column in zip(*WIDE, strict=True))
    both = jax.jit(truncate)(logits_BV, k_B.astype(np.int32), p_B.astype(np.float32))
    for row, (k, p) in enumerate(WIDE):
        found = set(np.flatnonzero(np.isfinite(both[row])).tolist())
        assert found == reference(np.asarray(logits_BV[row]), k, p), (k, p)
        # A row keeps the same alone, where nobody makes it sort.
        alone = jax.jit(truncate)(logits_BV[row : row + 1], *map(each, (k, p), (np.int32, 'f4')))
        np.testing.assert_array_equal(alone[0], both[row])


def test_rules_keep_the_logits_of_what_they_keep():
    np.testing.assert_array_equal(top_p(top_k(LOGITS, 2), 0.9)[0, [1, 3]], LOGITS[0, [1, 3]])


def test_repetition_penalty_weakens_what_was_seen():
    logits_BV = jnp.array([[2.0, -2.0, 2.0, -2.0]])
    seen_BV = jnp.array([[True, True, False, False]])
    np.testing.assert_allclose(penalize_repetition(logits_BV, seen_BV, each(2.0)), [[1, -4, 2, -2]])


@pytest.mark.parametrize('config', [{'temperature': 0.0}, {'top_k': 1}, {'temperature': 1e-30}])
def test_greedy_three_ways(config):
    logits_BV = jax.random.normal(jax.random.key(7), (50, 9))
    expected = np.argmax(logits_BV, axis=1)
    rules = RowRules.of([Rules(**config)] * 50)
    noise = jax.random.gumbel(jax.random.key(0), (50, 9))
    drawn = choose(logits_BV, rules, noise, jnp.zeros(logits_BV.shape, bool))
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize('off', [{'top_p': 1.0}, {'top_k': 0}, {'min_p': 0.0}, {'top_k': 5}])
def test_rules_that_are_off_change_no_draw(off):
    plain = draw(SampleConfig(temperature=1.0), 500)
    np.testing.assert_array_equal(draw(SampleConfig(temperature=1.0, **off), 500), plain)


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ({'temperature': 1.0}, PROBS[0]),
        ({'temperature': 0.5}, PROBS[0] ** 2 / (PROBS[0] ** 2).sum()),
        ({'temperature': 1.0, 'top_k': 2}, jnp.array([0, 4, 0, 3, 0]) / 7),
        ({'temperature': 1.0, 'top_p': 0.8}, jnp.array([0, 0.4, 0.15, 0.3, 0]) / 0.85),
    ],
)
def test_frequencies_follow_the_softmax(config, expected):
    n = 20_000
    expected = np.asarray(expected, np.float64)
    expected /= expected.sum()
    counts = np.bincount(draw(SampleConfig(**config), n), minlength=5)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = stats.chisquare(counts[possible], n * expected[possible])
    assert chi_square.pvalue > 1e-3


def test_requests_of_any_mix_share_one_program_and_do_not_disturb_each_other():
    mixes = [
        Rules(),
        Rules(temperature=0.0),
        Rules(top_k=2, temperature=0.7),
        Rules(top_p=0.6),
        Rules(min_p=0.3, repetition_penalty=1.4),
    ]
    logits_BV = jax.random.normal(jax.random.key(1), (5, 9))
    noise_BV = jax.random.gumbel(jax.random.key(2), (5, 9))
    seen_BV = jax.random.bernoulli(jax.random.key(3), 0.5, (5, 9))
    traces = []

    @jax.jit
    def counted(rules):
        traces.append(1)
        return choose(logits_BV, rules, noise_BV, seen_BV)

    together = counted(RowRules.of(mixes))
    for i, rules in enumerate(mixes):
        assert counted(RowRules.of([rules] * 5))[i] == together[i]
    assert len(traces) == 1
