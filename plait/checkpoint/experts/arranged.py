"""Experts seen in another layout: stacked or by expert, transposed or not, gate and up joined or apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from plait.checkpoint.experts.banks import Bank, Key, Role
from plait.checkpoint.experts.woven import Fill, Matrix, Rows, Woven
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.errors import CheckpointError

__all__ = ["needs_rearranging", "rearranged"]

_WIDENED = frozenset({"F32", "BF16", "F16", "F8_E4M3", "F8_E5M2"})
"""Types whose values float32 holds exactly."""


def needs_rearranging(bank: Bank, like: Bank) -> bool:
    """Whether the experts are stored in another layout than the other's."""
    unclear = bank.turned is None and any(
        bank.matrix(key) != like.matrix(key) for key in bank.names if key in like.names
    )
    return bank.layout != like.layout or unclear


def rearranged(tensors: Mapping[str, StoredTensor], bank: Bank, like: Bank, owner: str = "") -> dict[str, StoredTensor]:
    """See the experts of `bank`, among `tensors`, as `like` stores its own, under names within their own block's place.

    `owner` is the model that they are of: tensors of two owners are read in turns without being made anew each time.

    What is a run of bytes in the files stays one; everything else is put together as it is read.

    Raises:
        CheckpointError: that cannot be done, or how cannot be told; says why.
    """
    if bank.problem or like.problem:
        raise CheckpointError(bank.problem or f"in the other's, {like.problem}")
    work = _Work(tensors, *_settled(bank, like), owner)
    found = {}
    for key in work.stored():
        for e in range(1 if like.is_stacked(key) else bank.count):
            made = work.made(key, e)
            found[made.name] = made
    return found


def _settled(bank: Bank, like: Bank) -> tuple[Bank, Bank]:
    """Decide by each other which is transposed, where one's shapes alone do not tell."""
    down: Key = ("down", "weight")
    if like.turned is None and bank.turned is None:  # it only matters whether the two are alike
        return replace(bank, turned=bank.matrix(down) != like.matrix(down)), replace(like, turned=False)
    if like.turned is None:
        return bank, replace(like, turned=_turned_by(like, bank))
    return (replace(bank, turned=_turned_by(bank, like)) if bank.turned is None else bank), like


def _turned_by(bank: Bank, known: Bank) -> bool:
    down: Key = ("down", "weight")
    rows, columns = known.matrix(down)
    straight = (columns, rows) if known.turned else (rows, columns)
    if rows == columns:
        raise CheckpointError(f"whether {bank.name(down, 0)} {list(bank.shapes[down])} is transposed cannot be told")
    return bank.matrix(down) != straight


@dataclass(frozen=True)
class _Work:
    tensors: Mapping[str, StoredTensor]
    bank: Bank
    like: Bank
    owner: str

    def stored(self) -> list[Key]:
        """All that `like` stores, of what the experts have.

        Raises:
            CheckpointError: the experts have parts that `like` has no place for.
        """
        mine, theirs = ({own for key in one.names for own in _apart(key)} for one in (self.bank, self.like))
        if mine - theirs:
            lost = ", ".join(f"{role} {kind}" for role, kind in sorted(mine - theirs))
            raise CheckpointError(f"its experts have a {lost}, and the other's have none")
        partly = [key for key in self.like.names if len(mine & _apart(key)) == 1 < len(_apart(key))]
        if partly:
            raise CheckpointError("its experts have no gate, and the other's have one")
        return [key for key in self.like.names if _apart(key) <= mine]

    def made(self, key: Key, expert: int) -> StoredTensor:
        """Return the tensor that `like` has for this, of one expert or of all."""
        stacked = self.like.is_stacked(key)
        slabs = [self._slab(key, e) for e in (range(self.bank.count) if stacked else [expert])]
        first = slabs[0][0].matrix.part
        out, into = sum(fill.put.count for fill in slabs[0]), self._columns(slabs[0][0])
        rows, columns = (into, out) if self.like.is_turned(key) else (out, into)
        own = (rows, columns) if key[1] == "weight" else (rows,)
        shape = (self.bank.count, *own) if stacked else own
        name = f"{self.block}.{self.like.names[key].format(expert)}".lstrip(".")
        parts = [fill.matrix.part for slab in slabs for fill in slab]
        dtype, native = _types(parts)
        if len(slabs) == len(slabs[0]) == 1 and dtype == first.dtype and (run := _run(slabs[0][0], name, shape)):
            return run
        woven = Woven(slabs, rows, columns, dtype, self.owner)
        return StoredTensor(name, dtype, shape, first.file, first.offset, derived=woven, native=native)

    @property
    def block(self) -> str:
        """Name the block as `like` calls it, in the place where it is."""
        mine, theirs = self.bank.place[2], self.like.place[2]
        above = self.bank.block.removesuffix(mine).rstrip(".") if mine else self.bank.block
        return ".".join(part for part in (above, theirs) if part)

    def _columns(self, fill: Fill) -> int:
        return fill.matrix.rows if fill.taken.turned else fill.matrix.columns

    def _slab(self, key: Key, expert: int) -> tuple[Fill, ...]:
        """Say where everything of one expert's comes from, and where it goes."""
        role, kind = key
        turned = self.like.is_turned(key)
        if key in self.bank.names and (role != "gate_up" or self.bank.joined == self.like.joined):
            matrix, taken = self._taken(key, expert, None)
            return (Fill(matrix, taken, Rows(0, 1, taken.count, turned)),)
        if role != "gate_up":
            matrix, taken = self._taken(("gate_up", kind), expert, role)
            return (Fill(matrix, taken, Rows(0, 1, taken.count, turned)),)
        fills = []
        for which, one in enumerate(("gate", "up")):
            own: Role = "up" if which else "gate"
            joined: Key = ("gate_up", kind)
            matrix, taken = self._taken(
                *((joined, expert, own) if joined in self.bank.names else ((own, kind), expert, None))
            )
            first, step = _rows_of(one, taken.count, self.like)
            fills.append(Fill(matrix, taken, Rows(first, step, taken.count, turned)))
        return tuple(fills)

    def _taken(self, key: Key, expert: int, half: Role | None) -> tuple[Matrix, Rows]:
        """Find one expert's matrix, and the rows of it that are wanted: all, or gate's or up's."""
        part = self.tensors[self.bank.name(key, expert)]
        rows, columns = self.bank.matrix(key)
        matrix = Matrix(part, expert * rows * columns if self.bank.is_stacked(key) else 0, rows, columns)
        turned = self.bank.is_turned(key)
        out = columns if turned else rows
        if half is None:
            return matrix, Rows(0, 1, out, turned)
        first, step = _rows_of(half, out // 2, self.bank)
        return matrix, Rows(first, step, out // 2, turned)


def _apart(key: Key) -> frozenset[Key]:
    role, kind = key
    return frozenset({("gate", kind), ("up", kind)}) if role == "gate_up" else frozenset({key})


def _rows_of(role: str, count: int, bank: Bank) -> tuple[int, int]:
    """Where gate or up begin in both joined, and how far one row is from the next."""
    if bank.joined is None:
        name = bank.name(("gate_up", "weight"), 0)
        raise CheckpointError(f"whether gate and up lie in {name} one above the other or in turns cannot be told")
    second = role == "up"
    return (int(second), 2) if bank.joined == "woven" else (count * second, 1)


def _types(parts: Sequence[StoredTensor]) -> tuple[str, str | None]:
    """Return the element type in which all are read, and the one in which the output keeps them."""
    kinds = list(dict.fromkeys(part.dtype for part in parts))
    natives = list(dict.fromkeys(part.native or part.dtype for part in parts))
    if len(kinds) == 1:
        return kinds[0], natives[0] if len(natives) == 1 and natives != kinds else None
    if not _WIDENED.issuperset(kinds):
        names = ", ".join(DTYPES[kind].name for kind in kinds)
        raise CheckpointError(f"{parts[0].name} and others have several element types: {names}")
    return "F32", natives[0] if len(natives) == 1 else None


def _run(fill: Fill, name: str, shape: tuple[int, ...]) -> StoredTensor | None:
    """See a part of a tensor where it lies, if it is one run of a file; or all of it, as it is."""
    matrix, taken = fill.matrix, fill.taken
    part = matrix.part
    if not taken.is_run or not fill.put.is_run:
        return None
    if part.size == matrix.size == taken.count * matrix.columns:
        return replace(part, name=name) if part.shape == shape else None
    if part.derived is not None or part.strides is not None:
        return None
    offset = part.offset + (matrix.start + taken.first * matrix.columns) * DTYPES[part.dtype].size
    return replace(part, name=name, shape=shape, offset=offset)
