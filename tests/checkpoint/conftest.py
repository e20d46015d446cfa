import json
from pathlib import Path

import numpy as np
import pytest


def header_bytes(header, pad=True):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@pytest.fixture
def write_raw():
    """Write a safetensors file with just this header (a dict or bytes) and this data."""

    def write(path, header, data=b""):
        path.write_bytes(header_bytes(header) + data)
        return path

    return write


@pytest.fixture
def write_tensors():
    """Write {name: array} as a sound safetensors file, of float32 and int64."""

    def write(path, arrays):
        header, data = {"__metadata__": {"format": "pt"}}, b""
        for name, array in arrays.items():
            begin = len(data)
            data += np.ascontiguousarray(array).tobytes()
            code = {"float32": "F32", "int64": "I64", "uint8": "U8"}[array.dtype.name]
            header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, len(data)]}
        path.write_bytes(header_bytes(header) + data)
        return path

    return write


@pytest.fixture
def write_shards(write_tensors):
    """Write shards {file: {name: array}} and their index into a folder, with a config."""

    def write(folder, shards, index="model.safetensors.index.json", weight_map=None):
        folder.mkdir(exist_ok=True)
        for file, arrays in shards.items():
            write_tensors(folder / file, arrays)
        if index:
            named = {name: file for file, arrays in shards.items() for name in arrays}
            text = {"metadata": {"total_size": 0}, "weight_map": named if weight_map is None else weight_map}
            (folder / index).write_text(json.dumps(text))
        (folder / "config.json").write_text('{"model_type": "llama"}')
        return folder

    return write


@pytest.fixture
def ones():
    """A small float32 array."""
    return lambda *shape: np.ones(shape, np.float32)


@pytest.fixture
def bytes_of():
    """Read a stored tensor's bytes."""

    def read(tensor):
        with Path(tensor.file).open("rb") as stream:
            stream.seek(tensor.offset)
            return stream.read(tensor.nbytes)

    return read
