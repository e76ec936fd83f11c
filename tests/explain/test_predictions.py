"""Probabilities over the whole vocabulary, before and after the rules, as sampling has them."""

import numpy as np
import pytest

from gptjax.explain.predictions import LISTED, outcomes, predict
from gptjax.generation.rules import Rules

LOGITS = np.random.default_rng(0).normal(size=(4, 40)).astype(np.float32) * 2
TOKENS = np.array([7, 3, 3, 12], np.int32)


def test_probabilities_are_the_softmax_over_all_tokens():
    found = predict(LOGITS, TOKENS, Rules())
    weights = np.exp(LOGITS.astype(np.float64))
    probs = weights / weights.sum(-1, keepdims=True)
    for t, prediction in enumerate(found):
        assert prediction.total == pytest.approx(1, abs=1e-12)
        assert prediction.ids == tuple(np.argsort(-probs[t])[:LISTED])
        np.testing.assert_allclose(prediction.probabilities, probs[t, list(prediction.ids)])
        np.testing.assert_allclose(prediction.sampled, prediction.probabilities, rtol=1e-5)
        assert prediction.entropy == pytest.approx(-np.sum(probs[t] * np.log2(probs[t])))
        assert not prediction.removed and set(prediction.removed_by) == {''}
    for t, outcome in enumerate(outcomes(LOGITS, TOKENS, Rules())):
        assert outcome.id == TOKENS[t + 1]
        assert outcome.probability == pytest.approx(probs[t, TOKENS[t + 1]])
        assert outcome.rank == 1 + np.argsort(-probs[t]).tolist().index(TOKENS[t + 1])


def test_each_removed_token_names_the_rule_that_removed_it():
    rules = Rules(top_k=6, top_p=0.7, min_p=0.5)
    for t, prediction in enumerate(predict(LOGITS, TOKENS, rules)):
        by = prediction.removed_by
        assert set(by[6:]) == {'top_k'}  # Only the six likeliest are left to the others.
        kept = [p for p, rule in zip(prediction.probabilities, by, strict=True) if not rule]
        np.testing.assert_allclose(
            [p for p in prediction.sampled if p], np.array(kept) / sum(kept), rtol=1e-5
        )
        assert by[0] == '' and all(p == 0 for p, r in zip(prediction.sampled, by, strict=True) if r)
        among_k = np.sort(np.exp(LOGITS[t].astype(np.float64)))[::-1][:6]
        before = np.cumsum(among_k / among_k.sum()) - among_k / among_k.sum()
        assert [rule == 'top_p' for rule in by[:6]] == (before >= 0.7).tolist()
        assert sum(prediction.removed.values()) == pytest.approx(1 - sum(kept))


def test_greedy_decoding_leaves_one_token_and_repetition_weakens_seen_ones():
    for prediction in predict(LOGITS, TOKENS, Rules(temperature=0.0)):
        assert prediction.sampled[0] == 1 and sum(prediction.sampled) == 1
        assert set(prediction.removed_by[1:]) == {'temperature=0'}
    logits = np.array([[1.0, 1.0, 0.9]], np.float32)
    (prediction,) = predict(logits, np.array([0]), Rules(repetition_penalty=2.0))
    assert dict(zip(prediction.ids, prediction.sampled, strict=True))[0] == min(prediction.sampled)
