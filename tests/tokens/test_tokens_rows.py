"""Tables seen with their rows in another order: any range of elements, from any element on."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from plait.checkpoint import FileReader, open_checkpoint
from plait.checkpoint.aligned import AVERAGE, aligned


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_any_range_of_rows_of_others_is_read(dtype, tmp_path):
    rng = np.random.default_rng(0)
    own, other = (rng.standard_normal((6, 5)).astype(np.float32).astype(dtype) for _ in range(2))
    save_file({"own": own, "other": other}, tmp_path / "x.safetensors")
    tensors = open_checkpoint(tmp_path / "x.safetensors").tensors
    mean = ((tensors["own"], 2), (tensors["other"], 4))
    numbers = np.array([-1, 0, 1, 2, 5, -2, -3, 3, -4], np.int64)
    made = aligned(tensors["own"], numbers, (((tensors["other"], 3),), mean, (), AVERAGE))
    wide = own.astype(np.float64)
    rows = [other[3].astype(np.float64), *wide[[0, 1, 2, 5]], (wide[2] + other[4].astype(np.float64)) / 2]
    rows += [np.zeros(5), wide[3]]
    rows = [row.astype(np.float32).astype(dtype) for row in rows]
    average = np.stack(rows).astype(np.float64).mean(0).astype(np.float32).astype(dtype)
    wanted = np.stack([*rows, average]).reshape(-1)
    with FileReader() as reader:
        for start in range(len(wanted)):
            for stop in range(start, len(wanted) + 1):
                out = np.full((stop - start) * wanted.itemsize, 255, np.uint8)
                reader.read_elements(made, start, out)
                assert out.tobytes() == wanted[start:stop].tobytes(), (start, stop)
