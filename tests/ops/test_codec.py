"""Bits to floats and back: every pattern, every rounding, both sides."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.ops import codec

torch = pytest.importorskip("torch")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TYPES = {
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
NARROW = {"BF16": np.uint16, "F16": np.uint16, "F8_E4M3": np.uint8, "F8_E5M2": np.uint8}
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def patterns(code: str) -> np.ndarray:
    unsigned = NARROW[code]
    return np.arange(np.iinfo(unsigned).max + 1).astype(unsigned)


def same(a: np.ndarray, b: np.ndarray) -> None:
    """Equal bits, NaN's payload aside."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    nan = np.isnan(a)
    np.testing.assert_array_equal(nan, np.isnan(b))
    assert a[~nan].tobytes() == b[~nan].tobytes()


@both
@pytest.mark.parametrize("code", NARROW)
def test_every_pattern_is_decoded(code, dtype):
    raw = patterns(code).view(np.uint8)
    with np.errstate(invalid="ignore"):
        expected = raw.view(TYPES[code]).astype(np.float32).astype(dtype)
    out = np.empty(expected.size, dtype)
    assert codec.decode(raw, code, out) is False
    same(out, expected)
    for device in DEVICES:
        tensor = torch.empty(out.size, dtype=torch.from_numpy(out).dtype, device=device)
        assert codec.decode(torch.from_numpy(raw.copy()).to(device), code, tensor) is False
        same(tensor.cpu().numpy(), expected)
    finite = patterns(code)[np.isfinite(expected)]
    base = np.linspace(-2, 2, finite.size).astype(dtype)
    out = np.empty(finite.size, dtype)
    assert codec.decode(finite.view(np.uint8), code, out) is True
    assert codec.decode_delta(finite.view(np.uint8), code, base, out) is True
    same(out, expected[np.isfinite(expected)] - base)


@both
@pytest.mark.parametrize("code", TYPES)
def test_one_element_that_is_not_finite_is_told(code, dtype):
    for size in (1, 7, 64, 1001):
        for bad in (np.nan, np.inf, -np.inf):
            for place in {0, size // 2, size - 1}:
                values = np.ones(size, dtype)
                values[place] = bad
                raw = np.empty(size * np.dtype(TYPES[code]).itemsize, np.uint8)
                out = np.empty(size, dtype)
                assert codec.encode(values, code, raw) is False
                assert codec.decode(raw, code, out) is False
                assert codec.decode_delta(raw, code, np.ones(size, dtype), out) is False
                values[place] = 1
                assert codec.encode(values, code, raw) is True
                assert codec.decode(raw, code, out) is True


def once(values: np.ndarray, code: str) -> np.ndarray:
    """Values rounded once: numpy and ml_dtypes do so from float32; float64 is put on an odd float32 first."""
    if values.dtype == np.float64 and code in NARROW:
        with np.errstate(over="ignore", invalid="ignore"):
            near = values.astype(np.float32)
            bits = near.view(np.int32)
            lower = np.where(np.abs(near) > np.abs(values), bits - 1, bits)
            exact = (near == values) | np.isnan(values)
            values = np.where(exact, bits, lower | 1).astype(np.int32).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(TYPES[code])


def check_encode(values: np.ndarray, code: str, base: np.ndarray | None = None) -> np.ndarray:
    raw = np.empty(values.size * np.dtype(TYPES[code]).itemsize, np.uint8)
    finite = codec.encode(values, code, raw, base)
    with np.errstate(over="ignore"):
        expected = once(values if base is None else values + base, code)
    written = raw.view(TYPES[code])
    same(written, expected)
    assert finite == bool(np.isfinite(expected.astype(np.float64)).all())
    for device in DEVICES:
        tensor = torch.empty(raw.size, dtype=torch.uint8, device=device)
        added = None if base is None else torch.from_numpy(base.copy()).to(device)
        assert codec.encode(torch.from_numpy(values.copy()).to(device), code, tensor, added) == finite
        same(tensor.cpu().numpy().view(TYPES[code]), expected)
    return written


@both
@pytest.mark.parametrize("code", NARROW)
def test_every_number_and_everything_around_the_middle_between_two(code, dtype):
    with np.errstate(invalid="ignore"):
        numbers = patterns(code).view(TYPES[code]).astype(dtype)
    numbers = np.sort(numbers[np.isfinite(numbers)])
    same(check_encode(numbers, code), numbers.astype(TYPES[code]))
    middles = (numbers[1:] / 2 + numbers[:-1] / 2).astype(dtype)
    edge = numbers[-1] + (numbers[-1] - numbers[-2]) / 2  # where overflow begins
    middles = np.concatenate([middles, [edge, -edge]]).astype(dtype)
    check_encode(middles, code)
    check_encode(np.nextafter(middles, dtype(np.inf)), code)
    check_encode(np.nextafter(middles, dtype(-np.inf)), code)


@pytest.mark.parametrize("code", NARROW)
def test_float64_is_rounded_once(code):
    """Just past the middle by less than float32 sees: rounding by way of float32 would end on the even neighbour."""
    one = np.float64(1)
    step = float(np.spacing(np.array(1, TYPES[code])).astype(np.float64)) if code == "F16" else None
    step = step or {"BF16": 2.0**-7, "F8_E4M3": 2.0**-3, "F8_E5M2": 2.0**-2}[code]
    values = np.array([one + step / 2 + 1e-12, one + step / 2, one + 1.5 * step - 1e-12, -one - step / 2 - 1e-12])
    written = check_encode(values, code).astype(np.float64)
    assert written.tolist() == [1 + step, 1, 1 + step, -1 - step]


RANDOM = st.one_of(
    st.floats(width=32),
    st.floats(-70000, 70000, width=32),
    st.floats(-500, 500, width=32),
    st.floats(-(2.0**-13), 2.0**-13, width=32),
    st.floats(-(2.0**-125), 2.0**-125, width=32),
    st.sampled_from(
        [0.0, -0.0, 65504.0, 65519.0, 65520.0, 65536.0, 448.0, 464.0, 480.0, 512.0, 57344.0, 61440.0, 1e39]
    ),
)


@both
@pytest.mark.parametrize("code", TYPES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_numbers_round_to_even(code, dtype, data):
    with np.errstate(over="ignore"):
        values = np.array(data.draw(st.lists(RANDOM, min_size=1, max_size=70))).astype(dtype)
    check_encode(values, code)
    finite = np.where(np.isfinite(values), values, dtype(3))
    check_encode(finite, code, np.roll(finite, 1) * dtype(0.1))


@both
@pytest.mark.parametrize("code", TYPES)
def test_many_numbers_of_every_size(code, dtype):
    random = np.random.default_rng(3)
    values = random.standard_normal(60_001) * np.exp(random.uniform(-100, 80, 60_001))
    check_encode(values.astype(dtype), code)
    bits = random.integers(0, 2**32, 60_001, dtype=np.uint32).view(np.float32)
    check_encode(
        np.where(np.isnan(bits), np.float32(np.nan), bits).astype(dtype), code
    )  # (numpy warns of signalling NaN)


@pytest.mark.parametrize("code", TYPES)
@both
def test_decoding_and_encoding_again_changes_nothing(code, dtype):
    random = np.random.default_rng(4)
    raw = (random.standard_normal(999) * 0.1).astype(TYPES[code]).view(np.uint8)
    out, again = np.empty(999, dtype), np.empty_like(raw)
    assert codec.decode(raw, code, out)
    assert codec.encode(out, code, again)
    if (code, dtype) != ("F64", np.float32):
        assert again.tobytes() == raw.tobytes()
    base = random.standard_normal(999).astype(dtype)
    was = base.copy(), out.copy(), raw.copy()
    codec.encode(out, code, again, base)
    codec.decode_delta(raw, code, base, again_out := np.empty(999, dtype))
    same(again_out, out - base)
    assert [x.tobytes() for x in (base, out, raw)] == [x.tobytes() for x in was]


def test_overflow_is_told():
    for code, too_much in (("F16", 65520), ("F8_E4M3", 465), ("F8_E5M2", 61440), ("BF16", 3.4e38), ("F32", 3.41e38)):
        raw = np.empty(np.dtype(TYPES[code]).itemsize, np.uint8)
        values = np.array([too_much], np.float64)
        assert codec.encode(values, code, raw) is False
        assert codec.encode(values * 0.99, code, raw) is True
    out = np.empty(1, np.float32)
    assert codec.decode(np.array([1e39]).view(np.uint8), "F64", out) is False
    largest = np.array([3e38], np.float32)
    assert codec.decode_delta(largest.view(np.uint8), "F32", -largest, out) is False


def test_any_shape_is_written():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    raw, out = np.empty(12, np.uint8), np.empty((2, 3), np.float32)
    assert codec.encode(values, "BF16", raw)
    assert codec.decode(raw, "BF16", out)
    assert (out == values).all()


def test_misuse_is_told():
    raw, out = np.empty(8, np.uint8), np.empty(4, np.float32)
    for x, y in ((raw, out), (torch.from_numpy(raw), torch.from_numpy(out))):
        with pytest.raises(ValueError, match="'I64'; expected one of BF16"):
            codec.decode(x, "I64", y)
        with pytest.raises(ValueError, match="8 bytes do not hold 4 elements of 4 bytes"):
            codec.decode(x, "F32", y)
        with pytest.raises(ValueError, match="8 bytes do not hold 4 elements of 4 bytes"):
            codec.encode(y, "F32", x)
    with pytest.raises(ValueError, match="C-contiguous"):
        codec.decode(raw, "BF16", np.empty((4, 2), np.float32)[:, 0])
