import pytest

from plait.checkpoint import (
    Checkpoint,
    StoredTensor,
    custom_code,
    open_checkpoint,
    quantisation,
    side_files,
    with_names,
)
from plait.errors import CheckpointError


def made(tensors, config=None, **fields):
    stored = {
        name: StoredTensor(name, dtype, (2,), "/f", 8 * i) for i, (name, dtype) in enumerate(dict(tensors).items())
    }
    return Checkpoint(path=None, reference="m", tensors=stored, config=config, **fields)


def floats(*names):
    return [(name, "F32") for name in names]


def test_a_view_keeps_bytes_and_order_and_aliases():
    checkpoint = made(floats("bert.h.2.w", "bert.h.10.w", "head.w"), aliases={"head.w": "bert.h.2.w"})
    view = with_names(checkpoint, {"bert.h.10.w": "h.10.w", "bert.h.2.w": "h.2.w"})
    assert list(view.tensors) == ["h.2.w", "h.10.w", "head.w"]
    assert view.tensors["h.10.w"].name == "h.10.w"
    assert view.tensors["h.10.w"].offset == checkpoint.tensors["bert.h.10.w"].offset
    assert view.aliases == {"head.w": "h.2.w"}
    assert view.renames == {"h.10.w": "bert.h.10.w", "h.2.w": "bert.h.2.w"}
    assert view.nbytes == checkpoint.nbytes
    assert checkpoint.renames == {}


def test_a_view_of_a_view_knows_the_names_in_the_files():
    once = with_names(made(floats("a", "b", "c")), {"a": "x", "b": "y"})
    twice = with_names(once, {"x": "z", "y": "b"})
    assert set(twice.tensors) == {"z", "b", "c"}
    assert twice.renames == {"z": "a"}


def test_names_may_be_swapped_but_not_shared():
    checkpoint = made(floats("a", "b"))
    swapped = with_names(checkpoint, {"a": "b", "b": "a"})
    assert swapped.tensors["a"].offset == checkpoint.tensors["b"].offset
    with pytest.raises(CheckpointError, match="two tensors would have one name: a and b -> b"):
        with_names(checkpoint, {"a": "b"})
    with pytest.raises(CheckpointError, match=r"no tensor 'model.wieght' to rename. Did you mean 'model.weight'\?"):
        with_names(made(floats("model.weight")), {"model.wieght": "x"})


@pytest.mark.parametrize(
    ("tensors", "config", "scheme"),
    [
        (floats("a.weight", "a.scale", "x_scales", "y_blocks", "b.weight_scale"), {}, None),
        ([("a.weight", "F8_E4M3")], {}, None),
        (
            [
                ("a.weight", "F8_E4M3"),
                ("a.weight_scale_inv", "F32"),
                ("b.weight", "F8_E4M3"),
                ("b.weight_scale_inv", "F32"),
            ],
            {"quantization_config": {"quant_method": "fp8"}},
            "fp8 (quantization_config, 2 *.weight_scale_inv)",
        ),
        ([("a.weight", "F8_E4M3"), ("a.weight_scale_inv", "F32")], None, "fp8 (1 *.weight_scale_inv)"),
        ([("a.weight", "I8"), ("a.weight_scale", "F32")], {}, "int8 (1 *.weight_scale)"),
        ([("a.weight_packed", "I32"), ("a.weight_scale", "F32")], {}, "packed weights (1 *.weight_scale)"),
        (
            floats("a.weight"),
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            "fp8 (quantization_config, no companion tensors)",
        ),
        (
            floats("a.weight"),
            {"quantization_config": {"bits": 4}},
            "unnamed (quantization_config, no companion tensors)",
        ),
        (floats("a.qweight", "a.qzeros", "a.scales"), {}, "gptq or awq (1 *.qweight)"),
        (floats("a.qweight", "a.qzeros", "a.scales", "a.g_idx"), {}, "gptq (1 *.qweight)"),
        (floats("a.weight", "a.weight.absmax", "a.weight.quant_map"), {}, "bitsandbytes 4-bit (1 *.absmax)"),
        (floats("a.weight", "a.SCB"), {}, "bitsandbytes int8 (1 *.SCB)"),
        (
            floats("a.weight", "a.SCB"),
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            "bitsandbytes int8 (quantization_config, 1 *.SCB)",
        ),
        ([("e.gate_blocks", "U8"), ("e.gate_scales", "U8")], {}, "mxfp4 (1 *_blocks)"),
        (floats("e.gate_blocks", "e.gate_scales"), {}, None),
        ([("e.gate_blocks", "F32"), ("e.gate_scales", "U8")], {}, None),
    ],
)
def test_quantisation_is_named_with_its_signs(tensors, config, scheme):
    assert quantisation(made(tensors, config)) == scheme


def test_side_files_are_found_and_code_is_told_apart(tmp_path, write_tensors, ones):
    write_tensors(tmp_path / "model.safetensors", {"a": ones(1)})
    wanted = ["tokenizer.json", "vocab.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json"]
    wanted += ["preprocessor_config.json", "additional_chat_templates/rag.jinja", "qwen.tiktoken", "tokenizer.model.v3"]
    (tmp_path / "additional_chat_templates").mkdir()
    for name in [*wanted, "config.json", "README.md", "modeling_x.py", "training_args.bin"]:
        (tmp_path / name).write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert side_files(checkpoint) == {name: tmp_path / name for name in wanted}
    assert custom_code(checkpoint) == {"modeling_x.py": tmp_path / "modeling_x.py"}
    single = open_checkpoint(tmp_path / "model.safetensors")
    assert side_files(single) == side_files(checkpoint)
