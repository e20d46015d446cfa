"""Arcee Fusion: only the base's most important differences are taken over."""

from __future__ import annotations

import numpy as np

from plait.methods.method import method
from plait.methods.vocabulary import Array, Weights

__all__ = ["arcee_fusion"]


@method(
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    locality="matrix",
    base="first",
    min_models=2,
    max_models=2,
)
def arcee_fusion(weights: Weights) -> Array:
    """Take the model's entries where importance |δ|·KL ≥ median + 1.5·IQR, the base's elsewhere. `[2, *shape] -> [*shape]`.

    KL is the divergence of softmax(row of the model) from softmax(row of the base), one number a row. Quantiles are
    exact (linear interpolation) over the whole tensor, so the same tensor always gives the same answer.

    Use it for two models where only the clearest changes should come over and the rest of the base should stay.
    """
    host = weights if isinstance(weights, np.ndarray) else weights.detach().cpu().numpy()
    if host.size == 0:
        return weights[1]
    pair = host.reshape(2, -1, host.shape[-1] if host.ndim > 1 else 1).astype(np.float64)
    base, model = pair
    log_base, log_model = (row - _logsumexp(row) for row in (base, model))
    divergence = (np.exp(log_model) * (log_model - log_base)).sum(axis=-1, keepdims=True)
    importance = np.abs(model - base) * np.abs(divergence)
    low, median, high = np.quantile(importance, [0.25, 0.5, 0.75])
    chosen = (importance >= median + 1.5 * (high - low)).reshape(host.shape[1:])
    fused = np.where(chosen, host[1], host[0])
    return fused if isinstance(weights, np.ndarray) else weights.new_tensor(fused)


def _logsumexp(rows: Array) -> Array:
    top = rows.max(axis=-1, keepdims=True)
    return top + np.log(np.exp(rows - top).sum(axis=-1, keepdims=True))
