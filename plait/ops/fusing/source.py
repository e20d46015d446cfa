"""The text of fused kernels, for one element type."""

from __future__ import annotations

import re

from plait.ops.fusing.machine import Signature
from plait.ops.fusing.program import Program
from plait.ops.sizes import BLOCK, LANES, PIECE

__all__ = ["source"]

_HEAD = '''"""Written by plait; may be deleted."""

import numpy as np

from plait.ops.on_cpu.blocks import dot, fold, plain_sum
from plait.ops.on_cpu.codec import half, half_code
from plait.ops.on_cpu.counting import count_all, count_window
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
    `[results, n]`, or float64 `[blocks, results]` for the kinds "sums" and "squares" and `[blocks, pairs]` for "gram",
    before which these take room: float32 `[results * BLOCK]` and float64 `[LANES]`, or `[pairs * LANES]`. Where `draws` is "note", what the random drops keep is noted in
    `drawn`, uint8 `[n]` before all these, bit m being drop m's; where it is "look up", it is read there instead of drawn.
    """
    if kind in _COUNTING:
        return _counting(program, kind, code, has_base=has_base)
    kept = _TYPES[code]
    last = {"merge": (f"{kept}[1]",), "rows": ("float32[2]",)}.get(kind, ("float32[1]", "float64[1]", "float64[2]"))
    signature = (f"{kept}[2]", "float32[1]", "uint32[2]", "uint32", *(["uint8[1]"] if draws else []), *last)
    write = {"merge": _merge, "rows": _rows, "sums": _sums, "squares": _squares, "gram": _gram}[kind]
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


def _sums(program: Program, code: str, has_base: bool, draws: str, constants: str) -> str:
    return _blocks(program, code, has_base, draws, constants, _each(program, "plain_sum({0}, lanes)"))


def _squares(program: Program, code: str, has_base: bool, draws: str, constants: str) -> str:
    return _blocks(program, code, has_base, draws, constants, _each(program, "dot({0}, {0}, lanes)"))


def _each(program: Program, sums: str) -> list[str]:
    """Write what adds up each row of a block."""
    rows = [f"room[{r * BLOCK} : {r * BLOCK} + size]" for r in range(len(program.results))]
    return [f"blocks[block, {r}] = {sums.format(row)}" for r, row in enumerate(rows)]


def _gram(program: Program, code: str, has_base: bool, draws: str, constants: str) -> str:
    """Write what adds up all products of two rows at once, lane by lane as `plait.ops.on_cpu.blocks.dot`."""
    rows = range(len(program.results))
    pairs = [(i, j) for i in rows for j in rows[i:]]

    def adding(steps: int) -> list[str]:
        wide = [f"a{r}_{s} = f64(room[{r * BLOCK + s * LANES} + at + lane])" for r in rows for s in range(steps)]
        terms = [" + ".join(f"a{i}_{s} * a{j}_{s}" for s in range(steps)) for i, j in pairs]
        lanes = [f"lanes[{pair * LANES} + lane]" for pair in range(len(pairs))]
        return [*wide, *(f"{lane} = {lane} + {term}" for lane, term in zip(lanes, terms, strict=True))]

    sums = [
        "for lane in range(lanes.size):",
        "    lanes[lane] = 0.0",
        f"whole = size - size % {4 * LANES}",
        f"for at in range(0, whole, {4 * LANES}):",
        f"    for lane in range({LANES}):",
        *(f"        {line}" for line in adding(4)),
        f"for at in range(whole, size, {LANES}):",
        f"    for lane in range(min({LANES}, size - at)):",
        *(f"        {line}" for line in adding(1)),
        *(f"blocks[block, {p}] = fold(lanes[{p * LANES} : {(p + 1) * LANES}])" for p in range(len(pairs))),
    ]
    return _blocks(program, code, has_base, draws, constants, sums)


def _blocks(program: Program, code: str, has_base: bool, draws: str, constants: str, sums: list[str]) -> str:
    # One array with rows at known distances: else the compiler cannot tell that they do not overlap, and uses no vectors.
    stores = [f"room[{r * BLOCK} + j] = {result}" for r, result in enumerate(program.results)]
    at = "low + j"
    loop = _lines([*_loads(program, code, has_base=has_base, at=at), *_body(program, draws, at), *stores], 12)
    noting = f"        for j in range(size):\n{_lines(_noting(program, at), 12)}" if draws == "note" else ""
    return (
        f"room, lanes, blocks):\n{constants}"
        f"    largest_in = u32(0)\n    for block in range(blocks.shape[0]):\n        low = block * {BLOCK}\n"
        f"        size = min({BLOCK}, grid.shape[1] - low)\n{noting}        for j in range(size):\n{loop}{_lines(sums, 8)}"
        f"    return i64(1) if largest_in >= u32({_LARGE[code][1]}) else i64(0)\n"
    )


_COUNTING: dict[str, tuple[str, Signature, list[str]]] = {
    "window": (
        "shift, chosen, counts, above, loose",
        ("int64", "int64[1]", "int64[2]", "int64[1]", "int64[1]"),
        [
            "if chosen[{0}] >= 0:",
            "    more, lost = count_window(piece, u32(chosen[{0}]), u32(shift), step, counts[{0}])",
            "    above[{0}] += step * more",
            "    loose[{0}] |= lost",
        ],
    ),
    "bins": (
        "chosen, counts",
        ("int64[1]", "int64[2]"),
        ["if chosen[{0}] >= -1:", "    count_all(piece, chosen[{0}], step, counts[{0}])"],
    ),
}


def _counting(program: Program, kind: str, code: str, *, has_base: bool) -> tuple[str, Signature]:
    """Write `run(grid, numbers, words, first, size, step, room, …)`, which adds `step` for each magnitude of `size` elements.

    They are added to `counts` int64 `[results, width]`; `room` is float32 `[results * PIECE]`. For "window" a result is
    counted from the bits `chosen` int64 `[results]` on, with 2^shift bit patterns a counter; what lies above the window
    is added to `above`, and the bits in which patterns counted together may differ are set in `loose`, both int64
    `[results]`; a result is left out where `chosen` is negative. For "bins" that is what `count_all` has as `high`, and
    a result is left out where it is below -1. Returns 0, or 1 more than how many elements were counted before it had to
    stop. An index that may be negative is no plain index to Numba: so rows are cut first, and then walked from 0 on.
    """
    takes, types, count = _COUNTING[kind]
    cut = [f"x{i}_piece = r{i}[low : low + length]" for i in range(program.models + has_base)]
    stores = [f"room[{r * PIECE} + j] = {result}" for r, result in enumerate(program.results)]
    loop = _lines(
        [*_loads(program, code, has_base=has_base, at="j", row="x{}_piece"), *_body(program, "", "low + j"), *stores],
        12,
    )
    counts = [
        line.format(r)
        for r in range(len(program.results))
        for line in [f"piece = room[{r * PIECE} : {r * PIECE} + length]", *count]
    ]
    text = (
        f"{_HEAD}def run(grid, numbers, words, first, size, step, room, {takes}):\n"
        f"{_lines(_constants(program, has_base=has_base), 4)}"
        f"    for low in range(0, size, {PIECE}):\n        length = min({PIECE}, size - low)\n{_lines(cut, 8)}"
        f"        largest_in = u32(0)\n        for j in range(length):\n{loop}"
        f"        if largest_in >= u32({_LARGE[code][1]}):\n            return i64(1) + low\n"
        f"{_lines(counts, 8)}    return i64(0)\n"
    )
    return text, (f"{_TYPES[code]}[2]", "float32[1]", "uint32[2]", "uint32", "int64", "int64", "float32[1]", *types)


def _constants(program: Program, *, has_base: bool) -> list[str]:
    lines = [f"r{i} = grid[{i}]" for i in range(program.models + has_base)]
    lines += [f"n{i} = numbers[{i}]" for i in range(len(program.numbers))]
    for m in range(len(program.keys)):
        lines += [f"before{m}, between{m}, last{m} = words[{m}, 0], words[{m}, 1], words[{m}, 2]"]
    return lines


def _loads(program: Program, code: str, *, has_base: bool, at: str, row: str = "r{}") -> list[str]:
    """Decode every row, note the largest magnitude, subtract the base."""
    bits, value = _DECODE[code]
    mask = _LARGE[code][0]
    lines = []
    for i in [*([program.models] if has_base else []), *range(program.models)]:
        name = "base" if i == program.models else f"x{i}"
        lines += [
            f"b{i} = {bits.format(f'{row.format(i)}[{at}]')}",
            f"largest_in = max(largest_in, u32(b{i} & u32({mask})))",
            f"{name} = {value.format(f'b{i}')}" + (" - base" if has_base and i < program.models else ""),
        ]
    return lines


def _body(program: Program, draws: str, at: str) -> list[str]:
    """Write the program's lines; what it draws in their place, unless it is noted."""
    index, drawn = _draws(program, at)
    if draws:
        index, drawn = (
            [f"noted = u32(drawn[{at}])"],
            [f"u32(noted & u32({1 << m})) != u32(0)" for m in range(len(drawn))],
        )
    lines = [re.sub(r"random\((\d+)\)", lambda found: drawn[int(found[1])], line) for line in program.lines]
    return [*index, *lines] if drawn else lines


def _draws(program: Program, at: str) -> tuple[list[str], list[str]]:
    """Write the random index at a place, and whether each drop keeps the entry there."""
    index = " + ".join(f"u32({part})" for part in at.split(" + "))
    drops = range(len(program.keys))
    drawn = [f"u32(mix(u32(mix(u32(index ^ before{m})) ^ between{m}))) <= last{m}" for m in drops]
    return [f"index = u32(first + {index})"], drawn


def _noting(program: Program, at: str) -> list[str]:
    """Write what notes at a place whatever is drawn there; in a loop by itself, which fills vectors with small numbers."""
    index, drawn = _draws(program, at)
    noted = "u32(0)"
    for m, keeps in enumerate(drawn):
        noted = f"u32({noted} | (u32({1 << m}) if {keeps} else u32(0)))"
    return [*index, f"drawn[{at}] = u8({noted})"]


def _lines(lines: list[str], indent: int) -> str:
    return "".join(f"{' ' * indent}{line}\n" for line in lines)
