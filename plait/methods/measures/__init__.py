"""Statistics that a method needs before its first tile: gathered tile by tile, exact, in any order.

Each measure is fed the stack of every tile, once a pass. What it returns does not depend on tiles, threads or
device: counts are integers, and sums run over fixed blocks and are then added without rounding (`math.fsum`).
"""

from __future__ import annotations

from plait.methods.measures.gram import Gram
from plait.methods.measures.kept import KeptNorm, kept_norm
from plait.methods.measures.magnitude import MagnitudeThreshold, Threshold, magnitude_threshold
from plait.methods.measures.measure import SAMPLE, ExactSums, Measure
from plait.methods.measures.one_pass import Extremes, Sums, extremes, summed
from plait.methods.measures.quantile import Quantiles, signed_quantile
from plait.methods.measures.seen import Of, Seen
from plait.methods.measures.several import Several

__all__ = [
    "SAMPLE",
    "ExactSums",
    "Extremes",
    "Gram",
    "KeptNorm",
    "MagnitudeThreshold",
    "Measure",
    "Of",
    "Quantiles",
    "Seen",
    "Several",
    "Sums",
    "Threshold",
    "extremes",
    "kept_norm",
    "magnitude_threshold",
    "signed_quantile",
    "summed",
]
