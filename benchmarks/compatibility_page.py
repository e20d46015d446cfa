"""Writes the rows of the compatibility matrix as a page."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

_HEAD = """\
# Compatibility

plait has no templates of architectures: it reads a model's structure off its tensors. This page is no list of what is
supported, it is what was tried: `make compatibility` makes three tiny models of every class below from a config, saves
them with transformers, merges them, and loads what comes out with the class itself.

- *Merged by*: linear, TIES and SLERP, from `a` and `b`, which lie near a base, as fine-tunes do.
- *Loads*: transformers finds no missing, unexpected or mismatched key; nothing was dropped or warned of; the forward
  pass is finite; and after the linear merge every parameter of the class in memory is the mean of the inputs'.
- *With itself*: `a` merged with `a`, in all three ways, computes what `a` does, to the last bit (“bits”) or to a
  millionth of its largest output (“1e-6”: float32 numbers rounded once more).

{good} of {all} classes are good.
"""
_COLUMNS = "| Class | transformers | Type | Merged by | Loads | With itself | Remark |"


def page(rows: Iterable[Any]) -> str:
    """Return the page in Markdown."""
    listed = list(rows)
    parts = [_HEAD.format(good=sum(row.good for row in listed), all=len(listed))]
    for group, members in groupby(listed, key=lambda row: row.group):
        lines = [f"## {group}", "", _COLUMNS, "|---" * 7 + "|"]
        lines += [_line(row) for row in members]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(row: Any) -> str:
    merged, loads = ", ".join(row.merged) or "none", "yes" if row.loads else "no"
    cells = (row.name, row.version, row.dtype, merged, loads, row.same or "none", row.remark)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
