"""What a model expects after each token, over the whole vocabulary, before and after the rules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.generation import rules as logit_rules
from gptjax.generation.rules import RowRules, Rules

LISTED = 10  # tokens that are named at each position


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model expects at one position."""

    ids: tuple[int, ...]  # the likeliest tokens, likeliest first
    probabilities: tuple[float, ...]  # of these, in the softmax over the whole vocabulary
    sampled: tuple[float, ...]  # the same after the sampling rules; 0 if one removed the token
    removed_by: tuple[str, ...]  # the rule that removed each of them; empty if none did
    removed: dict[str, float]  # by each rule: the probability, before the rules, that it removed
    total: float  # of all probabilities: 1
    entropy: float  # bits


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The token that followed."""

    id: int
    probability: float
    rank: int  # 1 is the likeliest
    sampled: float  # its probability after the rules


def predict(logits_TV: np.ndarray, tokens_T: np.ndarray, rules: Rules) -> list[Prediction]:
    """The prediction after each token of a text."""
    probs_TV = softmax(logits_TV)
    stages = _after_each_rule(logits_TV, tokens_T, rules)
    sampled_TV = np.exp(stages[-1][1], dtype=np.float64)
    sampled_TV /= sampled_TV.sum(-1, keepdims=True)
    found = []
    for t, probs_V in enumerate(probs_TV):
        ids = np.argsort(-probs_V, kind='stable')[:LISTED]
        by = [''] * len(ids)
        removed: dict[str, float] = {}
        left_V = np.ones(len(probs_V), bool)
        for rule, logits in stages:
            gone_V = left_V & np.isneginf(logits[t])
            left_V &= ~gone_V
            if gone_V.any():
                removed[rule] = float(probs_V[gone_V].sum())
                by = [rule if gone_V[i] else old for i, old in zip(ids, by, strict=True)]
        found.append(
            Prediction(
                tuple(ids.tolist()),
                tuple(probs_V[ids].tolist()),
                tuple(sampled_TV[t, ids].tolist()),
                tuple(by),
                removed,
                float(probs_V.sum()),
                float(entropy_bits(probs_V)),
            )
        )
    return found


def outcomes(logits_TV: np.ndarray, tokens_T: np.ndarray, rules: Rules) -> list[Outcome]:
    """How likely each token of a text but the first was."""
    probs_TV = softmax(logits_TV[:-1])
    sampled_TV = np.exp(_after_each_rule(logits_TV, tokens_T, rules)[-1][1][:-1], dtype=np.float64)
    sampled_TV /= sampled_TV.sum(-1, keepdims=True)
    return [
        Outcome(
            int(token),
            float(probs_V[token]),
            1 + int(np.sum(probs_V > probs_V[token])),
            float(sampled_V[token]),
        )
        for token, probs_V, sampled_V in zip(tokens_T[1:], probs_TV, sampled_TV, strict=True)
    ]


def softmax(logits_TV: np.ndarray) -> np.ndarray:
    """Probabilities in float64, so that they sum to 1 to the last shown digit."""
    weights_TV = np.exp(logits_TV - logits_TV.max(-1, keepdims=True), dtype=np.float64)
    return weights_TV / weights_TV.sum(-1, keepdims=True)


def entropy_bits(probs_V: np.ndarray) -> np.ndarray:
    """The entropy over the last axis, in bits."""
    logs_V = np.log2(probs_V, out=np.zeros_like(probs_V), where=probs_V > 0)
    return -np.sum(probs_V * logs_V, axis=-1)


def _after_each_rule(
    logits_TV: np.ndarray, tokens_T: np.ndarray, rules: Rules
) -> list[tuple[str, np.ndarray]]:
    """The logits after each sampling rule, in the order of `rules.choose`; at least one stage."""
    rows = RowRules.of([rules] * len(tokens_T))
    seen_TV = np.zeros(logits_TV.shape, bool)
    for t in range(len(tokens_T)):
        seen_TV[t, tokens_T[: t + 1]] = True
    off = np.full(len(tokens_T), np.iinfo(np.int32).max, np.int32)
    x_TV = logit_rules.penalize_repetition(
        jnp.asarray(logits_TV), jnp.asarray(seen_TV), rows.repetition_penalty_B
    )
    x_TV = logit_rules.scaled(x_TV, rows.temperature_B)
    stages = [('repetition_penalty', x_TV)]
    if rules.top_k:
        stages.append(('top_k', logit_rules.truncate(x_TV, rows.top_k_B, np.ones(len(off)))))
    if rules.top_p < 1:
        stages.append(('top_p', logit_rules.truncate(stages[-1][1], off, rows.top_p_B)))
    if rules.min_p:
        stages.append(('min_p', logit_rules.min_p(stages[-1][1], rows.min_p_B)))
    if not rules.temperature:
        last_TV = stages[-1][1]
        is_best_TV = jnp.arange(last_TV.shape[1]) == jnp.argmax(last_TV, -1)[:, None]
        stages.append(('temperature=0', jnp.where(is_best_TV, last_TV, -jnp.inf)))
    return [(name, np.asarray(jax.device_get(x))) for name, x in stages]
