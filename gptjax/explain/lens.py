"""What each layer would predict, were it the last one: the logit lens."""

import dataclasses
import functools

import jax
import numpy as np

from gptjax.explain.predictions import entropy_bits, softmax
from gptjax.explain.trace import Trace, head_logits
from gptjax.models.decoder import Decoder

LISTED = 3  # tokens that are named at each layer and position


@dataclasses.dataclass(frozen=True)
class Reading:
    """The predictions of one layer at all positions."""

    ids_TK: np.ndarray  # the likeliest tokens
    probs_TK: np.ndarray
    entropy_T: np.ndarray  # bits
    divergence_T: np.ndarray  # bits, of the final prediction from this one (KL)
    ranks_T: np.ndarray  # of the final prediction's likeliest token; 1: this layer has it first


def read_layers(model: Decoder, variables: dict, trace: Trace) -> tuple[list[Reading], float]:
    """The reading after the embeddings and after each block; the final norm is computed for each.

    Also the largest difference between the last reading's logits and the model's own: 0.
    """
    read = jax.jit(functools.partial(head_logits, model))
    final_TV = softmax(trace.logits_TV)
    best_T = final_TV.argmax(-1)
    readings, logits_TV = [], trace.logits_TV
    for x_TD in trace.stream_LTD:
        logits_TV = np.asarray(read(variables, x_TD))
        probs_TV = softmax(logits_TV)
        ids_TK = np.argsort(-probs_TV, axis=-1, kind='stable')[:, :LISTED]
        at_best_T1 = np.take_along_axis(probs_TV, best_T[:, None], -1)
        cross_T = -np.sum(final_TV * np.log2(np.maximum(probs_TV, 1e-300)), -1)
        readings.append(
            Reading(
                ids_TK,
                np.take_along_axis(probs_TV, ids_TK, -1),
                entropy_bits(probs_TV),
                np.maximum(cross_T - entropy_bits(final_TV), 0),
                1 + np.sum(probs_TV > at_best_T1, -1),
            )
        )
    return readings, float(np.abs(logits_TV - trace.logits_TV).max())
