"""What cannot be read is refused by name, with the way out."""

import numpy as np
import pytest

import plait
from plait.checkpoint import dequantised, open_checkpoint
from plait.errors import CheckpointError, RecipeError


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
    "scales that do not fit": ("fp8 by block", {"weight_scale_inv": np.ones((7, 3), np.float32)}, "do not fit"),
    "no scale": ("fp8 by block", {"weight_scale_inv": None}, "have no scale: a.weight"),
    "fp4 in bytes": ("fp8 by block", {"weight": np.ones((96, 120), np.int8)}, "from compressed-tensors only"),
    "zeros that do not fit": ("int8 with zeros", {"weight_zero_point": np.ones(3, np.int8)}, "as many zero points"),
    "no shape": ("packed int4", {"weight_shape": None}, "no *.weight_shape beside it: a.weight_packed"),
    "another shape": ("packed int4", {"weight_shape": np.array([96, 64])}, "not 4 or 8 bits for each of 96 × 64"),
    "packed zeros that do not fit": (
        "packed int4",
        {"weight_zero_point": np.ones((5, 10), np.int32)},
        "zero points do not fit",
    ),
    "groups that do not fit": ("packed int4", {"weight_g_idx": np.ones(5, np.int32)}, "weight_g_idx does not fit"),
    "no zeros": ("gptq", {"qzeros": None}, "no *.qzeros beside it: a.qweight"),
    "an index that does not fit": ("gptq", {"g_idx": np.ones(5, np.int32)}, "groups do not fit"),
    "odd bits": ("gptq", {"qzeros": np.ones((4, 9), np.int32)}, "only 2, 4 or 8 bits"),
    "awq by another layout": ("awq", {"qweight": np.ones((128, 26), np.int32)}, "GEMM layout"),
    "no quant_state": (
        "bitsandbytes nf4",
        {"weight.quant_state.bitsandbytes__nf4": None},
        "no quant_state of nf4 or fp4",
    ),
    "quant_state of nothing": (
        "bitsandbytes nf4",
        {"weight.quant_state.bitsandbytes__nf4": np.frombuffer(b"{}", np.uint8)},
        "no shape",
    ),
    "quant_state cut": (
        "bitsandbytes nf4",
        {"weight.quant_state.bitsandbytes__nf4": np.frombuffer(b"{", np.uint8)},
        "no JSON",
    ),
    "codes that do not fit": (
        "bitsandbytes nf4",
        {"weight": np.ones((9, 1), np.uint8)},
        "do not fit the shape in quant_state",
    ),
    "not nested": ("bitsandbytes nf4", {"weight.absmax": np.ones(192, np.uint8)}, "no nested_absmax"),
    "another order": ("bitsandbytes int8", {"weight_format": np.uint8(1)}, "not that of rows in order"),
    "something more": ("bitsandbytes int8", {"qweight": np.ones((2, 2), np.int32)}, "no *.qzeros beside it"),
    "something beside nothing": (
        "bitsandbytes int8",
        {"extra.weight_scale_inv": np.ones(1, np.float32)},
        "no weight takes these",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_with_the_way_out(case, formats, write):
    form, changes, told = WRONG[case]
    shape = (104, 128) if form in {"gptq", "awq"} else (96, 128) if "nested" in case else (96, 120)
    arrays, settings, _ = formats[form](np.ones(shape, np.float32))
    arrays = change(arrays, **changes)
    message = _refused(write({f"a.{name}": array for name, array in arrays.items()}, settings))
    assert told in message
    assert "Dequantise it first, or name the checkpoint that it was made from." in message


def test_gptq_without_a_config_may_mean_either_zero(formats, write):
    arrays, _, _ = formats["gptq"](np.ones((96, 128)))
    assert "need a config that says quant_method gptq" in _refused(
        write({f"a.{n}": a for n, a in arrays.items()}, None)
    )


def test_a_fault_of_the_recipe_names_the_line(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write({"a.weight": np.ones((4, 4), np.float32)}, {"quant_method": "hqq"})
    (tmp_path / "r.yml").write_text("models: [{model: q}]\nmerge_method: passthrough\n")
    with pytest.raises(RecipeError, match=r"r.yml:1: q is quantised \(hqq.*'hqq' is not read"):
        plait.plan("r.yml")
