"""The tokens that lie nearest to a token in the embedding table."""

import numpy as np

LISTED = 6


def neighbours(table_VD: np.ndarray, ids: list[int]) -> dict[int, list[tuple[int, float]]]:
    """For each token the nearest others by cosine: (id, cosine), nearest first."""
    lengths_V = np.linalg.norm(table_VD, axis=-1)
    table_VD = table_VD / np.maximum(lengths_V, 1e-12)[:, None]
    cosines_KV = table_VD[ids] @ table_VD.T
    cosines_KV[np.arange(len(ids)), ids] = -np.inf
    listed = min(LISTED, len(table_VD) - 1)
    nearest_KN = np.argsort(-cosines_KV, axis=-1, kind='stable')[:, :listed]
    return {
        token: [(int(other), float(cosines_V[other])) for other in nearest_N]
        for token, cosines_V, nearest_N in zip(ids, cosines_KV, nearest_KN, strict=True)
    }
