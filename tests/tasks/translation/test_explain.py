"""The explanation of a translation: what the model computes, in numbers."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import gptjax
from gptjax.errors import UserError
from gptjax.training.steps import run_key
from tests.conftest import replace, unpack_golden


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return gptjax.load(unpack_golden(tmp_path_factory.mktemp('run'), 'translation') / 'translation')


@pytest.fixture(scope='module')
def numbers(run):
    return run.explain('abab c', 'baba c').numbers


def test_probabilities_are_those_of_the_model(run, numbers):
    task = run.task
    source = np.append(task.tokenizer.encode('abab c'), task.tokenizer.end)
    tokens = numbers['tokens']
    assert tokens[0] == tokens[-1] == task.target_tokenizer.end
    assert task.target_tokenizer.decode(tokens) == 'baba c'
    lengths = np.array([len(source)], np.int32)
    logits = jax.jit(task.model.apply)(run.params, source[None], lengths, tokens[None])[0]
    logs = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(tokens) - 1), tokens[1:]]
    found = [outcome.probability for outcome in numbers['outcomes']]
    np.testing.assert_allclose(np.log(found), logs, rtol=1e-4, atol=1e-5)
    assert numbers['loss'] == pytest.approx(-logs.mean(), rel=1e-4)


def test_all_attention_is_there_and_rows_sum_to_one(numbers):
    source, target = len(numbers['source']), len(numbers['tokens'])
    shapes = {(target, source), (target, target), (source, source)}
    assert {kind.layers[0].weights_NTS.shape[1:] for kind in numbers['attention']} == shapes
    for kind in numbers['attention']:
        assert kind.error <= 1e-6
        for layer in kind.layers:
            scores = np.einsum('nth,nsh->nts', layer.q_NTH, layer.k_NSH)
            scores /= layer.q_NTH.shape[-1] ** 0.5
            if kind.rows == kind.columns == 'tokens':
                scores = np.where(np.tri(target, dtype=bool), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            np.testing.assert_allclose(weights, layer.weights_NTS, atol=1e-5)


@pytest.mark.parametrize('copy', [True, False])
def test_the_pointer_is_shown_where_the_model_can_copy(run, copy):
    config = replace(run.config, translation={'copy': copy})
    task = dataclasses.replace(run.task, config=config)
    params = jax.jit(task.init_state)(run_key(0)).params
    found = task.explain(params, ('abab c', 'baba c'), config.sample, 'random')
    copying = found.numbers['copying']
    assert ('id="copying"' in found.to_html()) == copy == (copying is not None)
    if copy:
        assert copying['weights'].shape == (8, 7)
        np.testing.assert_allclose(copying['weights'].sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(copying['shares'], 0.5)  # The gate starts without an opinion.


def test_without_a_translation_it_is_the_models_own(run):
    found = run.explain('abab c')
    own = run.generate('abab c')
    assert run.task.target_tokenizer.decode(found.numbers['tokens']) == own
    assert 'own' in found.summary
    json.loads(found.to_json())
    assert '<!doctype html>' in found.to_html()


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (('abab c', 'b' * 500), 'the translation has 500 tokens, and an explanation takes 1 to'),
        (('a' * 500,), 'tokens, and the model takes'),
        (('',), 'the source has 0 tokens'),
        (('abЖ',), 'is not in the vocabulary'),
    ],
)
def test_bad_texts_are_refused_in_one_line(run, texts, message):
    with pytest.raises(UserError, match=message):
        run.explain(*texts)
