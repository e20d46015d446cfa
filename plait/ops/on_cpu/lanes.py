"""Sixteen entries at a time, for what Numba's loops cannot say: bits out of comparisons."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["ones_in", "trailing_zeros", "window_masks"]

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


window_masks, trailing_zeros, ones_in = intrinsic(_window_masks), intrinsic(_trailing_zeros), intrinsic(_ones_in)
