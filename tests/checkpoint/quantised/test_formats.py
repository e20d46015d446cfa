"""Every weight is what its format means, to the bit; also as transformers reads it where it does so itself."""

import ml_dtypes
import numpy as np
import pytest

from plait.checkpoint import dequantised, open_checkpoint

BF16 = np.dtype("bfloat16")
FP8 = np.dtype("float8_e4m3fn")
ODD = ["bitsandbytes nf4", "bitsandbytes int8", "fp8 by block", "int8 with zeros", "packed int8 by row"]


def rng_for(*seed):
    return np.random.default_rng(list(seed))


@pytest.mark.parametrize("shape", [(96, 128), (112, 192)])
def test_weights_are_those_that_the_format_means(form, shape, write, read, narrow):
    weight = rng_for(0).standard_normal(shape).astype(np.float32)
    arrays, settings, expected = form(weight)
    folder = write({f"a.{name}": array for name, array in arrays.items()}, settings)
    made = read(folder)
    assert list(made) == ["a.weight"]
    np.testing.assert_array_equal(made["a.weight"], expected.astype(np.float32).astype(BF16))


@pytest.mark.parametrize(("said", "kind"), [("float16", np.float16), ("float32", np.float32), ("int8", BF16)])
def test_the_config_says_in_which_type(said, kind, formats, write, read):
    arrays, settings, expected = formats["packed int4"](np.zeros((8, 24)))
    made = read(write({f"a.{n}": a for n, a in arrays.items()}, settings, torch_dtype=said))["a.weight"]
    np.testing.assert_array_equal(made, expected.astype(kind))
    assert made.dtype == kind


def test_odd_counts_of_columns_and_rows(formats, write, read, narrow):
    for name in ODD:
        arrays, settings, expected = formats[name](np.ones((37, 61), np.float32))
        folder = write({f"a.{n}": a for n, a in arrays.items()}, settings, name=name)
        np.testing.assert_array_equal(read(folder)["a.weight"], expected.astype(BF16))


def test_experts_of_mxfp4_as_transformers_reads_them(write, read, narrow):
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


def test_fp8_blocks_as_transformers_reads_them(write, read):
    torch = pytest.importorskip("torch")
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes = (rng_for(11).standard_normal((256, 384)) * 50).astype(FP8)
    scales = rng_for(12).uniform(0.001, 0.1, (2, 3)).astype(np.float32)
    folder = write({"a.weight": codes, "a.weight_scale_inv": scales}, {"quant_method": "fp8"})
    theirs = fp8.Fp8Dequantize(None)._dequantize_one(
        torch.from_numpy(codes.view(np.uint8)).view(torch.float8_e4m3fn), torch.from_numpy(scales), torch.bfloat16
    )
    np.testing.assert_array_equal(read(folder)["a.weight"].astype(np.float32), theirs.float().numpy())


def test_fused_experts_in_fp8_have_their_scales_apart(write, read):
    codes = (rng_for(13).standard_normal((4, 48, 64)) * 20).astype(FP8)
    scales = rng_for(14).uniform(0.01, 0.2, (4, 2, 2)).astype(np.float32)
    arrays = {"m.experts.gate_up_proj": codes, "m.experts.gate_up_proj_scale_inv": scales}
    folder = write(arrays, {"quant_method": "fp8", "weight_block_size": [32, 32]})
    wide = np.repeat(np.repeat(scales, 32, 1), 32, 2)[:, :48]
    np.testing.assert_array_equal(
        read(folder)["m.experts.gate_up_proj"], (codes.astype(np.float32) * wide).astype(BF16)
    )


def test_a_nested_config_is_plain_afterwards_and_a_plain_checkpoint_is_itself(formats, write):
    arrays, settings, _ = formats["fp8 by tensor"](np.ones((4, 8), np.float32))
    folder = write(
        {f"a.{n}": a for n, a in arrays.items()}, None, text_config={"quantization_config": settings, "x": 1}
    )
    assert dequantised(open_checkpoint(folder)).config == {"model_type": "llama", "text_config": {"x": 1}}
    plain = open_checkpoint(write({"a.weight": np.ones(2, np.float32)}, None, "plain"))
    assert dequantised(plain) is plain


def test_scales_of_the_cache_are_named_as_left_out(formats, write):
    arrays, settings, _ = formats["fp8 by tensor"](np.ones((4, 8), np.float32))
    more = {"attn.k_scale": np.ones(1, np.float32), "attn.v_scale": np.ones(1, np.float32)}
    seen = dequantised(open_checkpoint(write({f"a.{n}": a for n, a in arrays.items()} | more, settings)))
    assert list(seen.tensors) == ["a.weight"]
    assert seen.notes[-1] == "Left out, scales that only the quantised model uses: attn.k_scale, attn.v_scale."
    assert list(seen.left_out) == ["attn.k_scale", "attn.v_scale"]


def test_every_number_of_mxfp4_is_that_of_the_format(write, read):
    codes = np.arange(256, dtype=np.uint8).reshape(1, 8, 2, 16)
    scales = np.arange(100, 116, dtype=np.uint8).reshape(1, 8, 2)
    made = read(write({"m.down_proj_blocks": codes, "m.down_proj_scales": scales}, {"quant_method": "mxfp4"}))
    fields = np.stack([codes & 15, codes >> 4], -1).reshape(1, 8, 2, 32)
    numbers = (
        fields.view(ml_dtypes.float4_e2m1fn).astype(np.float32) * np.exp2(scales.astype(np.float32) - 127)[..., None]
    )
    np.testing.assert_array_equal(
        made["m.down_proj"].view(np.uint16), numbers.reshape(1, 8, 64).transpose(0, 2, 1).astype(BF16).view(np.uint16)
    )
