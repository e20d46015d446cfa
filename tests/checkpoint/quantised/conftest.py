"""Weights in every format: what is stored, the config that goes with it, and what it means.

References in numpy written from the formats' own descriptions (packing, not unpacking). In a test `form` is one of the
formats, `whole` the name of one that a whole model is written in, `packed` and so on one that is called for by name.
"""

from __future__ import annotations

import json

import ml_dtypes  # noqa: F401 - numpy learns the types' names
import numpy as np
import pytest
from safetensors.numpy import save_file

from plait.checkpoint import FileReader, dequantised, open_checkpoint

BF16 = np.dtype("bfloat16")
FP8 = np.dtype("float8_e4m3fn")
NF4 = [-1.0, -0.69619, -0.52507, -0.39492, -0.28444, -0.18477, -0.09105, 0.0]
NF4 += [0.07958, 0.16093, 0.24611, 0.33792, 0.44071, 0.56262, 0.72296, 1.0]


def rng_for(*seed):
    return np.random.default_rng(list(seed))


def grid(scales, block, shape):
    """Each block's number, for every element."""
    return np.repeat(np.repeat(scales, block[0], 0), block[1], 1)[: shape[0], : shape[1]]


def pack(fields, bits):
    """`[n, m]` fields into `[n, m · bits / 32]` words, lowest bits first."""
    per = 32 // bits
    padded = np.pad(fields, ((0, 0), (0, -fields.shape[1] % per))).astype(np.uint64).reshape(len(fields), -1, per)
    words = sum(padded[:, :, k] << np.uint64(k * bits) for k in range(per))
    return words.astype(np.uint32).view(np.int32)


def fp8_blocks(weight):
    rows, columns = weight.shape
    scales = rng_for(1).uniform(0.01, 0.2, (-(-rows // 24), -(-columns // 40))).astype(np.float32)
    codes = (weight * 20).astype(FP8)
    made = codes.astype(np.float32) * grid(scales, (24, 40), weight.shape)
    config = {"quant_method": "fp8", "weight_block_size": [24, 40]}
    return {"weight": codes, "weight_scale_inv": scales, "input_scale": np.float32(1)}, config, made


def fp8_tensor(weight):
    codes, scale = (weight * 20).astype(FP8), np.array([0.0375], BF16)
    config = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    return {"weight": codes, "weight_scale": scale}, config, codes.astype(np.float32) * scale.astype(np.float32)


def fp8_rows(weight):
    codes = (weight * 20).astype(np.dtype("float8_e5m2"))
    scales = rng_for(2).uniform(0.01, 0.2, (len(weight), 1)).astype(np.float32)
    return {"weight": codes, "weight_scale": scales}, {"quant_method": "fbgemm_fp8"}, codes.astype(np.float32) * scales


def fp8_powers(weight):
    exponents = rng_for(3).integers(118, 124, (-(-weight.shape[0] // 24), -(-weight.shape[1] // 40)))
    codes = (weight * 20).astype(FP8)
    scales = exponents.astype(np.uint8).view(np.dtype("float8_e8m0fnu"))
    made = codes.astype(np.float32) * grid(2.0 ** (exponents - 127), (24, 40), weight.shape)
    config = {"quant_method": "fp8", "weight_block_size": [24, 40]}
    return {"weight": codes, "weight_scale_inv": scales}, config, made.astype(np.float32)


def int8_rows(weight):
    rng = rng_for(4)
    codes = rng.integers(-128, 128, weight.shape).astype(np.int8)
    scales = rng.uniform(0.001, 0.02, (len(weight), 1)).astype(np.float32)
    zeros = rng.integers(-128, 128, scales.shape).astype(np.int8)
    config = {"quant_method": "compressed-tensors", "format": "int-quantized"}
    made = (codes.astype(np.float32) - zeros) * scales
    return {"weight": codes, "weight_scale": scales, "weight_zero_point": zeros}, config, made


def packed(weight, bits=4, group=8, *, symmetric=True, shuffled=False):
    rng = rng_for(5, bits)
    rows, columns = weight.shape
    group = group or columns  # 0: one a row
    codes = rng.integers(0, 1 << bits, weight.shape)
    index = rng.permutation(columns) // group if shuffled else np.arange(columns) // group
    scales = rng.uniform(0.01, 0.2, (rows, columns // group)).astype(BF16)
    zeros = np.full(scales.shape, 1 << (bits - 1)) if symmetric else rng.integers(0, 1 << bits, scales.shape)
    made = (codes - zeros[:, index]).astype(np.float32) * scales.astype(np.float32)[:, index]
    arrays = {
        "weight_packed": pack(codes, bits),
        "weight_scale": scales,
        "weight_shape": np.array(weight.shape, np.int64),
    }
    arrays |= {} if symmetric else {"weight_zero_point": np.ascontiguousarray(pack(zeros.T, bits).T)}
    arrays |= {"weight_g_idx": index.astype(np.int32)} if shuffled else {}
    groups = {"group_0": {"weights": {"num_bits": bits, "group_size": group}}}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    return arrays, config, made


def gptq(weight, bits=4, form="gptq", *, shuffled=False):
    rng = rng_for(6, bits)
    outputs, inputs = weight.shape
    codes = rng.integers(0, 1 << bits, (inputs, outputs))
    index = rng.permutation(inputs) // 32 if shuffled else np.arange(inputs) // 32
    zeros = rng.integers(
        0, 1 << bits, (-(-inputs // 32), outputs)
    )  # a zero of 0 is stored as all ones by the first form
    scales = rng.uniform(0.01, 0.2, zeros.shape).astype(np.float16)
    made = ((codes - zeros[index]).astype(np.float32) * scales.astype(np.float32)[index]).T
    stored = (zeros - 1) % (1 << bits) if form == "gptq" else zeros
    words = np.ascontiguousarray(pack(codes.T, bits).T)
    arrays = {"qweight": words, "qzeros": pack(stored, bits), "scales": scales, "g_idx": index.astype(np.int32)}
    config = {"quant_method": "gptq", "bits": bits, "group_size": 32, "checkpoint_format": form}
    return arrays, config, made


def awq(weight):
    rng = rng_for(7)
    outputs, inputs = weight.shape
    codes, zeros = rng.integers(0, 16, (inputs, outputs)), rng.integers(0, 16, (-(-inputs // 32), outputs))
    scales = rng.uniform(0.01, 0.2, zeros.shape).astype(np.float16)
    index = np.arange(inputs) // 32
    made = ((codes - zeros[index]).astype(np.float32) * scales.astype(np.float32)[index]).T

    def interleaved(fields):
        return pack(fields.reshape(len(fields), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(fields.shape), 4)

    arrays = {"qweight": interleaved(codes), "qzeros": interleaved(zeros), "scales": scales}
    return arrays, {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, made


def bnb4(weight, *, nested=False):
    rng = rng_for(8)
    count = weight.size
    codes = rng.integers(0, 16, count)
    blocks = -(-count // 64)
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(weight.shape)}
    arrays = {"weight.quant_map": np.array(NF4, np.float32)}
    if nested:
        small = rng.integers(0, 256, blocks).astype(np.uint8)
        table, outer = rng.uniform(-1, 1, 256).astype(np.float32), rng.uniform(1, 2, -(-blocks // 8)).astype(np.float32)
        said |= {"nested_blocksize": 8, "nested_offset": 0.75, "nested_dtype": "float32"}
        arrays |= {"weight.absmax": small, "weight.nested_absmax": outer, "weight.nested_quant_map": table}
        scales = table[small] * outer[np.arange(blocks) // 8] + np.float32(0.75)
    else:
        arrays["weight.absmax"] = scales = rng.uniform(0.1, 2, blocks).astype(np.float32)
    even = np.pad(codes, (0, count % 2))
    arrays["weight"] = (even[::2] << 4 | even[1::2]).astype(np.uint8).reshape(-1, 1)
    arrays["weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    made = np.array(NF4, np.float32)[codes] * scales[np.arange(count) // 64]
    return arrays, {"quant_method": "bitsandbytes", "load_in_4bit": True}, made.reshape(weight.shape)


def bnb8(weight):
    rng = rng_for(9)
    codes, rows = (
        rng.integers(-127, 128, weight.shape).astype(np.int8),
        rng.uniform(1, 9, len(weight)).astype(np.float32),
    )
    made = codes.astype(np.float32) * rows[:, None] * np.float32(1 / 127)
    arrays = {"weight": codes, "SCB": rows, "weight_format": np.uint8(0)}
    return arrays, {"quant_method": "bitsandbytes", "load_in_8bit": True}, made


FORMATS = {
    "fp8 by block": fp8_blocks,
    "fp8 by tensor": fp8_tensor,
    "fp8 by row": fp8_rows,
    "fp8 by powers of two": fp8_powers,
    "int8 with zeros": int8_rows,
    "packed int4": packed,
    "packed int4 by row": lambda weight: packed(weight, group=0),
    "packed int4 with zeros": lambda weight: packed(weight, symmetric=False),
    "packed int4 out of order": lambda weight: packed(weight, shuffled=True),
    "packed int8": lambda weight: packed(weight, 8, symmetric=False),
    "packed int8 by row": lambda weight: packed(weight, 8, group=0, symmetric=False),
    "gptq": gptq,
    "gptq 2": lambda weight: gptq(weight, 2),
    "gptq 8": lambda weight: gptq(weight, 8),
    "gptq v2": lambda weight: gptq(weight, form="gptq_v2"),
    "gptq out of order": lambda weight: gptq(weight, shuffled=True),
    "awq": awq,
    "bitsandbytes nf4": bnb4,
    "bitsandbytes nf4, nested": lambda weight: bnb4(weight, nested=True),
    "bitsandbytes int8": bnb8,
}


WHOLE = [
    "fp8 by block",
    "int8 with zeros",
    "packed int4 by row",
    "gptq",
    "awq",
    "bitsandbytes nf4, nested",
    "bitsandbytes int8",
]


def pytest_generate_tests(metafunc):
    """Run a test that takes `form` on all formats, and one that takes `whole` on one of each kind."""
    if "form" in metafunc.fixturenames:
        metafunc.parametrize("form", FORMATS.values(), ids=FORMATS)
    if "whole" in metafunc.fixturenames:
        metafunc.parametrize("whole", WHOLE)


@pytest.fixture
def formats():
    """Every format by name."""
    return FORMATS


@pytest.fixture
def write(tmp_path):
    """Write a checkpoint with this quantization_config."""

    def written(arrays, settings, name="q", **config):
        folder = tmp_path / name
        folder.mkdir()
        save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, folder / "model.safetensors")
        about = {"model_type": "llama", **config} | ({"quantization_config": settings} if settings else {})
        (folder / "config.json").write_text(json.dumps(about))
        return folder

    return written


@pytest.fixture
def narrow(monkeypatch):
    """Make strips so small that these tensors have many."""
    for name, value in {"_SPAN": 450, "_SMALL": 100, "_AT_ONCE": 2000}.items():
        monkeypatch.setattr(f"plait.checkpoint.dequantise.strips.{name}", value)


@pytest.fixture
def read():
    """Read every tensor of a folder in pieces that fit nothing."""
    return _read


def _read(folder, pieces=(1, 13, 999)):
    made = {}
    with FileReader() as reader:
        for name, tensor in dequantised(open_checkpoint(folder)).tensors.items():
            raw, size = np.empty(tensor.nbytes, np.uint8), tensor.nbytes // tensor.size
            start, turn = 0, 0
            while start < tensor.size:
                stop = min(tensor.size, start + pieces[turn % len(pieces)])
                reader.read_elements(tensor, start, raw[start * size : stop * size])
                start, turn = stop, turn + 1
            kind = {"BF16": BF16, "F16": np.float16, "F32": np.float32}[tensor.dtype]
            made[name] = raw.view(kind).reshape(tensor.shape)
    return made
