"""Every format read, against references in numpy written from the formats' own descriptions (packing, not unpacking).

Where transformers has a reader of its own, it is asked too; `test_quantised_parity.py` asks the libraries that write them.
"""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import plait
from plait.checkpoint import FileReader, dequantised, open_checkpoint
from plait.errors import CheckpointError, RecipeError

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


def packed(weight, bits=4, group=12, *, symmetric=True, shuffled=False):
    rng = rng_for(5, bits, group)
    rows, columns = weight.shape
    group = group or columns
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
    """Make bands so small that these tensors have many."""
    for name in ("_BAND", "_WIDE"):
        monkeypatch.setattr(f"plait.checkpoint.dequantise.forms.{name}", 500)


def read(folder, pieces=(1, 13, 999)):
    """Read every tensor in pieces that fit nothing."""
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


@pytest.mark.parametrize("shape", [(96, 120), (112, 192)])
@pytest.mark.parametrize("form", FORMATS)
def test_weights_are_those_that_the_format_means(form, shape, write, narrow):
    weight = rng_for(0).standard_normal(shape).astype(np.float32)
    if shape[1] % 32 and form.startswith(("gptq", "awq")):
        shape = (96, 128)
        weight = rng_for(0).standard_normal(shape).astype(np.float32)
    arrays, settings, expected = FORMATS[form](weight)
    folder = write({f"a.{name}": array for name, array in arrays.items()}, settings)
    made = read(folder)
    assert list(made) == ["a.weight"]
    np.testing.assert_array_equal(made["a.weight"], expected.astype(np.float32).astype(BF16))


@pytest.mark.parametrize(("said", "kind"), [("float16", np.float16), ("float32", np.float32), ("int8", BF16)])
def test_the_config_says_in_which_type(said, kind, write):
    arrays, settings, expected = packed(np.zeros((8, 24)))
    made = read(write({f"a.{n}": a for n, a in arrays.items()}, settings, torch_dtype=said))["a.weight"]
    np.testing.assert_array_equal(made, expected.astype(kind))
    assert made.dtype == kind


def test_odd_counts_of_columns_and_rows(write, narrow):
    for form in (bnb4, bnb8, fp8_blocks, int8_rows, lambda weight: packed(weight, group=0, symmetric=False)):
        arrays, settings, expected = form(np.ones((37, 61), np.float32))
        folder = write({f"a.{n}": a for n, a in arrays.items()}, settings, name=f"q{id(form)}")
        np.testing.assert_array_equal(read(folder)["a.weight"], expected.astype(BF16))


def test_experts_of_mxfp4_as_transformers_reads_them(write, narrow):
    torch = pytest.importorskip("torch")
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    rng = rng_for(10)
    blocks = rng.integers(0, 256, (3, 40, 5, 16)).astype(np.uint8)
    scales = rng.integers(110, 132, (3, 40, 5)).astype(np.uint8)
    folder = write(
        {"m.experts.down_proj_blocks": blocks, "m.experts.down_proj_scales": scales}, {"quant_method": "mxfp4"}
    )
    made = read(folder)["m.experts.down_proj"]
    theirs = mxfp4.convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales))
    np.testing.assert_array_equal(made.astype(np.float32), theirs.float().numpy())
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    low, high = blocks & 15, blocks >> 4
    codes = np.stack([low, high], -1).reshape(3, 40, 5, 32)
    numbers = values[codes & 7] * np.where(codes & 8, -1, 1) * 2.0 ** (scales.astype(int) - 127)[..., None]
    np.testing.assert_array_equal(made.astype(np.float64), numbers.reshape(3, 40, 160).transpose(0, 2, 1))


def test_fp8_blocks_as_transformers_reads_them(write):
    torch = pytest.importorskip("torch")
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes = (rng_for(11).standard_normal((256, 384)) * 50).astype(FP8)
    scales = rng_for(12).uniform(0.001, 0.1, (2, 3)).astype(np.float32)
    folder = write({"a.weight": codes, "a.weight_scale_inv": scales}, {"quant_method": "fp8"})
    theirs = fp8.Fp8Dequantize(None)._dequantize_one(
        torch.from_numpy(codes.view(np.uint8)).view(torch.float8_e4m3fn), torch.from_numpy(scales), torch.bfloat16
    )
    np.testing.assert_array_equal(read(folder)["a.weight"].astype(np.float32), theirs.float().numpy())


def test_fused_experts_in_fp8_have_their_scales_apart(write):
    codes = (rng_for(13).standard_normal((4, 48, 64)) * 20).astype(FP8)
    scales = rng_for(14).uniform(0.01, 0.2, (4, 2, 2)).astype(np.float32)
    arrays = {"m.experts.gate_up_proj": codes, "m.experts.gate_up_proj_scale_inv": scales}
    folder = write(arrays, {"quant_method": "fp8", "weight_block_size": [32, 32]})
    wide = np.repeat(np.repeat(scales, 32, 1), 32, 2)[:, :48]
    np.testing.assert_array_equal(
        read(folder)["m.experts.gate_up_proj"], (codes.astype(np.float32) * wide).astype(BF16)
    )


SHAPES = {
    "model.embed_tokens.weight": (64, 32),
    "model.layers.0.self_attn.q_proj.weight": (32, 32),
    "model.layers.0.self_attn.k_proj.weight": (32, 32),
    "model.layers.0.self_attn.v_proj.weight": (32, 32),
    "model.layers.0.self_attn.o_proj.weight": (32, 32),
    "model.layers.0.mlp.gate_proj.weight": (96, 32),
    "model.layers.0.mlp.up_proj.weight": (96, 32),
    "model.layers.0.mlp.down_proj.weight": (32, 96),
    "model.layers.0.input_layernorm.weight": (32,),
    "model.layers.0.post_attention_layernorm.weight": (32,),
    "model.norm.weight": (32,),
    "lm_head.weight": (64, 32),
}
ABOUT = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 96}
ABOUT |= {"num_attention_heads": 2, "vocab_size": 64, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
WHOLE = [
    "fp8 by block",
    "int8 with zeros",
    "packed int4 by row",
    "gptq",
    "awq",
    "bitsandbytes nf4, nested",
    "bitsandbytes int8",
]


@pytest.fixture
def llamas(write, tmp_path, monkeypatch):
    """Write an ordinary Llama and one in a format; return what the second means, and its stored names."""
    monkeypatch.chdir(tmp_path)

    def made(form):
        plain, stored, meant, settings = {}, {}, {}, {}
        for seed, (name, shape) in enumerate(SHAPES.items()):
            plain[name] = rng_for(20, seed).standard_normal(shape).astype(BF16)
            meant[name] = other = rng_for(21, seed).standard_normal(shape).astype(BF16)
            stored[name] = other
            if "_proj." in name:
                arrays, settings, expected = FORMATS[form](other.astype(np.float32))
                del stored[name]
                stored |= {name.removesuffix("weight") + key: array for key, array in arrays.items()}
                meant[name] = expected.astype(np.float32).astype(BF16)
        write(plain, None, "plain", **ABOUT)
        write(stored, settings, "q", **ABOUT)
        return plain, meant, set(stored) - set(SHAPES)

    return made


LINEAR = "models: [{model: q}, {model: plain}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"


@pytest.mark.parametrize("form", WHOLE)
def test_a_quantised_llama_merges_with_a_plain_one(form, llamas, tmp_path):
    plain, meant, beside = llamas(form)
    (tmp_path / "r.yml").write_text(LINEAR)
    plan = plait.plan("r.yml")
    said = " ".join(plan.models[0].notes)
    assert "Quantised, " in said
    assert "7 tensors dequantised to bfloat16 as they are read" in said
    assert "quantization_config is left out" in said
    assert plan.dropped == ()
    assert {step.name for step in plan.steps} == set(SHAPES)
    parts = {part.name for step in plan.steps for source in step.inputs for part in source.tensor.held}
    unread = {name for name in beside - parts if name.rpartition(".")[2] not in {"input_scale", "weight_format"}}
    assert unread == set(), "every tensor beside a weight is read into it"
    plait.merge("r.yml", "out", threads=2)
    written = plait.load("out")
    for name in SHAPES:
        mean = (meant[name].astype(np.float32) + plain[name].astype(np.float32)) / 2
        np.testing.assert_array_equal(written[name].astype(np.float32), mean.astype(BF16).astype(np.float32), name)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())


def test_merged_with_itself_it_is_what_it_means_whatever_the_threads(llamas, tmp_path):
    _, meant, _ = llamas("gptq")
    (tmp_path / "r.yml").write_text(
        "models: [{model: q}, {model: q}]\nmerge_method: slerp\nbase_model: q\nparameters: {t: 0.5}\n"
    )
    (tmp_path / "c.yml").write_text("models: [{model: q}]\nmerge_method: passthrough\n")
    plait.merge("c.yml", "one", threads=1)
    plait.merge("c.yml", "two", threads=3)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    written = plait.load("one")
    for name in SHAPES:
        np.testing.assert_array_equal(written[name], meant[name])


def test_the_plan_counts_the_bytes_that_are_stored(llamas, tmp_path):
    llamas("packed int4 by row")
    (tmp_path / "c.yml").write_text("models: [{model: q}]\nmerge_method: passthrough\n")
    step = next(step for step in plait.plan("c.yml").steps if step.name.endswith("gate_proj.weight"))
    assert step.sources[0].nbytes == 96 * 32 // 2 + 96 * 2 + 16


def _refused(folder):
    with pytest.raises(CheckpointError) as caught:
        dequantised(open_checkpoint(folder))
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"quant_method": "hqq"}, "the format 'hqq' is not read"),
        ({"quant_method": "awq", "version": "gemv"}, "awq with version 'gemv' is not read, only gemm"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "gptq with checkpoint_format 'marlin' is not read"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "format 'nvfp4-pack-quantized'"),
        (
            {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"}},
            "compressed sparsity",
        ),
        (
            {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"a": 1}}},
            "transforms of the weights",
        ),
        ({"quant_method": "fp8"}, "take quantization_config out of its config.json"),
    ],
)
def test_what_is_not_read_is_refused_by_name(settings, told, write):
    message = _refused(write({"a.weight": np.ones((4, 4), np.float32)}, settings))
    assert told in message
    assert f"q is quantised ({settings['quant_method']}" in message


def change(arrays, **changes):
    kept = {name: array for name, array in arrays.items() if name not in changes}
    return kept | {name: array for name, array in changes.items() if array is not None}


WRONG = {
    "scales that do not fit": (fp8_blocks, {"weight_scale_inv": np.ones((7, 3), np.float32)}, "do not fit"),
    "no scale": (fp8_blocks, {"weight_scale_inv": None}, "have no scale: a.weight"),
    "fp4 in bytes": (fp8_blocks, {"weight": np.ones((96, 120), np.int8)}, "from compressed-tensors only"),
    "zeros that do not fit": (int8_rows, {"weight_zero_point": np.ones(3, np.int8)}, "as many zero points"),
    "no shape": (packed, {"weight_shape": None}, "no *.weight_shape beside it: a.weight_packed"),
    "another shape": (packed, {"weight_shape": np.array([96, 64])}, "not 4 or 8 bits for each of 96 × 64"),
    "packed zeros that do not fit": (
        packed,
        {"weight_zero_point": np.ones((5, 10), np.int32)},
        "zero points do not fit",
    ),
    "groups that do not fit": (packed, {"weight_g_idx": np.ones(5, np.int32)}, "weight_g_idx does not fit"),
    "no zeros": (gptq, {"qzeros": None}, "no *.qzeros beside it: a.qweight"),
    "an index that does not fit": (gptq, {"g_idx": np.ones(5, np.int32)}, "groups do not fit"),
    "odd bits": (gptq, {"qzeros": np.ones((4, 9), np.int32)}, "only 2, 4 or 8 bits"),
    "awq by another layout": (awq, {"qweight": np.ones((128, 26), np.int32)}, "GEMM layout"),
    "no quant_state": (bnb4, {"weight.quant_state.bitsandbytes__nf4": None}, "no quant_state of nf4 or fp4"),
    "quant_state of nothing": (
        bnb4,
        {"weight.quant_state.bitsandbytes__nf4": np.frombuffer(b"{}", np.uint8)},
        "no shape",
    ),
    "quant_state cut": (bnb4, {"weight.quant_state.bitsandbytes__nf4": np.frombuffer(b"{", np.uint8)}, "no JSON"),
    "codes that do not fit": (bnb4, {"weight": np.ones((9, 1), np.uint8)}, "do not fit the shape in quant_state"),
    "not nested": (bnb4, {"weight.absmax": np.ones(192, np.uint8)}, "no nested_absmax"),
    "another order": (bnb8, {"weight_format": np.uint8(1)}, "not that of rows in order"),
    "something more": (bnb8, {"qweight": np.ones((2, 2), np.int32)}, "no *.qzeros beside it"),
    "something beside nothing": (bnb8, {"extra.weight_scale_inv": np.ones(1, np.float32)}, "no weight takes these"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_with_the_way_out(case, write):
    form, changes, told = WRONG[case]
    shape = (104, 128) if form in {gptq, awq} else (96, 128) if "nested" in case else (96, 120)
    arrays, settings, _ = form(np.ones(shape, np.float32))
    arrays = change(arrays, **changes)
    message = _refused(write({f"a.{name}": array for name, array in arrays.items()}, settings))
    assert told in message
    assert "Dequantise it first, or name the checkpoint that it was made from." in message


def test_gptq_without_a_config_may_mean_either_zero(write):
    arrays, _, _ = gptq(np.ones((96, 128)))
    assert "need a config that says quant_method gptq" in _refused(
        write({f"a.{n}": a for n, a in arrays.items()}, None)
    )


def test_a_fault_of_the_recipe_names_the_line(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write({"a.weight": np.ones((4, 4), np.float32)}, {"quant_method": "hqq"})
    (tmp_path / "r.yml").write_text("models: [{model: q}]\nmerge_method: passthrough\n")
    with pytest.raises(RecipeError, match=r"r.yml:1: q is quantised \(hqq.*'hqq' is not read"):
        plait.plan("r.yml")


def test_a_nested_config_is_plain_afterwards_and_a_plain_checkpoint_is_itself(write):
    arrays, settings, _ = fp8_tensor(np.ones((4, 8), np.float32))
    folder = write(
        {f"a.{n}": a for n, a in arrays.items()}, None, text_config={"quantization_config": settings, "x": 1}
    )
    assert dequantised(open_checkpoint(folder)).config == {"model_type": "llama", "text_config": {"x": 1}}
    plain = open_checkpoint(write({"a.weight": np.ones(2, np.float32)}, None, "plain"))
    assert dequantised(plain) is plain


def test_scales_of_the_cache_are_named_as_left_out(write):
    arrays, settings, _ = fp8_tensor(np.ones((4, 8), np.float32))
    more = {"attn.k_scale": np.ones(1, np.float32), "attn.v_scale": np.ones(1, np.float32)}
    seen = dequantised(open_checkpoint(write({f"a.{n}": a for n, a in arrays.items()} | more, settings)))
    assert list(seen.tensors) == ["a.weight"]
    assert seen.notes[-1] == "Left out, scales that only the quantised model uses: attn.k_scale, attn.v_scale."


def test_every_number_is_in_the_table_of_the_format():
    from plait.checkpoint.dequantise.forms import E2M1

    numbers = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn)
    assert [float(number) for number in numbers] == list(E2M1)
