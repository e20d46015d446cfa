"""VaRM, variation ratio merge: the merge of FuseChat. Wan et al. 2024, section 3.3."""

from __future__ import annotations

import numpy as np

from plait.methods.method import method
from plait.methods.vocabulary import Coefficients, DeltasGram, Scale

__all__ = ["varm"]


@method(paper="https://arxiv.org/abs/2402.16107", locality="span")
def varm(gram: DeltasGram, *, scale: Scale = 1.0) -> Coefficients:
    """Average the models, tensor by tensor, by how much fine-tuning changed them: wᵢ = E[δᵢ²] / Σ E[δⱼ²].

    E is the mean over the tensor's entries, so a weight is the share of the squared lengths, as MetaGPT's is over the
    whole model. The official code takes equal weights for a tensor that some model has not changed; here, as by the
    formula, that model has weight 0. The factor `scale` on the merged delta is not in the paper, and 1.

    Use it where models have changed different parts: each tensor leans to the models that changed it most.
    """
    squares = np.diag(gram)
    return scale * squares / squares.sum() if squares.any() else np.zeros(len(squares))
