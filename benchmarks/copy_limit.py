#!/usr/bin/env python3
"""The least that any merge must do: read every byte of some checkpoints once, and write as much as the first has.

    python -I -S benchmarks/copy_limit.py OUT INPUT [INPUT ...]

Two threads, buffers of 1 MiB that are used again and again, preadv and pwrite, new files under OUT of the sizes of
the first input's, nothing synced: the way in which a merge writes. Prints the bytes read and written. Uses nothing
outside Python's core modules, so that its start costs next to nothing.
"""

from __future__ import annotations

import os
import sys
import threading

CHUNK = 1 << 20
THREADS = 2


def weight_files(folder: str) -> list[str]:
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".safetensors"))  # noqa: PTH118, PTH208 - pathlib is slow to import


def chunks(descriptors: list[int]) -> list[tuple[int, int, int]]:
    """(descriptor, offset, length) of every piece of these files, in order."""
    out = []
    for descriptor in descriptors:
        size = os.fstat(descriptor).st_size
        out += [(descriptor, at, min(CHUNK, size - at)) for at in range(0, size, CHUNK)]
    return out


def copy(sources: list[list[tuple[int, int, int]]], targets: list[tuple[int, int, int]], first: int) -> None:
    """Handle every piece number `first`, `first` + 2, ...: read it from each source, write it to the target."""
    buffer = memoryview(bytearray(CHUNK))
    for i in range(first, max(map(len, sources)), THREADS):
        for source in sources:
            if i < len(source):
                descriptor, at, length = source[i]
                if os.preadv(descriptor, [buffer[:length]], at) != length:
                    raise OSError(f"short read at {at}")
        if i < len(targets):
            descriptor, at, length = targets[i]
            if os.pwrite(descriptor, buffer[:length], at) != length:
                raise OSError(f"short write at {at}")


def main() -> None:
    out, inputs = sys.argv[1], sys.argv[2:]
    os.makedirs(out)  # noqa: PTH103 - pathlib is slow to import
    sources = [chunks([os.open(file, os.O_RDONLY) for file in weight_files(folder)]) for folder in inputs]
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    targets = []
    for file in weight_files(inputs[0]):
        new = os.open(os.path.join(out, os.path.basename(file)), flags, 0o644)  # noqa: PTH118, PTH119 - as above
        targets += [(new, at, length) for _, at, length in chunks([os.open(file, os.O_RDONLY)])]
    faults: list[BaseException] = []
    threading.excepthook = lambda caught: faults.append(caught.exc_value or caught.exc_type())
    workers = [threading.Thread(target=copy, args=(sources, targets, i)) for i in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise faults[0]
    read = sum(length for source in sources for *_, length in source)
    print(f"read {read} wrote {sum(length for *_, length in targets)}")


if __name__ == "__main__":
    main()
