"""The text of fused kernels, for one element type."""

from __future__ import annotations

import re

from plait.ops.fusing.machine import Signature
from plait.ops.fusing.program import Program

__all__ = ["source"]

_HEAD = '''"""Written by plait; may be deleted."""

import numpy as np

from plait.ops.on_cpu.blocks import dot, plain_sum
from plait.ops.on_cpu.codec import half, half_code
from plait.ops.on_cpu.elementwise import mix
from plait.ops.on_cpu.exponential import exp_of, tanh_of
from plait.ops.on_cpu.jit import bits_of, float_of

u8, u16, u32, i64, f32, f64 = np.uint8, np.uint16, np.uint32, np.int64, np.float32, np.float64
zero, one = f32(0), f32(1)

'''
_TYPES = {"BF16": "uint16", "F16": "uint16", "F32": "float32"}
# How the bits of an entry become a float; from where on, in bits, it counts as too large (a difference of two such
# numbers could overflow); and how a float's bits, rounded, become an entry, with the first magnitude that does not fit.
_DECODE = {
    "BF16": ("u32(u32({}) << u32(16))", "float_of({})"),
    "F16": ("u32({})", "half({})"),
    "F32": ("bits_of({})", "float_of({})"),
}
_LARGE = {"BF16": ("0x7FFF0000", "0x7E800000"), "F16": ("0x7FFF", "0x7C00"), "F32": ("0x7FFFFFFF", "0x7E800000")}
_ENCODE = {
    "BF16": "u16(u32(bits + u32(u32(0x7FFF) + u32(u32(bits >> u32(16)) & u32(1)))) >> u32(16))",
    "F16": "u16(half_code(bits))",
    "F32": "y",
}
_TOO_LARGE = {"BF16": "0x7F7F8000", "F16": "0x477FF000", "F32": "0x7F800000"}


def source(program: Program, kind: str, code: str, has_base: bool, draws: str = "") -> tuple[str, Signature]:
    """Write `run(grid, numbers, words, first, …, out)`, which returns 0, or not where its result is not to be used.

    `grid` is `[rows, n]`, `words` uint32 `[m, 3]`: what random indices are mixed with and the last of the bits kept;
    `first` is the index of the first element, less 2^32 times its high word. `out` is `[n]`, for kind "rows" float32
    `[results, n]`, or for the kinds "sums" and "squares" float64 `[blocks, results]`, before which these take room:
    float32 `[results, BLOCK]` and float64 `[LANES]`. Where `draws` is "note", what the random drops keep is noted in
    `drawn`, uint8 `[n]` before all these, bit m being drop m's; where it is "look up", it is read there instead of drawn.
    """
    kept = _TYPES[code]
    last = {"merge": (f"{kept}[1]",), "rows": ("float32[2]",)}.get(kind, ("float32[2]", "float64[1]", "float64[2]"))
    signature = (f"{kept}[2]", "float32[1]", "uint32[2]", "uint32", *(["uint8[1]"] if draws else []), *last)
    write = {"merge": _merge, "rows": _rows}.get(kind, _squares if kind == "squares" else _sums)
    takes = f"grid, numbers, words, first, {'drawn, ' if draws else ''}"
    constants = _lines(_constants(program, has_base=has_base), 4)
    return f"{_HEAD}def run({takes}{write(program, code, has_base, draws, constants)}", signature


def _merge(program: Program, code: str, has_base: bool, draws: str, constants: str) -> str:
    result = program.results[0]
    encoded = [
        f"y = {result} + base" if has_base else f"y = {result}",
        "bits = bits_of(y)",
        "largest_out = max(largest_out, u32(bits & u32(0x7FFFFFFF)))",
        f"out[j] = {_ENCODE[code]}",
    ]
    loop = _lines([*_loads(program, code, has_base=has_base, at="j"), *_body(program, draws, "j"), *encoded], 8)
    return (
        f"out):\n{constants}    largest_in = largest_out = u32(0)\n    for j in range(out.size):\n{loop}"
        f"    bad = i64(1) if largest_in >= u32({_LARGE[code][1]}) else i64(0)\n"
        f"    return bad + (i64(2) if largest_out >= u32({_TOO_LARGE[code]}) else i64(0))\n"
    )


def _rows(program: Program, code: str, has_base: bool, draws: str, constants: str) -> str:
    stores = [f"out[{r}, j] = {result}" for r, result in enumerate(program.results)]
    loop = _lines([*_loads(program, code, has_base=has_base, at="j"), *_body(program, draws, "j"), *stores], 8)
    return (
        f"out):\n{constants}    largest_in = u32(0)\n    for j in range(out.shape[1]):\n{loop}"
        f"    return i64(1) if largest_in >= u32({_LARGE[code][1]}) else i64(0)\n"
    )


def _squares(program: Program, code: str, has_base: bool, draws: str, constants: str) -> str:
    return _sums(program, code, has_base, draws, constants, "dot(room[{0}, :size], room[{0}, :size], lanes)")


def _sums(
    program: Program,
    code: str,
    has_base: bool,
    draws: str,
    constants: str,
    each: str = "plain_sum(room[{0}, :size], lanes)",
) -> str:
    stores = [f"room[{r}, j] = {result}" for r, result in enumerate(program.results)]
    at = "low + j"
    loop = _lines([*_loads(program, code, has_base=has_base, at=at), *_body(program, draws, at), *stores], 12)
    sums = _lines([f"blocks[block, {r}] = {each.format(r)}" for r in range(len(stores))], 8)
    return (
        f"room, lanes, blocks):\n{constants}"
        f"    largest_in = u32(0)\n    for block in range(blocks.shape[0]):\n        low = block * room.shape[1]\n"
        f"        size = min(room.shape[1], grid.shape[1] - low)\n        for j in range(size):\n{loop}{sums}"
        f"    return i64(1) if largest_in >= u32({_LARGE[code][1]}) else i64(0)\n"
    )


def _constants(program: Program, *, has_base: bool) -> list[str]:
    lines = [f"r{i} = grid[{i}]" for i in range(program.models + has_base)]
    lines += [f"n{i} = numbers[{i}]" for i in range(len(program.numbers))]
    for m in range(len(program.keys)):
        lines += [f"before{m}, between{m}, last{m} = words[{m}, 0], words[{m}, 1], words[{m}, 2]"]
    return lines


def _loads(program: Program, code: str, *, has_base: bool, at: str) -> list[str]:
    """Decode every row, note the largest magnitude, subtract the base."""
    bits, value = _DECODE[code]
    mask = _LARGE[code][0]
    lines = []
    for i in [*([program.models] if has_base else []), *range(program.models)]:
        name = "base" if i == program.models else f"x{i}"
        lines += [
            f"b{i} = {bits.format(f'r{i}[{at}]')}",
            f"largest_in = max(largest_in, u32(b{i} & u32({mask})))",
            f"{name} = {value.format(f'b{i}')}" + (" - base" if has_base and i < program.models else ""),
        ]
    return lines


def _body(program: Program, draws: str, at: str) -> list[str]:
    """Write the program's lines, and before them what it draws."""
    if not len(program.keys):
        return list(program.lines)
    drops = range(len(program.keys))
    index = " + ".join(f"u32({part})" for part in at.split(" + "))
    before = [f"index = u32(first + {index})"]
    drawn = [f"u32(mix(u32(mix(u32(index ^ before{m})) ^ between{m}))) <= last{m}" for m in drops]
    if draws == "look up":
        before, drawn = [f"noted = u32(drawn[{at}])"], [f"u32(noted & u32({1 << m})) != u32(0)" for m in drops]
    elif draws == "note":
        before += [f"bit{m} = u32({1 << m}) if {drawn[m]} else u32(0)" for m in drops]
        noted = "bit0"
        for m in drops[1:]:
            noted = f"u32({noted} | bit{m})"
        before.append(f"drawn[{at}] = u8({noted})")
        drawn = [f"bit{m} != u32(0)" for m in drops]
    return [*before, *(re.sub(r"random\((\d+)\)", lambda found: drawn[int(found[1])], line) for line in program.lines)]


def _lines(lines: list[str], indent: int) -> str:
    return "".join(f"{' ' * indent}{line}\n" for line in lines)
