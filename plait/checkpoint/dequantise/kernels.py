"""Quantised numbers to float32, tile by tile. Rows of a tile are rows of the weight, `[out, in]` as torch's Linear has it.

Compiled by Numba at first use; imported only where weights are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import kernel

__all__ = ["look_up", "scale_blocks", "unpack_columns", "unpack_groups", "unpack_interleaved", "unpack_mxfp4"]

f32 = np.float32
_RUN = 64  # inputs whose words stay in the first-level cache while the rows of a tile pass over them


@kernel
def scale_blocks(
    out: Any, low: int, scales: Any, zeros: Any, rows: int, block_rows: int, block_columns: int, by: Any
) -> None:
    """Replace q by (q - zero) · scale · by; `out` `[n, columns]` starts at row `low` of all matrices, of `rows` each.

    `scales` and `zeros` (or None) are `[matrices · ceil(rows / block_rows), ceil(columns / block_columns)]`.
    """
    steps = -(-rows // block_rows)
    for r in range(out.shape[0]):
        at = low + r
        s = at // rows * steps + at % rows // block_rows
        for b in range(scales.shape[1]):
            scale = scales[s, b]
            zero = f32(0)
            if zeros is not None:
                zero = zeros[s, b]
            for c in range(b * block_columns, min((b + 1) * block_columns, out.shape[1])):
                out[r, c] = (out[r, c] - zero) * scale * by


@kernel
def unpack_groups(raw: Any, bits: int, scales: Any, zeros: Any, group: Any, out: Any) -> None:
    """Rows of 4- or 8-bit fields, lowest bits first: (q - zero) · scale, `scales` and `zeros` `[n, groups]`.

    `raw` is `[n, bytes a row]`; `group` `[columns]` has each column's group.
    """
    mask = (1 << bits) - 1
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            q = (np.int64(raw[r, c * bits >> 3]) >> (c * bits & 7)) & mask
            g = group[c]
            out[r, c] = (f32(q) - zeros[r, g]) * scales[r, g]


@kernel
def unpack_columns(words: Any, bits: int, scales: Any, zeros: Any, group: Any, out: Any) -> None:
    """Transpose fields packed down the columns (GPTQ): `words` `[in · bits / 32, n]`, `scales` and `zeros` `[groups, n]`."""
    mask = (1 << bits) - 1
    per = 32 // bits
    for r in range(out.shape[0]):
        for w in range(words.shape[0]):
            word = np.int64(words[w, r])
            for k in range(min(per, out.shape[1] - w * per)):
                c = w * per + k
                g = group[c]
                out[r, c] = (f32((word >> (k * bits)) & mask) - zeros[g, r]) * scales[g, r]


@kernel
def unpack_interleaved(words: Any, scales: Any, zeros: Any, group: Any, out: Any) -> None:
    """Transpose 4-bit fields packed along the rows (AWQ): `words` `[in, n / 8]`, `scales` and `zeros` `[groups, n]`.

    Of the eight outputs of a word the even ones come first: 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up.
    """
    for first in range(0, out.shape[1], _RUN):
        for r in range(out.shape[0]):
            place = r & 7
            shift = 4 * ((place >> 1) + 4 * (place & 1))
            for c in range(first, min(first + _RUN, out.shape[1])):
                g = group[c]
                q = (np.int64(words[c, r >> 3]) >> shift) & 15
                out[r, c] = (f32(q) - zeros[g, r]) * scales[g, r]


@kernel
def unpack_mxfp4(blocks: Any, powers: Any, low: int, values: Any, out: Any) -> None:
    """Transpose one expert: `blocks` `[n, groups, 16]` of two 4-bit codes a byte, low first; `powers` `[n, groups]`.

    `out` `[inputs, n]` starts at input `low`; a group has 32 inputs. `values` are the 16 numbers of the codes.
    """
    for c in range(out.shape[1]):
        for r in range(out.shape[0]):
            at = low + r
            code = (blocks[c, at >> 5, (at & 31) >> 1] >> (4 * (at & 1))) & 15
            out[r, c] = values[code] * powers[c, at >> 5]


@kernel
def look_up(raw: Any, skip: int, start: int, values: Any, scales: Any, block: int, out: Any) -> None:
    """Flat 4-bit codes, high half of a byte first (bitsandbytes): values[code] · scales[element // block].

    `out` `[n]` starts at element `start`, which is code number `skip` of `raw`.
    """
    for j in range(out.size):
        code = (raw[(skip + j) >> 1] >> (4 * (1 - ((skip + j) & 1)))) & 15
        out[j] = values[code] * scales[(start + j) // block]
