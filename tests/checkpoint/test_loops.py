"""Loops over bytes: every one of them is kept as machine code, so that a later process needs no Numba."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from plait.ops.fusing.machine import made

F, B, W, Q = "float32[1]", "uint8[1]", "uint32[2]", "uint64[2]"
LOOPS = [
    ("pieces", "read_pieces", ("int64", "int64[1]", "int64[1]", "int64[1]", B)),
    ("element_loops", "load_run", ("int64", "uint16[1]", F)),
    ("element_loops", "store_run", ("int64", F, "uint16[1]")),
    ("element_loops", "finite_run", ("int64", "uint16[1]", F)),
    ("adapters.kernels", "add_product_run", (F, "int64", "float32[2]", "float32[2]", F, F)),
    ("adapters.kernels", "divide_rows_run", (F, "int64", F, "float64[1]")),
    ("adapters.kernels", "column_squares_run", (F, "float64[1]")),
    ("adapters.kernels", "scale_columns_run", (F, "int64", F)),
    ("dequantise.kernels", "turn_run", (W, "int64", "int64", "int64", W)),
    ("dequantise.kernels", "turn_bytes_run", (Q, "int64", "int64", "int64", Q, Q)),
    ("dequantise.kernels", "mxfp4_run", ("uint8[2]", "uint8[2]", "int64", F, "int64", "uint16[1]")),
]


@pytest.mark.skipif(os.name != "posix", reason="machine code is kept on these systems alone")
@pytest.mark.parametrize(("module", "name", "signature"), LOOPS)
def test_a_loop_needs_no_numba_to_run(module, name, signature):
    import importlib

    import numba

    kernel = getattr(importlib.import_module(f"plait.checkpoint.{module}"), name).py_func
    assert made(numba.njit(nogil=True, fastmath=False, error_model="numpy")(kernel), signature) is not None


READ = """
import sys
import numpy as np
from plait.checkpoint import FileReader
out = np.empty(5, np.uint8)
numbers = [np.array(n, np.int64) for n in ([6, 0], [0, 3], [3, 2])]
with FileReader() as reader:
    reader.read_pieces(sys.argv[1], *numbers, out)
print(out.tobytes().decode(), "numba" in sys.modules)
"""


@pytest.mark.skipif(os.name != "posix", reason="as above")
def test_what_is_kept_reads_without_numba_and_plain_reading_needs_nothing_kept(tmp_path):
    (tmp_path / "file").write_bytes(b"abcdefghi")

    def said(**settings):
        command = [sys.executable, "-c", READ, str(tmp_path / "file")]
        environment = os.environ | {"PLAIT_CACHE_DIR": str(tmp_path / "kept")} | settings
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert said(PLAIT_PLAIN_IO="1") == ["ghiab", "False"]
    assert said() == ["ghiab", "True"]
    assert said() == ["ghiab", "False"]
