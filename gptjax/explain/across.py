"""The same text at several checkpoints: what the model learnt to expect, and when."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from gptjax.explain.predictions import softmax
from gptjax.models.bigram import Bigram
from gptjax.models.decoder import Decoder

LISTED = 5  # tokens that are named at each place


@dataclasses.dataclass(frozen=True)
class Moment:
    """The predictions of one checkpoint; place t is about token t + 1."""

    step: int
    loss: float  # of the text, nats a token
    probability_T: np.ndarray  # of the token that followed
    rank_T: np.ndarray  # of it; 1 is the likeliest
    ids_TK: np.ndarray  # the likeliest tokens
    probs_TK: np.ndarray


def across(
    model: Decoder | Bigram, checkpoints: Iterable[tuple[int, Any]], tokens_T: np.ndarray
) -> list[Moment]:
    """The predictions of each checkpoint, given as (step, variables)."""

    @jax.jit
    def run(variables: dict) -> jax.Array:
        return model.apply(variables, tokens_T[None, :-1])[0][0][:, : model.vocab_size]

    found, follows_T1 = [], tokens_T[1:, None]
    for step, variables in checkpoints:
        probs_TV = softmax(np.asarray(run(variables), np.float32))
        probs_T1 = np.take_along_axis(probs_TV, follows_T1, -1)
        ids_TK = np.argsort(-probs_TV, axis=-1, kind='stable')[:, :LISTED]
        found.append(
            Moment(
                step,
                -float(np.log(probs_T1).mean()),
                probs_T1[:, 0],
                1 + np.sum(probs_TV > probs_T1, -1),
                ids_TK,
                np.take_along_axis(probs_TV, ids_TK, -1),
            )
        )
    return found
