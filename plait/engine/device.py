"""Where tiles are computed: the CPU on numpy arrays, or a torch device. Both give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from plait.checkpoint.elements import store
from plait.dtypes import DTYPES
from plait.errors import ArgumentError
from plait.ops.codec import decode, decode_delta, encode
from plait.ops.fusing import Grid, Program, grid_can, merge_grid
from plait.ops.rng import Memory
from plait.ops.scratch import empty
from plait.planning.memory import BATCH, TILE

__all__ = ["Batch", "Cpu", "Device", "Raw", "device_named"]

Raw = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
    """Raw bytes of a run of elements of every input of a step, the base last if there is one."""

    rows: Sequence[Raw]
    dtypes: Sequence[str]
    has_base: bool
    grid: Grid | None = None
    """All rows as one array `[rows, bytes]`, where they have one element type."""

    def cut(self, low: int, high: int) -> Batch:
        """Return elements [low, high) of the batch, row by row."""
        parts = [row[low * _size(d) : high * _size(d)] for row, d in zip(self.rows, self.dtypes, strict=True)]
        return Batch(parts, self.dtypes, self.has_base)


class Device(Protocol):
    """What the engine asks of a device. `[k, n]` stacks, float32 or float64 by `wide`."""

    tile: int
    """Elements a tile should have."""
    batch: int
    """Elements to read and write at a time: some tiles."""

    def stack(self, batch: Batch, low: int, high: int, *, wide: bool) -> tuple[Any, Any, list[bool]]:
        """Return elements [low, high) as a stack (differences when there is a base), the base, and which rows are finite."""

    def merge(
        self, batch: Batch, program: Program, dtype: str, start: int, out: Raw, memory: Memory | None = None
    ) -> bool:
        """Run a program over the whole batch, whose first element is `start`, in one call; false where it cannot."""

    def encode(self, values: Any, dtype: str, base: Any, out: Raw) -> bool:
        """Write values (plus base) to `out`, rounded once; return whether all are finite."""

    def numbers(self, values: npt.NDArray[Any], like: Any) -> Any:
        """Return per-model numbers where the stack `like` lives."""


class Cpu:
    """Numba on cache-sized tiles."""

    tile = TILE
    batch = BATCH

    def stack(self, batch: Batch, low: int, high: int, *, wide: bool) -> tuple[Any, Any, list[bool]]:
        """See `Device.stack`."""
        kind = np.float64 if wide else np.float32
        part = batch.cut(low, high)
        models = len(part.rows) - batch.has_base
        origin, finite = None, []
        if batch.has_base:
            origin = empty((high - low,), kind)
            finite.append(decode(part.rows[-1], part.dtypes[-1], origin))
        stack = empty((models, high - low), kind)
        good = []
        for row, raw, dtype in zip(stack, part.rows, part.dtypes, strict=False):
            good.append(decode(raw, dtype, row) if origin is None else decode_delta(raw, dtype, origin, row))
        return stack, origin, good + finite

    def merge(
        self, batch: Batch, program: Program, dtype: str, start: int, out: Raw, memory: Memory | None = None
    ) -> bool:
        """See `Device.merge`."""
        if batch.grid is None or not grid_can(set(batch.dtypes), len(batch.rows)):
            return False
        if batch.dtypes[0] == "F32" and dtype in {"BF16", "F16"}:
            wide = empty((2 * out.size,), np.uint8)
            done = merge_grid(program, batch.grid, "F32", start, wide, has_base=batch.has_base, memory=memory)
            return done and store(wide.view(np.float32), dtype, out)
        if batch.dtypes[0] != dtype:
            return False
        return merge_grid(program, batch.grid, dtype, start, out, has_base=batch.has_base, memory=memory)

    def encode(self, values: Any, dtype: str, base: Any, out: Raw) -> bool:
        """See `Device.encode`."""
        flat = np.ascontiguousarray(values).reshape(-1)
        if base is not None and flat.dtype != base.dtype:
            base = base.astype(flat.dtype)
        return encode(flat, dtype, out, base)

    def numbers(self, values: npt.NDArray[Any], like: Any) -> Any:  # noqa: ARG002 - a device's signature
        """Numbers stay where they are."""
        return values


@dataclass
class TorchDevice:
    """A torch device: large tiles, one transfer in and one out."""

    name: str
    tile: int = 1 << 22
    batch: int = 1 << 22

    def stack(self, batch: Batch, low: int, high: int, *, wide: bool) -> tuple[Any, Any, list[bool]]:
        """See `Device.stack`."""
        import torch

        kind = torch.float64 if wide else torch.float32
        part = batch.cut(low, high)
        models = len(part.rows) - batch.has_base
        stack = torch.empty((models, high - low), dtype=kind, device=self.name)
        origin, finite = None, []
        if batch.has_base:
            origin = torch.empty(high - low, dtype=kind, device=self.name)
            finite.append(decode(self._move(part.rows[-1]), part.dtypes[-1], origin))
        goods = []
        for row, raw, dtype in zip(stack, part.rows, part.dtypes, strict=False):
            moved = self._move(raw)
            goods.append(decode(moved, dtype, row) if origin is None else decode_delta(moved, dtype, origin, row))
        return stack, origin, goods + finite

    def _move(self, raw: Raw) -> Any:
        import torch

        return torch.from_numpy(raw).to(self.name)

    def merge(self, *_: Any) -> bool:
        """Work tile by tile, always."""
        return False

    def encode(self, values: Any, dtype: str, base: Any, out: Raw) -> bool:
        """See `Device.encode`."""
        import torch

        written = torch.empty(out.nbytes, dtype=torch.uint8, device=self.name)
        flat = values.reshape(-1)
        finite = encode(flat, dtype, written, base.to(flat.dtype) if base is not None else None)
        torch.from_numpy(out).copy_(written)
        return finite

    def numbers(self, values: npt.NDArray[Any], like: Any) -> Any:
        """Move per-model numbers to the device."""
        return _tensor(values, like)


def _tensor(values: npt.NDArray[Any], like: Any) -> Any:
    import torch

    return torch.as_tensor(values, device=like.device)


def _size(dtype: str) -> int:
    return DTYPES[dtype].size


def device_named(name: str) -> Device:
    """Return the device of that name: "cpu", or any that torch knows ("cuda", "cuda:1", "torch:cpu").

    Raises ArgumentError when torch is not installed or has no such device.
    """
    if name == "cpu":
        return Cpu()
    try:
        import torch
    except ImportError:
        raise ArgumentError(f"--device {name} needs torch. Install it: pip install 'plait[torch]'.") from None
    wanted = name.removeprefix("torch:")
    try:
        kind = torch.device(wanted).type
    except RuntimeError:
        message = (
            f"--device {name}: torch knows no such device. Use cpu, or one that torch has, such as cuda or cuda:1."
        )
        raise ArgumentError(message) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"--device {name}: torch sees no CUDA device. Use --device cpu.")
    try:
        torch.empty(1, device=wanted).tolist()
    except (RuntimeError, AssertionError) as error:  # which one depends on the kind of device
        why = str(error).partition("\n")[0].partition(". ")[0].rstrip(".!")
        raise ArgumentError(f"--device {name}: torch cannot use it here: {why}.") from None
    return TorchDevice(wanted)
