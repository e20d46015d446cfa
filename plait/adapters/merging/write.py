"""The files of a merged adapter."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plait.adapters.folder import CONFIG_NAME, Entry, write_text
from plait.adapters.merging.factors import Made
from plait.adapters.merging.modules import Joined
from plait.adapters.merging.plan import BASE_LAYER, NO_BASE, AdapterPlan
from plait.adapters.merging.report import card_of
from plait.adapters.merging.settings import adapter_config
from plait.adapters.merging.space import Matrix
from plait.adapters.report import ModuleRank
from plait.checkpoint import FileWriter, StoredTensor
from plait.checkpoint.adapters import read_adapter
from plait.checkpoint.adapters.names import sort_tensors
from plait.dtypes import DTYPES
from plait.errors import MergeError, OutputError
from plait.ops.codec import encode
from plait.output.files import RECIPE_NAME
from plait.output.lock import LOCK_NAME, lock_json
from plait.output.names import neutral_text

__all__ = ["Finished", "Scratch", "entries_of", "verify", "write_side_files"]

_PREFIX = "base_model.model."  # peft wraps the model twice


@dataclass
class Scratch:
    """Numbers go to a file as they are made, in any order; what is held does not grow with the adapter."""

    path: str
    dtype: str
    writer: FileWriter
    end: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, values: Matrix, shape: tuple[int, ...]) -> StoredTensor:
        """Write numbers in the element type of the factors, and tell where they lie.

        Raises:
            MergeError: the type cannot hold them.
        """
        raw = np.empty(values.size * DTYPES[self.dtype].size, np.uint8)
        if not encode(np.ascontiguousarray(values, np.float64), self.dtype, raw):
            raise MergeError(f"{name}: {DTYPES[self.dtype].name} cannot hold it. Choose a wider out_dtype.")
        with self.lock:
            place, self.end = self.end, self.end + raw.nbytes
        self.writer.write_at(self.path, place, raw)
        return StoredTensor(name, self.dtype, shape, self.path, place)


@dataclass(frozen=True, slots=True)
class Finished:
    """A module whose tensors lie in the scratch file."""

    rank: ModuleRank
    tensors: tuple[StoredTensor, ...]
    """Under peft's names."""

    @classmethod
    def of(cls, joined: Joined, made: Made, bias: Matrix | None, scratch: Scratch) -> Finished:
        """Put a module's factors, and its bias of B, into the scratch file."""
        letters = ("lora_embedding_A", "lora_embedding_B") if joined.embedding else ("lora_A.weight", "lora_B.weight")
        down, up = (f"{_PREFIX}{joined.name}.{letter}" for letter in letters)
        ones = joined.parts[0].up.shape[2:]
        tensors = [
            scratch.put(down, made.down, (made.rank, *joined.inputs)),
            scratch.put(up, made.up, (joined.outputs, made.rank, *ones)),
        ]
        if bias is not None:
            tensors.append(scratch.put(f"{_PREFIX}{joined.name}.lora_B.bias", bias, bias.shape))
        norm = float(np.sqrt(max(0.0, np.sum((made.up.T @ made.up) * (made.down @ made.down.T)))))
        whole = norm / np.sqrt(max(1e-300, 1 - made.error**2)) if made.error < 1 else norm
        shape = (joined.outputs, made.down.shape[1])
        return cls(ModuleRank(joined.name, shape, made.rank, made.error, float(whole)), tuple(tensors))


def entries_of(finished: Mapping[str, Finished], whole: Mapping[str, StoredTensor]) -> Iterator[Entry]:
    """Name every tensor of the file as peft does; a bias beside factors is its base layer's."""
    for one in finished.values():
        for tensor in one.tensors:
            yield Entry(tensor.name, tensor)
    for name, tensor in whole.items():
        module, _, last = name.rpartition(".")
        yield Entry(f"{_PREFIX}{module}.base_layer.{last}" if module in finished else _PREFIX + name, tensor)


def write_side_files(
    plan: AdapterPlan, folder: Path, out: Path, modules: tuple[ModuleRank, ...], hashes: Mapping[str, str]
) -> None:
    """Write all but the weights into `folder`, which will be renamed to `out`. Raises OutputError."""
    try:
        for name, path in plan.side_files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: cannot be written: {error.strerror}.") from error
    config = adapter_config(plan.settings, {one.module: one.rank for one in modules})
    read = tuple(model for model in plan.models if model.reference != str(NO_BASE))
    write_text(folder / CONFIG_NAME, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", card_of(plan, out.name, modules, read))
    write_text(folder / RECIPE_NAME, neutral_text(plan.recipe.text, read))
    write_text(folder / LOCK_NAME, lock_json(plan, hashes, out, 1 << 62))


def verify(plan: AdapterPlan, folder: Path, finished: Mapping[str, Finished]) -> None:
    """Open the written adapter as any reader would, and hold it against what was made.

    Raises:
        MergeError: naming what differs.
    """
    written = read_adapter(folder, str(folder))
    found = sort_tensors(written.file, written.tensors)
    wrong = sorted(found.modules.keys() ^ finished.keys())
    wrong += [
        module
        for module, lora in found.modules.items()
        if module in finished
        and (lora.parts["down"].shape[0] != written.settings.rank_of(module) or written.settings.scaling(module) != 1)
    ]
    names = {options[0] for _, options in found.whole.values()}
    wrong += sorted(names ^ {step.name.replace(BASE_LAYER, ".weight") for step in plan.whole})
    if wrong:
        raise MergeError(f"The adapter is not as it was made in {len(wrong)} places, such as {wrong[0]}.")
