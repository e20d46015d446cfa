"""Sixteen entries (or 64 bytes) at a time, for what Numba's loops cannot say: bits out of comparisons."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["bytes_equal", "first_of", "ones_in", "take_marked", "trailing_zeros", "window_masks"]

_LANES = 16
_WORD = ir.IntType(32)
_VECTOR = ir.VectorType(_WORD, _LANES)
_NOTHING = ir.Constant(_VECTOR, ir.Undefined)


def _spread(builder: Any, value: Any) -> Any:
    """Put one number into every lane."""
    first = builder.insert_element(_NOTHING, value, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(first, _NOTHING, ir.Constant(_VECTOR, [0] * _LANES))


def _mask(builder: Any, truths: Any) -> Any:
    return builder.zext(builder.bitcast(truths, ir.IntType(_LANES)), _WORD)


def _window_masks(_typing: Any, x: Any, _at: Any, _first: Any, _width: Any) -> Any:
    """Of the float32 magnitudes x[at : at + 16]: which lie in the window (low 16 bits), which above it (high 16 bits).

    The window has `width` bit patterns from `first` on; both uint32, their sum at most 2^31.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), _VECTOR.as_pointer())
        bits = builder.and_(builder.load(place, align=4), ir.Constant(_VECTOR, [0x7FFFFFFF] * _LANES))
        offset, end = builder.sub(bits, _spread(builder, arguments[2])), _spread(builder, arguments[3])
        inside = _mask(builder, builder.icmp_unsigned("<", offset, end))
        above = _mask(builder, builder.icmp_signed(">=", offset, end))
        return builder.or_(inside, builder.shl(above, ir.Constant(_WORD, _LANES)))

    return types.uint32(x, types.intp, types.uint32, types.uint32), generate


def _trailing_zeros(_typing: Any, _bits: Any) -> Any:
    """How many zero bits a uint32 other than 0 ends with."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint32(types.uint32), generate


def _ones_in(_typing: Any, _bits: Any) -> Any:
    """How many bits of a uint32 are 1."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate


def _bytes_equal(_typing: Any, x: Any, _at: Any, _value: Any) -> Any:
    """Which of the uint8 entries x[at : at + 64] are equal to a value: 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        vector, byte = ir.VectorType(ir.IntType(8), 64), ir.IntType(8)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        nothing = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(nothing, builder.trunc(arguments[2], byte), ir.Constant(_WORD, 0))
        wanted = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_WORD, 64), [0] * 64))
        return builder.bitcast(builder.icmp_unsigned("==", builder.load(place, align=1), wanted), ir.IntType(64))

    return types.uint64(x, types.intp, types.uint32), generate


def _first_of(_typing: Any, _bits: Any) -> Any:
    """Where the lowest 1 is in 64 bits that are not all 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _take_marked(_typing: Any, x: Any, _at: Any, _bits: Any, out: Any) -> Any:
    """Write the float32 entries x[at : at + 64] to out[at : at + 64], and 0 for those whose bit of 64 is 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), 64)
        source, target = (
            builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
            for array in (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3))
        )
        chosen = builder.bitcast(arguments[2], ir.VectorType(ir.IntType(1), 64))
        nothing = ir.Constant(vector, [0.0] * 64)
        builder.store(builder.select(chosen, builder.load(source, align=4), nothing), target, align=4)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.uint64, out), generate


take_marked = intrinsic(_take_marked)
bytes_equal, first_of = intrinsic(_bytes_equal), intrinsic(_first_of)
window_masks, trailing_zeros, ones_in = intrinsic(_window_masks), intrinsic(_trailing_zeros), intrinsic(_ones_in)
