"""Between a checkpoint's bits and floats, one rounding at the end.

A magnitude of a narrow format, moved to where float32 has its exponent and significand and with the
exponent's offset made up for, is the float; subnormals, infinity and NaN need a word. Encoding adds half a unit (less one
where the last bit is even) before it shifts; for subnormals a float addition pushes the bits out at the right place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import bits_of, float_of, kernel

__all__ = [
    "DECODERS",
    "ENCODERS",
    "decode_bf16",
    "decode_e4m3",
    "decode_e5m2",
    "decode_f16",
    "decode_float",
    "encode_bf16",
    "encode_e4m3",
    "encode_e5m2",
    "encode_f16",
    "encode_float",
    "half",
    "half_code",
]

u32 = np.uint32
f32 = np.float32
EXPONENT = 0x7F800000  # float32's infinity
SIGN = 0x80000000


@kernel
def _not_finite(value: Any) -> Any:
    return u32(0) if value - value == 0 else u32(1)


@kernel
def _store(value: Any, base: Any, j: int, out: Any) -> Any:
    """Write a decoded value, or its difference from the base; return 1 when that is not finite."""
    cast = out.dtype.type(value)
    if base is not None:
        cast = cast - base[j]
    out[j] = cast
    return _not_finite(cast)


@kernel
def decode_float(raw: Any, base: Any, out: Any) -> bool:
    """Decode F32 or F64 elements, less the base if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(out.size):
        bad = u32(bad | _store(raw[j], base, j, out))
    return bool(bad == 0)


@kernel
def decode_bf16(raw: Any, base: Any, out: Any) -> bool:
    """Decode BF16 elements, less the base if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(out.size):
        bad = u32(bad | _store(float_of(u32(u32(raw[j]) << u32(16))), base, j, out))
    return bool(bad == 0)


@kernel
def _moved(size: Any, rebias: Any) -> Any:
    """Float32 bits of a narrow magnitude, moved to where float32 has its fields; `rebias` is added to the exponent.

    Without a hidden bit, a subnormal is what exceeds the least normal one: subtracted, exactly. (A
    multiplication by a power of two would do for all, but is slow where subnormals abound, as in float8.)
    """
    least = u32(rebias + u32(1 << 23))
    excess = bits_of(f32(float_of(u32(size + least)) - float_of(least)))
    return excess if size < u32(1 << 23) else u32(size + rebias)


@kernel
def half(code: Any) -> Any:
    """The float of a float16's 16 bits."""
    size = u32(code & u32(0x7FFF))
    sign = u32(u32(code & u32(0x8000)) << u32(16))
    bits = _moved(u32(size << u32(13)), u32(112 << 23))
    special = u32(EXPONENT) if size >= u32(0x7C00) else u32(0)
    return float_of(u32(u32(bits | special) | sign))


@kernel
def decode_f16(raw: Any, base: Any, out: Any) -> bool:
    """Decode F16 elements, less the base if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(out.size):
        bad = u32(bad | _store(half(u32(raw[j])), base, j, out))
    return bool(bad == 0)


@kernel
def decode_e5m2(raw: Any, base: Any, out: Any) -> bool:
    """Decode F8_E5M2 elements, less the base if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(out.size):  # it is the upper byte of a float16
        bad = u32(bad | _store(half(u32(u32(raw[j]) << u32(8))), base, j, out))
    return bool(bad == 0)


@kernel
def decode_e4m3(raw: Any, base: Any, out: Any) -> bool:
    """Decode F8_E4M3 elements, less the base if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(out.size):
        code = u32(raw[j])
        size = u32(code & u32(0x7F))
        sign = u32(u32(code & u32(0x80)) << u32(24))
        bits = _moved(u32(size << u32(20)), u32(120 << 23))
        special = u32(EXPONENT) if size == u32(0x7F) else u32(0)  # no infinity; all ones is NaN
        bad = u32(bad | _store(float_of(u32(u32(bits | special) | sign)), base, j, out))
    return bool(bad == 0)


@kernel
def _value(values: Any, base: Any, j: int) -> Any:
    value = values[j]
    if base is not None:
        value = value + base[j]
    return value


@kernel
def _odd_bits(value: Any) -> Any:
    """Float32 bits of a float, inexact ones rounded to odd, so that rounding them again is as rounding once.

    (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums".)
    """
    near = f32(value)
    bits = bits_of(near)
    cut = u32(bits - u32(1)) if abs(near) > abs(value) else bits
    return bits if (near == value) | (value != value) else u32(cut | u32(1))  # noqa: PLR0124  (NaN is what differs from itself)


@kernel
def encode_float(values: Any, base: Any, raw: Any) -> bool:
    """Encode to F32 or F64, the base added first if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(raw.size):
        value = raw.dtype.type(_value(values, base, j))
        raw[j] = value
        bad = u32(bad | _not_finite(value))
    return bool(bad == 0)


@kernel
def encode_bf16(values: Any, base: Any, raw: Any) -> bool:
    """Encode to BF16, the base added first if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(raw.size):
        bits = _odd_bits(_value(values, base, j))
        sign = u32(bits & u32(SIGN))
        size = u32(bits ^ sign)
        code = u32(u32(size + u32(u32(0x7FFF) + u32(u32(size >> u32(16)) & u32(1)))) >> u32(16))
        code = u32(0x7FC0) if size > u32(EXPONENT) else code
        bad = u32(bad | (u32(1) if code >= u32(0x7F80) else u32(0)))
        raw[j] = u32(code | u32(sign >> u32(16)))
    return bool(bad == 0)


@kernel
def half_code(bits: Any) -> Any:
    """The 16 bits of the float16 nearest to a finite float32's."""
    rebias, half = u32(112 << 23), u32(126 << 23)  # 0.5 has the unit 2^-24, float16's least
    sign = u32(bits & u32(SIGN))
    size = u32(bits ^ sign)
    normal = u32(u32(size - rebias) + u32(u32(0xFFF) + u32(u32(size >> u32(13)) & u32(1))))
    tiny = u32(bits_of(f32(float_of(size) + float_of(half))) - half)
    code = tiny if size < u32(113 << 23) else u32(normal >> u32(13))
    return u32(u32(0x7C00 if size >= u32(143 << 23) else code) | u32(sign >> u32(16)))


@kernel
def encode_f16(values: Any, base: Any, raw: Any) -> bool:
    """Encode to F16, the base added first if there is one; return whether all are finite."""
    bad = u32(0)
    for j in range(raw.size):
        bits = _odd_bits(_value(values, base, j))
        code = half_code(bits)
        code = u32(code | u32(0x0200)) if u32(bits & u32(0x7FFFFFFF)) > u32(EXPONENT) else code
        bad = u32(bad | (u32(1) if u32(code & u32(0x7FFF)) >= u32(0x7C00) else u32(0)))
        raw[j] = code
    return bool(bad == 0)


@kernel
def encode_e5m2(values: Any, base: Any, raw: Any) -> bool:
    """Encode to F8_E5M2, the base added first if there is one; return whether all are finite."""
    bad = u32(0)
    rebias, magic = u32(112 << 23), u32(134 << 23)  # 128 has the unit 2^-16
    for j in range(raw.size):
        bits = _odd_bits(_value(values, base, j))
        sign = u32(bits & u32(SIGN))
        size = u32(bits ^ sign)
        normal = u32(u32(size - rebias) + u32(u32(0xFFFFF) + u32(u32(size >> u32(21)) & u32(1))))
        tiny = u32(bits_of(f32(float_of(size) + float_of(magic))) - magic)
        code = tiny if size < u32(113 << 23) else u32(normal >> u32(21))
        code = u32(0x7C) if size >= u32(143 << 23) else code
        code = u32(0x7E) if size > u32(EXPONENT) else code
        bad = u32(bad | (u32(1) if code >= u32(0x7C) else u32(0)))
        raw[j] = u32(code | u32(sign >> u32(24)))
    return bool(bad == 0)


@kernel
def encode_e4m3(values: Any, base: Any, raw: Any) -> bool:
    """Encode to F8_E4M3, the base added first if there is one; return whether all are finite."""
    bad = u32(0)
    rebias, magic = u32(120 << 23), u32(141 << 23)  # 16384 has the unit 2^-9
    for j in range(raw.size):
        bits = _odd_bits(_value(values, base, j))
        sign = u32(bits & u32(SIGN))
        size = u32(bits ^ sign)
        normal = u32(u32(size - rebias) + u32(u32(0x7FFFF) + u32(u32(size >> u32(20)) & u32(1))))
        tiny = u32(bits_of(f32(float_of(size) + float_of(magic))) - magic)
        code = tiny if size < u32(121 << 23) else u32(normal >> u32(20))
        code = u32(0x7F) if size > u32(0x43E80000) else code  # past 464 the nearest would be 480, which is NaN
        bad = u32(bad | (u32(1) if code >= u32(0x7F) else u32(0)))
        raw[j] = u32(code | u32(sign >> u32(24)))
    return bool(bad == 0)


# code -> (the numpy type that the raw bytes are read as, the kernel)
DECODERS: dict[str, tuple[Any, Any]] = {
    "BF16": (np.uint16, decode_bf16),
    "F16": (np.uint16, decode_f16),
    "F32": (np.float32, decode_float),
    "F64": (np.float64, decode_float),
    "F8_E4M3": (np.uint8, decode_e4m3),
    "F8_E5M2": (np.uint8, decode_e5m2),
}
ENCODERS: dict[str, tuple[Any, Any]] = {
    "BF16": (np.uint16, encode_bf16),
    "F16": (np.uint16, encode_f16),
    "F32": (np.float32, encode_float),
    "F64": (np.float64, encode_float),
    "F8_E4M3": (np.uint8, encode_e4m3),
    "F8_E5M2": (np.uint8, encode_e5m2),
}
