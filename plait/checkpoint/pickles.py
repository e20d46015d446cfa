"""A reader of the pickles in torch's files that cannot run anything.

A pickle is a program for a small stack machine. This is that machine without its one dangerous part: it imports
nothing and calls nothing. The few names that torch writes for tensors stand for inert values here; every other name,
and every opcode that checkpoints have no use for, is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from plait.dtypes import DTYPES, Dtype, dtype_by_name
from plait.errors import CheckpointError

__all__ = ["MAX_PICKLE", "Pickled", "PickledStorage", "PickledTensor", "read_pickle"]

MAX_PICKLE = 100_000_000


@dataclass(frozen=True, slots=True)
class PickledStorage:
    """The block of bytes `key`, of `total` elements of `dtype` (of bytes, where None).

    Of those, `count` from `start` on are meant: all, save in files from before torch 1.0, which had views.
    """

    key: str
    dtype: Dtype | None
    total: int
    start: int
    count: int

    @property
    def width(self) -> int:
        """Bytes an element."""
        return self.dtype.size if self.dtype else 1


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """One tensor as pickled; `offset` and `stride` count elements of `dtype`."""

    storage: PickledStorage
    dtype: Dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie row by row without a gap."""
        expected = 1
        for length, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if length != 1 and step != expected:
                return 0 in self.shape
            expected *= length
        return True


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that the pickle asked for and that is allowed; never the thing itself."""

    name: str


class _Refused(Exception):  # noqa: N818  (never leaves this module)
    """What is wrong with the pickle; `read_pickle` adds the file."""


@dataclass(frozen=True, slots=True)
class Pickled:
    """What a pickle says: `value` of dicts, lists, tuples, numbers, text and `PickledTensor`; storages by key."""

    value: Any
    storages: Mapping[str, PickledStorage]


def read_pickle(file: str, stream: IO[bytes]) -> Pickled:
    """Read one pickle from `stream`, which is left just behind it; `file` is for messages.

    Raises:
        CheckpointError: the pickle asks for anything that a checkpoint does not need, or is broken.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", _Bounded(stream))):
            machine.step(opcode.name, argument)
    except _Refused as error:
        raise CheckpointError(f"{file}: {error}") from None
    except Exception as error:
        raise CheckpointError(f"{file}: the pickle in it is broken or cut short ({error}).") from error
    return Pickled(machine.result, machine.storages)


class _Bounded:
    """As much of a file as `pickletools.genops` needs, with a bound on what one pickle may take."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = MAX_PICKLE

    def read(self, count: int) -> bytes:
        return self._take(self._stream.read(min(count, self._left + 1)))

    def readline(self) -> bytes:
        return self._take(self._stream.readline(self._left + 1))

    def _take(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise _Refused(f"the pickle in it has over {MAX_PICKLE} bytes; those of checkpoints have a few thousand.")
        return data


class _Machine:
    """The stack, the memo and one method a group of opcodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, PickledStorage] = {}
        self.result: Any = None

    def step(self, opcode: str, argument: Any) -> None:
        """Carry out one opcode."""
        if opcode in _PRIMITIVES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        else:
            raise _Refused(f"the pickle in it uses {opcode}, which no checkpoint needs; refused, nothing was run.")

    def push(self, value: Any) -> None:
        """Put on the stack of now: unlike `stack.append`, which is looked up before its argument is made."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def put(self, argument: Any) -> None:
        self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _Refused("the pickle in it appends to something that is no list.")
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        # Only flat keys: hashing a tuple nested a million deep would overflow the C stack.
        if not isinstance(target, dict) or not all(isinstance(key, _KEY_TYPES) for key in items[::2]):
            raise _Refused("the pickle in it sets items of something that is no dict of plain keys.")
        target.update(zip(items[::2], items[1::2], strict=True))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise _Refused("the pickle in it takes more from its stack than there is.")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def dict_of_mark(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.update(items)

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def push_name(self, module: Any, name: Any) -> None:
        # Only text: to write out a nest of lists would take time and memory without bound.
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Refused("the pickle in it asks for a name that is no text.")
        self.stack.append(_find(f"{module}.{name}"))

    def stack_name(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(module, name)

    def call(self, _: Any) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(target, arguments))

    def build(self, _: Any) -> None:
        """Drop an object's state: of a state dict it is `_metadata`, which holds no tensors."""
        self.stack.pop()

    def storage(self, _: Any) -> None:
        storage = _storage(self.stack.pop())
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.total) != (storage.dtype, storage.total):
            raise _Refused(f"the pickle in it describes the storage {storage.key[:200]!a} in two ways.")
        self.stack.append(storage)

    def stop(self, _: Any) -> None:
        self.result = self.stack.pop()


_KEY_TYPES = (str, int, float, bytes, type(None))
_PRIMITIVES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"}
    | {"SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda _machine, _argument: None,
    "FRAME": lambda _machine, _argument: None,
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "DICT": _Machine.dict_of_mark,
    "SETITEM": lambda machine, _: machine.update([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_mark()),
    "GLOBAL": lambda machine, argument: machine.push_name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
    "STOP": _Machine.stop,
}


def _find(name: str) -> Any:
    """Look a name up among those that are allowed."""
    storage = name.removeprefix("torch.").removeprefix("cuda.").removeprefix("storage.")
    if name in _CALLS or name in _TYPES or (name.startswith("torch.") and storage in _STORAGES):
        return _Name(name)
    if name.startswith("torch.") and (dtype := dtype_by_name(name)):
        return dtype
    if name.removeprefix("torch.") in _UNREADABLE:
        raise _Refused(f"it holds tensors of the type {name}; plait knows {', '.join(DTYPES)}.")
    raise _Refused(
        f"a pickle with code in it: it asks for {name[:200]}, which weights do not need; refused, nothing was run. "
        "If you trust the file, load it with torch elsewhere and save the weights as safetensors."
    )


def _call(target: Any, arguments: Any) -> Any:
    name = target.name if isinstance(target, _Name) else None
    if name not in _CALLS or not isinstance(arguments, tuple):
        raise _Refused("the pickle in it calls something that is no function; refused, nothing was run.")
    return _CALLS[name](*arguments)


def _storage(identity: Any) -> PickledStorage:
    """Read torch's `("storage", type, key, device, count[, (view key, offset, count)])`."""
    kind, typ, key, _, total, *view = identity
    if kind != "storage" or not isinstance(typ, _Name) or not isinstance(key, str):
        raise _Refused("the pickle in it refers to something that is no storage.")
    dtype = _STORAGES[typ.name.rpartition(".")[2]]
    start, count = (0, total) if not view or view[0] is None else view[0][1:]
    _whole("a storage", total, start, count)
    if start + count > total:
        raise _Refused("the pickle in it has a view that is larger than its storage.")
    return PickledStorage(key, dtype, total, start, count)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any) -> PickledTensor:
    """torch._utils._rebuild_tensor(_v2)."""
    if not isinstance(storage, PickledStorage) or storage.dtype is None:
        raise _Refused("the pickle in it makes a tensor of something that is no typed storage.")
    return _checked(PickledTensor(storage, storage.dtype, offset, tuple(shape), tuple(stride)))


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_rest: Any
) -> PickledTensor:
    """torch._utils._rebuild_tensor_v3: bytes, and the type beside them."""
    if not isinstance(storage, PickledStorage) or not isinstance(dtype, Dtype):
        raise _Refused("the pickle in it makes a tensor of something that is no storage.")
    return _checked(PickledTensor(storage, dtype, offset, tuple(shape), tuple(stride)))


def _checked(tensor: PickledTensor) -> PickledTensor:
    _whole("a tensor", tensor.offset, *tensor.shape, *tensor.stride)
    if len(tensor.shape) != len(tensor.stride) or len(tensor.shape) > 64:  # torch stops at 64 dimensions, too
        raise _Refused("the pickle in it has a tensor whose shape and strides do not fit each other.")
    return tensor


def _whole(what: str, *numbers: Any) -> None:
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise _Refused(f"the pickle in it gives {what} an offset or a length that is no whole number from 0 up.")


def _parameter(data: Any, *_rest: Any) -> PickledTensor:
    if not isinstance(data, PickledTensor):
        raise _Refused("the pickle in it makes a parameter of something that is no tensor.")
    return data


def _from_type(function: Any, typ: Any, arguments: Any, _state: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor with attributes of its own, which are dropped."""
    if not isinstance(typ, _Name) or typ.name not in _TYPES:
        raise _Refused("the pickle in it makes a tensor of an unknown type.")
    return _call(function, arguments)


def _mapping(*arguments: Any) -> dict[Any, Any]:
    """collections.OrderedDict, of nothing or of a list of pairs."""
    machine = _Machine()
    machine.stack.append({})
    for pair in arguments[0] if arguments else ():
        machine.update(list(pair))
    made: dict[Any, Any] = machine.stack.pop()
    return made


def _inert(*_arguments: Any) -> None:
    """A device, a layout: of no meaning for the bytes."""


_CALLS: dict[str | None, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": tuple,
    "torch.device": _inert,
    "torch.serialization._get_layout": _inert,
    "_codecs.encode": _inert,
}
_TYPES = frozenset({"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"})
_STORAGES: dict[str, Dtype | None] = {
    "DoubleStorage": DTYPES["F64"],
    "FloatStorage": DTYPES["F32"],
    "HalfStorage": DTYPES["F16"],
    "BFloat16Storage": DTYPES["BF16"],
    "LongStorage": DTYPES["I64"],
    "IntStorage": DTYPES["I32"],
    "ShortStorage": DTYPES["I16"],
    "CharStorage": DTYPES["I8"],
    "ByteStorage": DTYPES["U8"],
    "BoolStorage": DTYPES["BOOL"],
    "ComplexFloatStorage": DTYPES["C64"],
    "UntypedStorage": None,
}
_UNREADABLE = frozenset(
    {"ComplexDoubleStorage", "QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage"}
    | {"complex128", "complex32", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn_x2", "quint8", "qint8", "qint32"}
)
