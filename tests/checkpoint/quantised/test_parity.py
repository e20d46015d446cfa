"""The same as the libraries that write the formats, where they are installed: bitsandbytes and compressed-tensors."""

import json

import numpy as np
import pytest

from plait.checkpoint import FileReader, dequantised, open_checkpoint

torch = pytest.importorskip("torch")


@pytest.fixture
def read(tmp_path):
    """Write the parts of `a.weight` as a checkpoint in a format and read the weight back, as float32."""
    from safetensors.torch import save_file

    def made(parts, settings):
        save_file({f"a.{name}": part.contiguous() for name, part in parts.items()}, tmp_path / "model.safetensors")
        config = {"torch_dtype": "bfloat16", "quantization_config": settings}
        (tmp_path / "config.json").write_text(json.dumps(config))
        tensor = dequantised(open_checkpoint(tmp_path)).tensors["a.weight"]
        raw = np.empty(tensor.nbytes, np.uint8)
        with FileReader() as reader:
            reader.read_elements(tensor, 0, raw)
        return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16).reshape(tensor.shape)

    return made


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_in_4_bits(kind, nested, read):
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(70, 129, generator=torch.Generator().manual_seed(0))
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
    parts = {"weight": codes} | {f"weight.{key}": part for key, part in state.as_dict(packed=True).items()}
    made = read(parts, {"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert torch.equal(made, functional.dequantize_4bit(codes, state).bfloat16())


def test_bitsandbytes_in_8_bits(read):
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(70, 129, generator=torch.Generator().manual_seed(0)).half()
    codes, rows, _ = functional.int8_vectorwise_quant(weight)
    made = read({"weight": codes, "SCB": rows}, {"quant_method": "bitsandbytes", "load_in_8bit": True})
    assert torch.equal(made, functional.int8_vectorwise_dequant(codes, rows).bfloat16())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(4, 20), (8, 52)])
def test_compressed_tensors_packed(bits, group, symmetric, read):
    pack = pytest.importorskip("compressed_tensors.compressors.pack_quantized")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(70, 260, generator=rng).bfloat16()
    scale = torch.rand(70, 260 // group, generator=rng).bfloat16() / 2 ** (bits - 1)
    zero = torch.randint(-5, 5, scale.shape, generator=rng, dtype=torch.int8)
    kinds = {"num_bits": bits, "symmetric": symmetric, "strategy": "group", "group_size": group}
    arguments = quantization.QuantizationArgs(**kinds)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=arguments)
    given = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    parts = pack.PackedQuantizationCompressor.compress(given, scheme)
    theirs = pack.PackedQuantizationCompressor.decompress(dict(parts), scheme)["weight"]
    groups = {"group_0": {"weights": {"num_bits": bits, "group_size": group}}}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    assert torch.equal(read(parts, settings), theirs.bfloat16())
