"""Beams against brute force and greedy decoding; samples; who shares a batch."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ModelConfig, SampleConfig, TranslationConfig
from gptjax.errors import UserError
from gptjax.generation.rules import RowRules, Rules
from gptjax.tasks.translation.beam import beam_search, length_norm
from gptjax.tasks.translation.decode import Decoding, translate
from gptjax.tasks.translation.seq2seq import Seq2Seq

V, END, LIMIT = 4, 3, 3


@functools.cache
def make(v: int = V, ngram: int = 2):
    config = ModelConfig(
        block_size=16, n_layer=1, n_head=2, n_embd=16, residual_init='plain', ngram=ngram
    )
    model = Seq2Seq(config, TranslationConfig(copy=True), v, v)
    source_BS = jax.random.randint(jax.random.key(1), (4, 6), 0, v)
    lengths_B = jnp.array([6, 2, 5, 3])
    params = model.init(jax.random.key(0), source_BS, lengths_B, source_BS)
    keys = iter(jax.random.split(jax.random.key(5), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(next(keys), x.shape), params)
    return model, params, source_BS, lengths_B


def brute_force(model, params, source_S, length, penalty):
    """(score, tokens) of every target of up to LIMIT tokens, best first."""
    rows = np.array(list(itertools.product(range(V), repeat=LIMIT)))
    inputs = np.concatenate([np.full((len(rows), 1), END), rows[:, :-1]], 1)
    logits = model.apply(
        params,
        jnp.tile(source_S, (len(rows), 1)),
        jnp.full(len(rows), length),
        jnp.asarray(inputs),
    )
    log_probs = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), rows[..., None], 2)
    found = {}
    for row, scores in zip(rows.tolist(), log_probs[..., 0], strict=True):
        n = row.index(END) + 1 if END in row else LIMIT
        tokens = tuple(row[:n]) + (END,) * (LIMIT - n)
        found[tokens] = scores[:n].sum() / length_norm(n, penalty)
    return sorted(((score, tokens) for tokens, score in found.items()), reverse=True)


def search(made, width, decoding, **options):
    model, params, source_BS, lengths_B = made
    return beam_search(
        model, params, source_BS, lengths_B=lengths_B, width=width, decoding=decoding, **options
    )


def draw_targets(made, rules, samples, decoding, **options):
    model, params, source_BS, lengths_B = made
    return translate(
        model,
        params,
        source_BS,
        lengths_B=lengths_B,
        rules=RowRules.of([rules]),
        samples=samples,
        decoding=decoding,
        **options,
    )


@pytest.mark.parametrize(('penalty', 'ngram'), [(0.0, 2), (0.6, 1), (2.0, 2)])
def test_a_wide_beam_equals_brute_force(penalty, ngram):
    model, params, source_BS, lengths_B = make(V, ngram)
    tokens, scores = search(make(V, ngram), 64, Decoding(END, LIMIT, 2), penalty=penalty)
    for b in range(4):
        expected = brute_force(model, params, source_BS[b], lengths_B[b], penalty)
        assert len(expected) == 40
        np.testing.assert_allclose(scores[b, :40], [s for s, _ in expected], atol=1e-4)
        assert [tuple(row) for row in tokens[b, :3].tolist()] == [t for _, t in expected[:3]]
        assert (scores[b, 40:] == -jnp.inf).all()


@pytest.mark.parametrize('chunk', [1, 5, 16])
def test_a_beam_of_one_equals_greedy(chunk):
    end = 8  # With it three of the four end early.
    decoding = Decoding(end, 14, chunk)
    greedy = draw_targets(make(9), Rules(temperature=0.0), 1, decoding)
    beam, _ = search(make(9), 1, decoding)
    assert sum(end in row for row in greedy.tolist()) == 3
    for row, best in zip(greedy.tolist(), beam[:, 0].tolist(), strict=True):
        n = row.index(end) if end in row else 14
        assert best == row[:n] + [end] * (14 - n)


def test_a_narrow_beam_is_never_worse_than_greedy_here_and_sorted():
    _, one = search(make(9), 1, Decoding(0, 14, 7), penalty=0.0)
    tokens, four = search(make(9), 4, Decoding(0, 14, 7), penalty=0.0)
    assert (four[:, 0] >= one[:, 0] - 1e-5).all()
    assert (jnp.diff(four, axis=1) <= 0).all()
    for hypotheses in tokens.tolist():
        assert len(set(map(tuple, hypotheses))) == 4


def test_banned_tokens_are_never_chosen():
    tokens, _ = search(make(9), 2, Decoding(0, 8, 4, banned=(1, 2, 3)))
    assert not np.isin(np.asarray(tokens), (1, 2, 3)).any()


def test_padding_and_batch_mates_change_no_translation():
    model, params, source_BS, lengths_B = make(9)
    wide_BS = jnp.pad(source_BS, ((0, 0), (0, 4)), constant_values=7)
    for decode in (
        lambda s, n: search((model, params, s, n), 3, Decoding(0, 12, 4))[0],
        lambda s, n: draw_targets(
            (model, params, s, n), Rules(temperature=0.9), 3, Decoding(0, 12, 4), seed=5
        ),
    ):
        together = np.asarray(decode(source_BS, lengths_B)).reshape(4, 3, -1)
        padded = np.asarray(decode(wide_BS, lengths_B)).reshape(4, 3, -1)
        for b in range(4):
            alone = np.asarray(decode(source_BS[b : b + 1], lengths_B[b : b + 1]))
            for rows in (together[b], padded[b]):
                assert list(map(until_end, rows)) == list(map(until_end, alone.reshape(3, -1)))


def test_samples_differ_and_follow_their_seed():
    rules = Rules(temperature=1.0, repetition_penalty=1.1)

    def draw(seed):
        rows = draw_targets(make(9), rules, 4, Decoding(0, 12, 4), seed=seed)
        return list(map(until_end, np.asarray(rows)))

    assert draw(1) == draw(1) != draw(2)
    assert len(set(map(tuple, draw(1)[:4]))) > 1


def test_more_texts_than_the_beam_has_are_refused():
    with pytest.raises(UserError, match=r'num_samples=5 is more than the sample.beam=4.*beam=5'):
        SampleConfig(beam=4, num_samples=5)
    assert dataclasses.replace(SampleConfig(), num_samples=5).beam == 1


def until_end(row) -> list[int]:
    row = row.tolist()
    return row[: row.index(0)] if 0 in row else row
