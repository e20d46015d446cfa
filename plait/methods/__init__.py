"""Merge methods, one paper a file. Importing this package enters every module in it."""

from __future__ import annotations

import importlib
import pkgutil

from plait.methods.loading import load_methods
from plait.methods.method import Locality, Method, MethodError, find_method, method, method_names, post_step
from plait.methods.vocabulary import (
    Array,
    Coefficients,
    Deltas,
    DeltasGram,
    Density,
    Parameter,
    Random,
    Scale,
    Weight,
    Weights,
    WeightsGram,
)

__all__ = [
    "Array",
    "Coefficients",
    "Deltas",
    "DeltasGram",
    "Density",
    "Locality",
    "Method",
    "MethodError",
    "Parameter",
    "Random",
    "Scale",
    "Weight",
    "Weights",
    "WeightsGram",
    "find_method",
    "load_methods",
    "method",
    "method_names",
    "post_step",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
