"""What attention computed in a recorded pass, of any kind: self-attention or over a source."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RECORDED = ('__call__', 'queries', 'keys_values')  # the methods whose results are recorded


@dataclasses.dataclass(frozen=True)
class Heads:
    """The heads of one layer, float32; T are the queries' places, S the keys'."""

    weights_NTS: np.ndarray  # rows sum to 1
    value_norms_NS: np.ndarray  # length of what a head would add if it attended to a key alone
    q_NTH: np.ndarray  # after rotary positions and normalisation, if the model has them
    k_NSH: np.ndarray
    v_NSH: np.ndarray


@dataclasses.dataclass(frozen=True)
class Attention:
    """One kind of attention in all layers."""

    name: str
    layers: tuple[Heads, ...]
    rows: str = 'tokens'  # whose queries: 'tokens', the text that is predicted, or 'source'
    columns: str = 'tokens'  # whose keys

    @property
    def error(self) -> float:
        """How far the sum of a row of weights is from 1, at most."""
        return max(float(np.abs(layer.weights_NTS.sum(-1) - 1).max()) for layer in self.layers)


def heads_of(recorded: dict[str, Any], params: dict[str, Any]) -> dict[str, jax.Array]:
    """The fields of `Heads`, of what an attention module recorded with these parameters."""
    ((k_BNSH, v_BNSH),) = recorded['keys_values']
    written_NSD = jnp.einsum('NSH,NHD->NSD', v_BNSH[0], params['out']['kernel'])
    return {
        'weights_NTS': recorded['weights_BNTS'][0][0],
        'value_norms_NS': jnp.linalg.norm(written_NSD, axis=-1),
        'q_NTH': recorded['queries'][0][0],
        'k_NSH': k_BNSH[0],
        'v_NSH': v_BNSH[0],
    }
