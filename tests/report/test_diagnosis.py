"""Verdicts on made-up curves."""

import math

import pytest

from gptjax.report.diagnosis import diagnose


def rows(val, train, every=100):
    """A run whose losses are functions of the share of it that is done."""
    return [
        {'step': i * every, 'train_loss': train(i / 20), 'val_loss': val(i / 20)}
        for i in range(1, 21)
    ]


def falling(x):
    return 1 + 3 * math.exp(-2 * x)


def flat(x):
    return 2 + 2 * math.exp(-20 * x)


@pytest.mark.parametrize(
    ('val', 'train', 'expected'),
    [
        (falling, falling, 'Still improving: raise train.steps'),
        (lambda x: falling(x) + 0.3, falling, 'Still improving'),
        (lambda x: flat(x) + 0.02, flat, 'Underfitting: '),
        (lambda x: flat(x) + 0.5, flat, 'Learnt what it can'),
        (lambda x: 2 + abs(x - 0.5), falling, 'Overfitting since step 1000: '),
        # One unlucky evaluation at the end is nothing.
        (lambda x: flat(x) + 0.5 + 0.01 * (x == 1), flat, 'Learnt what it can'),
        # Both rise: that is no overfitting.
        (lambda x: 2.02 + abs(x - 0.5), lambda x: 2 + abs(x - 0.5), 'Underfitting'),
    ],
)
def test_verdicts(val, train, expected):
    assert diagnose(rows(val, train)).startswith(expected)


def test_the_loss_without_dropout_counts():
    made = rows(lambda x: flat(x) + 0.5, lambda x: flat(x) + 0.5)
    assert diagnose(made).startswith('Underfitting')
    for row in made:
        row['train_eval_loss'] = row['train_loss'] - 0.6
    assert diagnose(made).startswith('Learnt what it can')


def test_losses_of_different_parameters_are_not_compared():
    made = rows(lambda x: flat(x) + 0.02, flat)
    assert diagnose(made, comparable=False).startswith('Validation stands still')
    for row in made:
        row['train_eval_loss'] = row['train_loss']
    assert diagnose(made, comparable=False).startswith('Underfitting')


def test_two_evaluations_say_nothing():
    made = rows(falling, falling)
    assert diagnose(made[:2]) == ''
    assert diagnose([{'step': 1, 'train_loss': 3.0}] * 9) == ''
