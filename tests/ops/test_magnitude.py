"""Exact selection of the k-th largest magnitude by counting bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plait.ops import magnitude

torch = pytest.importorskip("torch")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FLOATS = hnp.arrays(
    np.float32,
    st.integers(1, 80),
    elements=st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0]),
)


def tensors(x: np.ndarray) -> list:
    return [torch.from_numpy(x.copy()).to(device) for device in DEVICES]


@settings(max_examples=60, deadline=None)
@given(x=FLOATS)
def test_bits_order_as_magnitudes(x):
    bits = magnitude.magnitude_bits(x)
    assert bits.dtype == np.int32
    np.testing.assert_array_equal(bits, np.abs(x).view(np.int32))
    assert (np.abs(x)[np.argsort(bits, kind="stable")] == np.sort(np.abs(x))).all()
    assert [magnitude.magnitude_of(b) for b in bits.tolist()] == np.abs(x).tolist()
    for tensor in tensors(x):
        np.testing.assert_array_equal(magnitude.magnitude_bits(tensor).cpu().numpy(), bits, strict=True)


@settings(max_examples=30, deadline=None)
@given(x=FLOATS, data=st.data())
def test_counts(x, data):
    bits = np.abs(x).view(np.int32)
    pick = int(data.draw(st.sampled_from(bits.tolist())))
    width = data.draw(st.sampled_from([1, 2, 100, 1 << 16]))
    low = max(0, pick - data.draw(st.integers(0, width)))
    inside = bits[(bits >= low) & (bits < low + width)] - low
    for like in (x, *tensors(x)):
        sizes = magnitude.HIGH, magnitude.LOW, width
        high, lower, window = (np.zeros(size, np.int64) for size in sizes)
        if like is not x:
            high, lower, window = (torch.from_numpy(counts).to(like.device) for counts in (high, lower, window))
        for _ in range(2):  # counts are added to
            magnitude.histogram_high(like, high)
            magnitude.histogram_low(like, pick >> 16, lower)
            above = magnitude.window_count(like, low, window)
        assert above == (bits >= low + width).sum()
        np.testing.assert_array_equal(np.asarray(high.tolist()), 2 * np.bincount(bits >> 16, minlength=magnitude.HIGH))
        same_bin = bits[bits >> 16 == pick >> 16] & 0xFFFF
        np.testing.assert_array_equal(np.asarray(lower.tolist()), 2 * np.bincount(same_bin, minlength=magnitude.LOW))
        np.testing.assert_array_equal(np.asarray(window.tolist()), 2 * np.bincount(inside, minlength=width))


@settings(max_examples=40, deadline=None)
@given(x=FLOATS, dtype=st.sampled_from([np.float32, np.float64]), data=st.data())
def test_the_kth_is_the_kth(x, dtype, data):
    x = x.astype(dtype) * dtype(0.7)
    rank = data.draw(st.integers(1, x.size))
    expected = float(np.sort(np.abs(x))[x.size - rank])
    assert magnitude.kth_magnitude(x, rank) == expected
    for tensor in tensors(x):
        assert magnitude.kth_magnitude(tensor, rank) == expected


def test_the_kth_of_many():
    x = np.random.default_rng(0).standard_normal((300, 301)).astype(np.float32)
    ordered = np.sort(np.abs(x).reshape(-1))[::-1]
    for rank in (1, 2, 20_000, x.size):
        assert magnitude.kth_magnitude(x, rank) == ordered[rank - 1]


def test_misuse_is_told():
    x = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="1 to 4, not 0"):
        magnitude.kth_magnitude(x, 0)
    with pytest.raises(ValueError, match="1 to 4, not 5"):
        magnitude.kth_magnitude(x, 5)
    with pytest.raises(ValueError, match="int64"):
        magnitude.histogram_high(x, np.zeros(magnitude.HIGH, np.int32))
    with pytest.raises(ValueError, match="32768"):
        magnitude.histogram_high(x, np.zeros(5, np.int64))
    for wide in (np.ones(4), torch.ones(4, dtype=torch.float64)):
        with pytest.raises(TypeError, match="float64"):
            magnitude.magnitude_bits(wide)
