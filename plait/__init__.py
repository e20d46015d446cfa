"""plait merges neural-network checkpoints in weight space.

`plait.plan("recipe.yml")` says everything that will happen, from headers alone; `plait.merge("recipe.yml", "out")` does
it; `plait.merge_tensors([a, b], "linear", weight=[0.5, 0.5])` merges arrays or torch tensors in memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.adapters.report import Extraction
    from plait.api import explain, export_gguf, extract, inspect, kinship, load, merge, merge_tensors, plan, tokens
    from plait.checkpoint.types import Checkpoint, StoredTensor
    from plait.engine.kinship import Kinship
    from plait.engine.push import push
    from plait.engine.run import Event, MergeResult
    from plait.errors import ArgumentError, CheckpointError, MergeError, OutputError, PlaitError, RecipeError
    from plait.export.writing import Exported
    from plait.hub.push import Pushed
    from plait.planning.types import Plan

__version__ = "0.1.0"

_HOMES = {
    "plait.api": (
        "explain",
        "export_gguf",
        "extract",
        "inspect",
        "kinship",
        "load",
        "merge",
        "merge_tensors",
        "plan",
        "tokens",
    ),
    "plait.checkpoint.types": ("Checkpoint", "StoredTensor"),
    "plait.engine.kinship": ("Kinship",),
    "plait.engine.run": ("Event", "MergeResult"),
    "plait.export.writing": ("Exported",),
    "plait.errors": ("ArgumentError", "CheckpointError", "MergeError", "OutputError", "PlaitError", "RecipeError"),
    "plait.adapters.report": ("Extraction",),
    "plait.engine.push": ("push",),
    "plait.hub.push": ("Pushed",),
    "plait.planning.types": ("Plan",),
}

__all__ = [
    "ArgumentError",
    "Checkpoint",
    "CheckpointError",
    "Event",
    "Exported",
    "Extraction",
    "Kinship",
    "MergeError",
    "MergeResult",
    "OutputError",
    "PlaitError",
    "Plan",
    "Pushed",
    "RecipeError",
    "StoredTensor",
    "__version__",
    "explain",
    "export_gguf",
    "extract",
    "inspect",
    "kinship",
    "load",
    "merge",
    "merge_tensors",
    "plan",
    "push",
    "tokens",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import plait` costs nothing."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'plait' has no attribute {name!r}")
