"""The quantised weights of a checkpoint, found by the names and shapes of what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.dequantise.forms import Awq, Bnb4, Gptq, Mxfp4, Packed, Scaled
from plait.checkpoint.dequantise.settings import Settings
from plait.checkpoint.dequantise.strips import Direct, StripForm
from plait.checkpoint.io import FileReader
from plait.checkpoint.types import StoredTensor

__all__ = ["Search"]


class _UnreadError(Exception):
    """Why one weight cannot be read."""


@dataclass
class Search:
    """Goes through the tensors of a checkpoint, once for every format."""

    tensors: Mapping[str, StoredTensor]
    settings: Settings
    reader: FileReader
    made: dict[str, StoredTensor] = field(default_factory=dict)
    absorbed: dict[str, str] = field(default_factory=dict)
    """Name of a tensor that is read into a weight -> that weight's name."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """Why -> names of weights."""

    def run(self) -> None:
        """Find all weights."""
        for name, tensor in self.tensors.items():
            for suffix, find in _FINDERS.items():
                if name.endswith(suffix):
                    try:
                        find(self, name.removesuffix(suffix), tensor)
                    except _UnreadError as error:
                        self.problems.setdefault(str(error), []).append(name)

    def take(self, name: str, shape: tuple[int, ...], form: StripForm) -> None:
        """Enter a weight."""
        chief = form.parts[0]
        dtype = self.settings.dtype
        derived = Direct(form, shape, dtype)
        self.made[name] = StoredTensor(name, dtype, shape, chief.file, chief.offset, derived=derived)
        self.absorbed |= {part.name: name for part in form.parts}

    def need(self, name: str) -> StoredTensor:
        """Return a tensor that must be there."""
        if name not in self.tensors:
            raise _UnreadError(f"there is no *.{name.rpartition('.')[2]} beside it")
        return self.tensors[name]

    def bytes_of(self, tensor: StoredTensor) -> npt.NDArray[np.uint8]:
        """Read a tensor that says how others are laid out."""
        raw = np.empty(tensor.nbytes, np.uint8)
        self.reader.read_elements(tensor, 0, raw)
        return raw


def _scaled(search: Search, name: str, scale: StoredTensor, *, inverse: bool = False) -> None:
    """FP8 and int8 with scales: `x.weight` and `x.weight_scale`, or `_scale_inv` (which is multiplied by all the same)."""
    weight = search.tensors.get(name)
    if weight is None or weight.dtype not in {"F8_E4M3", "F8_E5M2", "I8"}:
        return  # a scale of something else: what remains is looked through at the end
    if weight.dtype == "I8" and (inverse or search.settings.method != "compressed-tensors"):
        raise _UnreadError("8-bit integers with a scale are read from compressed-tensors only")
    block = _block_of(weight, scale, search.settings.block)
    zero = search.tensors.get(f"{name}_zero_point")
    if zero is not None and zero.size != scale.size:
        raise _UnreadError("there are not as many zero points as scales")
    search.take(name, weight.shape, Scaled(weight, scale, block, zero))


def _block_of(weight: StoredTensor, scale: StoredTensor, stated: tuple[int | None, int | None]) -> tuple[int, int]:
    """Find how many rows and columns of a matrix share a scale."""
    told = f"scales of shape {list(scale.shape)} do not fit weights of shape {list(weight.shape)}"
    if len(weight.shape) not in {2, 3}:
        raise _UnreadError(told)
    rows, columns = weight.shape[-2:]
    grid = scale.shape
    if len(weight.shape) == 3:
        if not grid or grid[0] != weight.shape[0]:
            raise _UnreadError(told)
        grid = grid[1:]
    elif len(grid) == 1 and grid[0] == rows:
        grid = (rows, 1)
    if all(length == 1 for length in grid):
        grid = (1, 1)
    if len(grid) != 2:
        raise _UnreadError(told)
    found = _share(rows, grid[0], stated[0]), _share(columns, grid[1], stated[1])
    if found[0] is None or found[1] is None:
        raise _UnreadError(told)
    return found[0], found[1]


def _share(length: int, count: int, stated: int | None) -> int | None:
    """How many of `length` one of `count` scales has: as the config says, else 128, else what divides evenly."""
    if count in {1, length}:
        return length // max(1, count)
    for size in (stated, 128):
        if size and -(-length // size) == count:
            return size
    return length // count if count and length % count == 0 else None


def _packed(search: Search, stem: str, packed: StoredTensor) -> None:
    """compressed-tensors' pack-quantized."""
    scale, shape = search.need(f"{stem}.weight_scale"), search.need(f"{stem}.weight_shape")
    if packed.dtype != "I32" or len(packed.shape) != 2 or shape.dtype not in {"I64", "I32"} or shape.size != 2:
        raise _UnreadError("only matrices packed into 32-bit words are read")
    rows, columns = (int(n) for n in search.bytes_of(shape).view("<i8" if shape.dtype == "I64" else "<i4"))
    bits = next((b for b in (4, 8) if -(-columns * b // 32) == packed.shape[1]), 0)
    if rows != packed.shape[0] or not bits:
        raise _UnreadError(
            f"words of shape {list(packed.shape)} are not 4 or 8 bits for each of {rows} × {columns} weights"
        )
    if scale.size % rows:
        raise _UnreadError("the scales do not fit the rows")
    groups = scale.size // rows
    group = _share(columns, groups, search.settings.block[1])
    zero = search.tensors.get(f"{stem}.weight_zero_point")
    if group is None or (zero is not None and not _zeros_fit(zero, rows, groups, bits)):
        raise _UnreadError("scales or zero points do not fit the weights")
    index = search.tensors.get(f"{stem}.weight_g_idx")
    if index is not None and (index.dtype != "I32" or index.size != columns):
        raise _UnreadError("weight_g_idx does not fit the weights")
    search.take(f"{stem}.weight", (rows, columns), Packed(packed, scale, columns, bits, group, zero, index, shape))


def _zeros_fit(zero: StoredTensor, rows: int, groups: int, bits: int) -> bool:
    if zero.dtype == "I8":
        return zero.size == rows * groups
    return zero.dtype == "I32" and zero.shape == (-(-rows * bits // 32), groups)


def _columnwise(search: Search, stem: str, words: StoredTensor) -> None:
    """GPTQ and AWQ, told apart by the shape of the words: eight outputs a word, or one."""
    zeros, scales = search.need(f"{stem}.qzeros"), search.need(f"{stem}.scales")
    if words.dtype != "I32" or zeros.dtype != "I32" or {len(t.shape) for t in (words, zeros, scales)} != {2}:
        raise _UnreadError("only matrices packed into 32-bit words are read")
    groups, outputs = scales.shape
    if zeros.shape[0] != groups or not groups:
        raise _UnreadError("there are not as many zero points as scales")
    if words.shape[1] == outputs:
        _gptq(search, stem, (words, zeros, scales))
    else:
        _awq(search, stem, (words, zeros, scales))


def _gptq(search: Search, stem: str, parts: tuple[StoredTensor, StoredTensor, StoredTensor]) -> None:
    words, zeros, scales = parts
    if search.settings.method != "gptq":
        raise _UnreadError("GPTQ's zero points need a config that says quant_method gptq")
    index = search.tensors.get(f"{stem}.g_idx")
    groups, outputs = scales.shape
    bits = 32 * zeros.shape[1] // outputs
    if bits not in {2, 4, 8} or zeros.shape[1] * 32 != bits * outputs:
        raise _UnreadError("only 2, 4 or 8 bits are read")
    inputs = words.shape[0] * 32 // bits
    group = _share(inputs, groups, search.settings.block[1])
    if group is None or (index is not None and (index.dtype != "I32" or index.size != inputs)):
        raise _UnreadError("the groups do not fit the weights")
    first = search.settings.options.get("checkpoint_format") in {None, "gptq"}
    form = Gptq(words, zeros, scales, bits, group, inputs, index, off_by_one=first)
    search.take(f"{stem}.weight", (outputs, inputs), form)


def _awq(search: Search, stem: str, parts: tuple[StoredTensor, StoredTensor, StoredTensor]) -> None:
    words, zeros, scales = parts
    inputs, outputs = words.shape[0], scales.shape[1]
    group = _share(inputs, scales.shape[0], search.settings.block[1])
    if not words.shape[1] * 8 == zeros.shape[1] * 8 == outputs or group is None:
        raise _UnreadError("only AWQ's 4-bit GEMM layout is read")
    search.take(f"{stem}.weight", (outputs, inputs), Awq(words, zeros, scales, group))


def _mxfp4(search: Search, name: str, blocks: StoredTensor) -> None:
    """MXFP4 as GPT-OSS lays out its experts."""
    scales = search.tensors.get(f"{name}_scales")
    if scales is None or blocks.dtype != "U8" or scales.dtype not in {"U8", "F8_E8M0"}:
        return
    if len(blocks.shape) != 4 or blocks.shape[3] != 16 or scales.shape != blocks.shape[:3]:
        raise _UnreadError("only experts with 16 bytes for 32 weights are read")
    experts, outputs, groups, _ = blocks.shape
    search.take(name, (experts, groups * 32, outputs), Mxfp4(blocks, scales))


def _bnb4(search: Search, name: str, scale: StoredTensor) -> None:
    """bitsandbytes nf4 and fp4."""
    codes, table = search.need(name), search.need(f"{name}.quant_map")
    states = [f"{name}.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4")]
    state = next((search.tensors[one] for one in states if one in search.tensors), None)
    if state is None:
        raise _UnreadError("there is no quant_state of nf4 or fp4 beside it")
    said = _json_of(search, state)
    shape, block = said.get("shape"), said.get("blocksize")
    if not isinstance(shape, list) or len(shape) < 1 or not all(isinstance(n, int) for n in shape) or not block:
        raise _UnreadError("its quant_state has no shape or blocksize")
    count = int(np.prod(shape))
    if codes.strides is not None or codes.nbytes != -(-count // 2) or scale.size != -(-count // int(block)):
        raise _UnreadError("codes or scales do not fit the shape in quant_state")
    nested = search.tensors.get(f"{name}.nested_absmax")
    form = Bnb4(codes, scale, table, int(block), state)
    if scale.dtype == "U8":
        if nested is None:
            raise _UnreadError("absmax is in 8 bits, but there is no nested_absmax")
        values = search.need(f"{name}.nested_quant_map")
        more = int(said.get("nested_blocksize") or 256), float(said.get("nested_offset") or 0.0)
        form = Bnb4(codes, scale, table, int(block), state, nested, values, *more)
    search.take(name, tuple(shape), form)


def _json_of(search: Search, state: StoredTensor) -> Mapping[str, Any]:
    try:
        said = json.loads(search.bytes_of(state).tobytes())
    except ValueError as error:
        raise _UnreadError("its quant_state is no JSON") from error
    return said if isinstance(said, dict) else {}


def _bnb8(search: Search, stem: str, scale: StoredTensor) -> None:
    """bitsandbytes int8: q · SCB / 127, SCB the largest magnitude of each row."""
    weight, layout = search.need(f"{stem}weight"), search.tensors.get(f"{stem}weight_format")
    if weight.dtype != "I8" or len(weight.shape) != 2 or scale.size != weight.shape[0]:
        raise _UnreadError("only 8-bit integers with one scale a row are read")
    if layout is not None and search.bytes_of(layout).any():
        raise _UnreadError("its weight_format is not that of rows in order")
    search.take(weight.name, weight.shape, Scaled(weight, scale, (1, weight.shape[1]), by=1 / 127))
    if layout is not None:
        search.absorbed[layout.name] = weight.name


_FINDERS: dict[str, Callable[[Search, str, StoredTensor], None]] = {
    "_scale_inv": lambda search, name, tensor: _scaled(search, name, tensor, inverse=True),
    "_scale": _scaled,
    ".weight_packed": _packed,
    ".qweight": _columnwise,
    "_blocks": _mxfp4,
    ".absmax": _bnb4,
    "SCB": _bnb8,
}
