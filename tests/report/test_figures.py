"""The figures of a report: they add up, and each is what a direct computation gives."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gptjax.report import baselines, chart, compare, tokens
from gptjax.report.record import Curve, Record, read_curves
from gptjax.text.characters import CharTokenizer
from tests.conftest import replace

TEXT = 'to be, or not to be:\nthat is 1 question\n'


@pytest.fixture(scope='module')
def tokenizer():
    return CharTokenizer(''.join(sorted(set(TEXT))))


def scored(tokenizer, logits_VV, block_size=8):
    """What a model that is a table of bigrams predicts of TEXT."""
    return tokens.score(
        lambda table_VV, tokens_BT: table_VV[tokens_BT],
        *(jnp.asarray(logits_VV), tokenizer.encode(TEXT)),
        block_size=block_size,
        vocab_size=tokenizer.vocab_size,
        flops_per_token=1.0,
    )


@pytest.fixture(scope='module')
def table(tokenizer):
    return np.random.default_rng(0).normal(size=(tokenizer.vocab_size,) * 2).astype(np.float32)


def test_the_loss_of_each_token_is_the_models(tokenizer, table):
    found = scored(tokenizer, table)
    ids = tokenizer.encode(TEXT)
    log_probs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    np.testing.assert_array_equal(found.tokens_M, ids[1:])
    np.testing.assert_allclose(found.nats_M, -log_probs[ids[:-1], ids[1:]], rtol=1e-5)
    np.testing.assert_allclose(found.top_M, np.exp(log_probs.max(-1))[ids[:-1]], rtol=1e-5)
    np.testing.assert_array_equal(found.pos_M, np.arange(len(ids) - 1) % 8)


@pytest.mark.parametrize('by', [tokens.by_position, tokens.by_kind])
def test_groups_are_all_of_the_loss(tokenizer, table, by):
    found = scored(tokenizer, table)
    groups = by(found, tokenizer) if by is tokens.by_kind else by(found)
    assert sum(group.count for group in groups) == len(TEXT) - 1
    assert sum(group.share for group in groups) == pytest.approx(1)
    whole = sum(group.nats * group.count for group in groups) / (len(TEXT) - 1)
    assert whole == pytest.approx(found.nats_M.mean())


def test_positions_double(tokenizer, table):
    assert [(g.name, g.count) for g in tokens.by_position(scored(tokenizer, table))] == [
        ('1', 5),
        ('2', 5),
        ('3 to 4', 10),
        ('5 to 8', 19),
    ]


def test_kinds_are_those_of_the_characters(tokenizer, table):
    found = {g.name: g.count for g in tokens.by_kind(scored(tokenizer, table), tokenizer)}
    # The first letter of the text is not predicted.
    assert found == {
        'start of a word': len('bontbtiq'),
        'inside a word': len('oerotoehatsuestion'),
        'space': TEXT.count(' '),
        'line break': 2,
        'digit': 1,
        'other sign': len(',:'),
    }


def test_a_joiner_is_inside_a_word():
    assert [tokens._kind(c) for c in ('\u200c', 'م', '\n', ' ', '7', '!', '')] == [
        1,
        1,
        3,
        2,
        4,
        5,
        5,
    ]


def test_a_model_that_is_sure_and_wrong_is_badly_calibrated(tokenizer):
    size = tokenizer.vocab_size
    even = tokens.calibration(scored(tokenizer, np.zeros((size, size), np.float32)))
    assert even.error < 0.1  # It says 1 / V, and is right about as often.
    never = np.full((size, size), -50, np.float32)
    never[:, tokenizer.encode('q')[0]] = 50
    sure = tokens.calibration(scored(tokenizer, never))
    assert sure.error == pytest.approx(1 - 1 / (len(TEXT) - 1), abs=1e-3)
    assert sum(count for *_, count in sure.bins) == len(TEXT) - 1


def test_a_large_model_predicts_fewer_tokens(tokenizer, table):
    found = tokens.score(
        lambda table_VV, tokens_BT: table_VV[tokens_BT],
        *(jnp.asarray(table), tokenizer.encode(TEXT)),
        block_size=8,
        vocab_size=tokenizer.vocab_size,
        flops_per_token=tokens.MOST_FLOPS / 16,
    )
    assert len(found.tokens_M) == 16


def test_baselines_are_counts(tokenizer):
    train, val = tokenizer.encode(TEXT), tokenizer.encode('to be')
    found = baselines.baselines(val[1:], val[:-1], train, tokenizer)
    assert found['uniform'] == pytest.approx(math.log(tokenizer.vocab_size))
    size = len(TEXT) + tokenizer.vocab_size
    unigram = {c: (TEXT.count(c) + 1) / size for c in TEXT}
    assert found['unigram'] == pytest.approx(-np.mean([math.log(unigram[c]) for c in 'o be']))

    def bigram(a, b):
        followers = [y for x, y in itertools.pairwise(TEXT) if x == a]
        kinds = len(set(followers))
        return (followers.count(b) + kinds * unigram[b]) / (len(followers) + kinds)

    expected = [math.log(bigram(a, b)) for a, b in zip('to b', 'o be', strict=True)]
    assert found['bigram'] == pytest.approx(-np.mean(expected))
    assert found['xz'] > found['uniform']  # Four characters do not pay for xz's own header.
    assert set(baselines.baselines(val[1:], val[:-1], None, tokenizer)) == {'uniform', 'xz'}


def test_thinning_keeps_every_extreme():
    y = np.random.default_rng(1).normal(size=1_000_000)
    y[123_456], y[654_321] = 99, -99
    kept = chart.thin(y)
    assert len(kept) <= chart.MOST_POINTS + 2 and {0, 123_456, 654_321, 999_999} <= set(kept)
    assert list(chart.thin(np.arange(9.0))) == list(range(9))


def test_a_chart_of_equal_values_has_a_range():
    drawn = chart.draw('flat', [chart.Line('', np.array([3]), np.array([0.5]))])
    assert drawn.paths[0][2].startswith('M') and len(drawn.y_ticks) > 1


def test_a_run_of_a_few_rows_is_shown_whole():
    line = chart.Line('', np.array([10, 12]), np.array([9.0, 1.0]))
    drawn = chart.draw('', [line], settled=True)
    assert [words for _, words in drawn.y_ticks][-1] in ('8', '9', '8.0', '9.0')


def test_what_only_the_first_steps_reach_is_outside():
    x = np.arange(1, 101)
    line = chart.Line('', x, np.where(x < 4, 100.0, 2.0 + 1 / x))
    highest = [float(words) for _, words in chart.draw('', [line], settled=True).y_ticks][-1]
    assert highest < 3


def test_rows_become_curves_whatever_else_is_in_the_file(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text(
        '{"step": 1, "elapsed_s": 1.0, "train_loss": 2.0, "note": "x"}\n'
        'garbage\n{"step": 2, "elapsed_s": 2.0, "val_loss": 1.5, "grad_norm": null}\n'
        '{"step": 3, "el'
    )
    curves, evaluations = read_curves(path)
    assert set(curves) == {'step', 'elapsed_s', 'train_loss', 'val_loss'}
    assert curves['val_loss'].lowest() == (2, 1.5)
    assert [row['step'] for row in evaluations] == [2]
    assert read_curves(tmp_path / 'none.jsonl') == ({}, [])


def record(tiny, workdir, val_loss=None, **train):
    curves = (
        {} if val_loss is None else {'val_loss': Curve(np.array([1, 2]), np.array([9, val_loss]))}
    )
    return Record(workdir, replace(tiny, train=train), curves, [], [], '', [])


def test_seeds_are_one_group_and_other_knobs_another(tiny):
    losses = {(1e-2, 1): 1.50, (1e-2, 2): 1.52, (1e-2, 3): 1.51, (1e-3, 1): 1.60, (1e-3, 2): 1.63}
    records = [
        record(tiny, f'{rate}-{seed}', loss, learning_rate=rate, seed=seed)
        for (rate, seed), loss in losses.items()
    ]
    groups = compare.groups([*records, record(tiny, 'unfinished', learning_rate=1e-2)])
    assert [group.losses for group in groups] == [(1.50, 1.52, 1.51), (1.60, 1.63)]
    assert groups[0].mean == pytest.approx(1.51)
    (difference,) = compare.differences(groups)
    assert difference.difference == pytest.approx(0.105)
    a, b = 1e-4 / 3, 4.5e-4 / 2  # Variances of the means, and Welch's degrees of freedom.
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2)
    assert difference.p == pytest.approx(2 * stats.t.sf(0.105 / (a + b) ** 0.5, freedom))
    assert set(compare.differing(records)) == {'train.learning_rate', 'train.seed'}
    assert compare.differences(groups[:1]) == []


def test_a_text_of_one_character_has_groups(tokenizer):
    ids = np.zeros(20, np.int32)
    found = tokens.score(
        lambda table_VV, tokens_BT: table_VV[tokens_BT],
        *(jnp.zeros((1, 1)), ids),
        block_size=8,
        vocab_size=1,
        flops_per_token=1.0,
    )
    assert [group.nats for group in tokens.by_position(found)] == [0.0] * 4
