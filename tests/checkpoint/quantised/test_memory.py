"""What is held while a weight is made is what it says that it needs, so that a plan can count it."""

import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file

from plait.checkpoint import FileReader, dequantised, open_checkpoint
from plait.checkpoint.aligned import AVERAGE, aligned
from plait.checkpoint.needs import made_bytes
from plait.ops.scratch import tile_scope

BATCH = 1 << 14


@pytest.fixture
def held(monkeypatch):
    """Read a tensor batch by batch, once to compile and once more; return the most bytes held, and those kept."""
    for name, value in {"_SPAN": 1 << 17, "_SMALL": 1 << 12, "_AT_ONCE": 1 << 14}.items():
        monkeypatch.setattr(f"plait.checkpoint.dequantise.strips.{name}", value)

    def held(tensor):
        out = np.empty(BATCH * (tensor.nbytes // tensor.size), np.uint8)
        keep = made_bytes(tensor, BATCH)[1]
        with FileReader(keep=keep) as reader, tile_scope():
            _read(reader, tensor, out)
        with FileReader(keep=keep) as reader, tile_scope():
            tracemalloc.start()
            try:
                _read(reader, tensor, out)
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            kept = sum(one.nbytes for one in reader._local.__dict__.get("kept", {}).values())
        return most, kept

    return held


def _read(reader, tensor, out):
    size = tensor.nbytes // tensor.size
    for start in range(0, tensor.size, BATCH):
        count = min(BATCH, tensor.size - start)
        reader.read_elements(tensor, start, out[: count * size])


def test_a_quantised_weight_holds_what_it_needs(form, write, held):
    weight = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    arrays, settings, _ = form(weight)
    folder = write({f"a.{name}": array for name, array in arrays.items()}, settings)
    tensor = dequantised(open_checkpoint(folder)).tensors["a.weight"]
    work, keep = made_bytes(tensor, BATCH)
    most, kept = held(tensor)
    assert kept <= keep
    assert most <= work + keep
    assert work + keep < 4 * tensor.nbytes, "and does not say much more"


def test_rows_in_another_order_hold_what_they_need(tmp_path, held):
    rng = np.random.default_rng(1)
    save_file(
        {name: rng.standard_normal((900, 64)).astype(np.float32) for name in ("own", "other")},
        tmp_path / "x.safetensors",
    )
    tensors = open_checkpoint(tmp_path / "x.safetensors").tensors
    numbers = rng.permutation(900)
    numbers[::7], numbers[1::7] = -1, -2
    fills = (((tensors["other"], 3),), AVERAGE)
    made = aligned(tensors["own"], numbers.astype(np.int64), fills)
    work, keep = made_bytes(made, BATCH)
    most, kept = held(made)
    assert kept <= keep
    assert most <= work + keep
