"""Machine code of kernels: made by Numba, loaded again by LLVM alone, which takes a tenth of the time to import."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

__all__ = ["Code", "Signature", "loaded", "made", "processor"]

Signature = tuple[str, ...]
"""What a kernel takes, in order: numpy's name of a type for a number, followed by "[n]" for an array of n dimensions."""
_NAME = r'("[^"]+"|[\w.$-]+)'
_LINES = re.MULTILINE | re.DOTALL
_FREES = "NRT_MemInfo_call_dtor"
_LIBRARY = {"memcpy", "memmove", "memset", "pread", "sqrt"}  # functions outside a kernel that are there in any process
_engines: list[Any] = []  # they own the code


@dataclass(frozen=True)
class Code:
    """A kernel's object file, and the name of the function within."""

    name: str
    data: bytes


@cache
def processor() -> str:
    """Say for what processor code is made: it may not run on another."""
    return f"{llvm.get_default_triple()} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


def made(run: Any, signature: Signature) -> Code | None:
    """Compile a kernel, given as what `numba.njit` returned; None where the code would need Numba to run."""
    from numba import types
    from numba.np.numpy_support import from_dtype

    takes = []
    for one in signature:
        dtype, dimensions = _parsed(one)
        kind = from_dtype(dtype)
        takes.append(types.Array(kind, dimensions, "C") if dimensions else kind)
    run.compile(tuple(takes))
    described = run.overloads[tuple(takes)].fndesc
    if described.restype != types.int64:
        raise TypeError(f"a kernel returns an int64, not {described.restype}")
    text = _reached(run.inspect_llvm(tuple(takes)), described.llvm_func_name)
    return None if text is None else Code(described.llvm_func_name, _target().emit_object(llvm.parse_assembly(text)))


def _reached(module: str, name: str) -> str | None:
    """Leave of a module's text only the functions that `name` may call; None where one is neither there nor in any process.

    The others, by which Python calls it, need Numba. What frees an array does nothing: those given have no owner, and
    code that makes one is among what is not there.
    """
    module = re.sub(
        rf"^declare (.*? @{_FREES}\(ptr)\).*$", r"define internal \1 %0) {\nret void\n}", module, flags=re.MULTILINE
    )
    functions = {found[1]: found[0] for found in re.finditer(rf"^define .*?@{_NAME}\(.*?^}}\n", module, _LINES)}
    reached, ahead = set(), {name}
    while ahead:
        one = ahead.pop()
        reached.add(one)
        ahead |= set(re.findall(f"@{_NAME}", functions.get(one, ""))) - reached
    outside = set(re.findall(rf"^declare .*?@{_NAME}\(|^@{_NAME} = external", module, re.MULTILINE))
    if any(one in reached and not one.startswith("llvm.") for pair in outside for one in pair if one not in _LIBRARY):
        return None
    for other in functions.keys() - reached:
        module = module.replace(functions[other], "")
    return module


@cache
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


def loaded(code: Code, signature: Signature) -> Callable[..., int]:
    """Return the kernel as a function of such numbers and arrays, C-contiguous; it runs without the GIL."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.data))
    engine.finalize_object()
    _engines.append(engine)
    parsed = [_parsed(one) for one in signature]
    kinds: list[Any] = [ctypes.c_void_p, ctypes.c_void_p]
    for dtype, dimensions in parsed:
        kinds += _pieces(dimensions) if dimensions else [np.ctypeslib.as_ctypes_type(dtype)]
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(engine.get_function_address(code.name))

    def run(*arguments: Any) -> int:
        result, failure = ctypes.c_int64(), ctypes.c_void_p()
        passed: list[Any] = []
        for (dtype, dimensions), argument in zip(parsed, arguments, strict=True):
            passed += _taken_apart(argument, dtype, dimensions) if dimensions else [int(argument)]
        if function(ctypes.addressof(result), ctypes.addressof(failure), *passed):
            raise RuntimeError("a kernel failed")  # there is none that can
        return result.value

    return run


def _parsed(one: str) -> tuple[np.dtype[Any], int]:
    name, _, dimensions = one.rstrip("]").partition("[")
    return np.dtype(name), int(dimensions or 0)


def _pieces(dimensions: int) -> list[Any]:
    """Numba passes an array as two pointers to its owner, its size, the size of an element, its data, shape and strides."""
    whole = ctypes.c_int64
    return [ctypes.c_void_p, ctypes.c_void_p, whole, whole, ctypes.c_void_p, *[whole] * (2 * dimensions)]


def _taken_apart(array: npt.NDArray[Any], dtype: np.dtype[Any], dimensions: int) -> list[Any]:
    if array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
        raise TypeError(f"a kernel takes {dtype} [{dimensions}], C-contiguous, not {array.dtype} [{array.ndim}]")
    at = array.__array_interface__["data"][0]  # `ctypes.data` takes five times as long
    return [None, None, array.size, array.itemsize, at, *array.shape, *array.strides]
