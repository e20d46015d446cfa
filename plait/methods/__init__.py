"""Merge methods, one paper a file. Importing this package enters every module in it."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from importlib.metadata import entry_points

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


def load_methods(files: Sequence[str]) -> None:
    """Enter the methods in Python files of the user's own, and those of installed packages (group `plait.methods`).

    Raises:
        MethodError: a file cannot be run, or declares a name that is taken.
    """
    for point in entry_points(group="plait.methods"):
        point.load()
    for number, file in enumerate(files):
        spec = importlib.util.spec_from_file_location(f"plait_user_methods_{number}", file)
        if spec is None or spec.loader is None:
            raise MethodError(f"{file} is not a Python file.")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except MethodError:
            raise
        except Exception as error:
            raise MethodError(f"{file}: {type(error).__name__}: {error}") from error
