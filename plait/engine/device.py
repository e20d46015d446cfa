"""Where tiles are computed: the CPU on numpy arrays, or a torch device. Both give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from plait.dtypes import DTYPES
from plait.errors import PlaitError
from plait.ops.codec import decode, decode_delta, encode
from plait.ops.scratch import empty
from plait.planning.memory import BATCH, TILE

__all__ = ["Cpu", "Device", "Raw", "device_named"]

Raw = npt.NDArray[np.uint8]


class Device(Protocol):
    """What the engine asks of a device. `[k, n]` stacks, float32 or float64 by `wide`."""

    tile: int
    """Elements a tile should have."""
    batch: int
    """Elements to read and write at a time: some tiles."""

    def stack(
        self, raws: Sequence[tuple[Raw, str]], base: tuple[Raw, str] | None, *, wide: bool
    ) -> tuple[Any, Any, list[bool]]:
        """Return the stack (differences when there is a base), the base, and which of them (base last) are finite."""

    def encode(self, values: Any, dtype: str, base: Any, out: Raw) -> bool:
        """Write values (plus base) to `out`, rounded once; return whether all are finite."""

    def numbers(self, values: npt.NDArray[Any], like: Any) -> Any:
        """Return per-model numbers where the stack `like` lives."""


class Cpu:
    """Numba on cache-sized tiles."""

    tile = TILE
    batch = BATCH

    def stack(
        self, raws: Sequence[tuple[Raw, str]], base: tuple[Raw, str] | None, *, wide: bool
    ) -> tuple[Any, Any, list[bool]]:
        """See `Device.stack`."""
        kind = np.float64 if wide else np.float32
        first = raws[0] if raws else base
        if first is None:
            raise AssertionError("a step has an input")
        count = first[0].nbytes // _size(first[1])
        finite, origin = [], None
        if base is not None:
            origin = empty((count,), kind)
            finite.append(decode(*base, origin))
        stack = empty((len(raws), count), kind)
        for row, (raw, dtype) in zip(stack, raws, strict=True):
            good = decode(raw, dtype, row) if origin is None else decode_delta(raw, dtype, origin, row)
            finite.insert(len(finite) - (base is not None), good)
        return stack, origin, finite

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

    def stack(
        self, raws: Sequence[tuple[Raw, str]], base: tuple[Raw, str] | None, *, wide: bool
    ) -> tuple[Any, Any, list[bool]]:
        """See `Device.stack`."""
        import torch  # noqa: PLC0415 - an extra

        kind = torch.float64 if wide else torch.float32
        everything = [*raws, *([base] if base else [])]
        count = everything[0][0].nbytes // _size(everything[0][1])
        stack = torch.empty((len(raws), count), dtype=kind, device=self.name)
        origin, finite = None, []
        if base is not None:
            origin = torch.empty(count, dtype=kind, device=self.name)
            finite.append(decode(self._move(base[0]), base[1], origin))
        goods = []
        for row, (raw, dtype) in zip(stack, raws, strict=True):
            moved = self._move(raw)
            goods.append(decode(moved, dtype, row) if origin is None else decode_delta(moved, dtype, origin, row))
        return stack, origin, goods + finite

    def _move(self, raw: Raw) -> Any:
        import torch  # noqa: PLC0415 - an extra

        return torch.from_numpy(raw).to(self.name)

    def encode(self, values: Any, dtype: str, base: Any, out: Raw) -> bool:
        """See `Device.encode`."""
        import torch  # noqa: PLC0415 - an extra

        written = torch.empty(out.nbytes, dtype=torch.uint8, device=self.name)
        flat = values.reshape(-1)
        finite = encode(flat, dtype, written, base.to(flat.dtype) if base is not None else None)
        torch.from_numpy(out).copy_(written)
        return finite

    def numbers(self, values: npt.NDArray[Any], like: Any) -> Any:
        """Move per-model numbers to the device."""
        return like.new_tensor(values, dtype=None) if values.dtype == np.float32 else _tensor(values, like)


def _tensor(values: npt.NDArray[Any], like: Any) -> Any:
    import torch  # noqa: PLC0415 - an extra

    return torch.as_tensor(values, device=like.device)


def _size(dtype: str) -> int:
    return DTYPES[dtype].size


def device_named(name: str) -> Device:
    """Return the device of that name: "cpu", or any that torch knows ("cuda", "cuda:1", "torch:cpu").

    Raises PlaitError when torch is not installed or has no such device.
    """
    if name == "cpu":
        return Cpu()
    try:
        import torch  # noqa: PLC0415 - an extra
    except ImportError:
        raise PlaitError(f"--device {name} needs torch. Install it: pip install 'plait[torch]'.") from None
    wanted = name.removeprefix("torch:")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise PlaitError(f"--device {name}: torch sees no CUDA device. Use --device cpu.")
    try:
        torch.empty(1, device=wanted)
    except RuntimeError as error:
        raise PlaitError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return TorchDevice(wanted)
