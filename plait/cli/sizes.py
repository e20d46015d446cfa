"""Sizes as people write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

__all__ = ["SIZE", "readable"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


if TYPE_CHECKING:
    _Parameter = click.ParamType[int]
else:  # before click 8.2 it takes no type
    _Parameter = click.ParamType


class _Size(_Parameter):
    """A number of bytes: 500M, 5GB, 1GiB, 800000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", str(value).lower())
        if not found or (found[3] and not found[2]):
            self.fail(f"{value!r} is not a size. Write it as 500M, 5GB, 1GiB or a number of bytes.", param, ctx)
        amount = int(float(found[1]) * (_BINARY if found[3] else _UNITS)[found[2]])
        if amount < 1:
            self.fail(f"{value!r}: at least one byte is needed.", param, ctx)
        return amount


SIZE = _Size()


def readable(count: float) -> str:
    """Write a number of bytes with three digits.

    >>> readable(2_200_119_864)
    '2.20 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.{2 if count < 10 else 1}f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"
