"""Many small reads in one call, without Python between them: rows of a table in another order, parts of every row.

Compiled by Numba, see `plait.checkpoint.loops`.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from plait.ops.on_cpu.jit import kernel

__all__ = ["read_pieces"]

_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.intp, types.uintp, types.int64))


@kernel
def read_pieces(fd: int, offsets: Any, places: Any, lengths: Any, out: Any) -> Any:
    """Read `lengths[i]` bytes of a file from `offsets[i]` on to `out` `[bytes]` from `places[i]` on; return how many were whole.

    It leaves off at the first that is cut short or refused: whoever reads that once more learns why.
    """
    start = out.ctypes.data
    for i in range(len(offsets)):
        done = 0
        while done < lengths[i]:
            got = _pread(fd, start + places[i] + done, lengths[i] - done, offsets[i] + done)
            if got <= 0:
                return i
            done += got
    return len(offsets)
