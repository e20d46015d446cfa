import struct
import warnings
import zipfile

import numpy as np
import pytest

from plait.checkpoint import open_checkpoint
from plait.checkpoint.io import FileReader
from plait.checkpoint.torch_file import read_torch_file
from plait.errors import CheckpointError

torch = pytest.importorskip("torch")

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(value, path, zipped):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, on its typed storages
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(str(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


def raw(tensor):
    return bytes(tensor.detach().flatten().contiguous().view(torch.uint8).tolist())


DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
}  # fmt: skip


@FORMATS
def test_every_element_type_reads_as_torch_reads_it(tmp_path, zipped, bytes_of):
    state = {name: torch.randn(3, 5).abs().to(getattr(torch, name)) for name in DTYPES}
    file = save(state, tmp_path / "m.pt", zipped)
    found, notes = read_torch_file(str(file))
    assert notes == []
    assert {tensor.name: tensor.dtype for tensor in found} == DTYPES
    for tensor in found:
        assert tensor.shape == (3, 5)
        assert bytes_of(tensor) == raw(state[tensor.name])


@FORMATS
def test_the_state_dict_of_a_module_with_views_scalars_and_empties(tmp_path, zipped, bytes_of):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    state = module.state_dict()  # an OrderedDict with _metadata
    whole = torch.arange(24.0).reshape(6, 4)
    state["view"] = whole[2:4]
    state["row"] = whole[5]
    state["column"] = torch.arange(40.0).as_strided((5, 1), (1, 7))
    state["deep"] = torch.arange(24.0).reshape(2, 3, 4)
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 7)
    state["parameter"] = torch.nn.Parameter(torch.ones(2))
    marked = torch.nn.Parameter(torch.full((2,), 7.0))
    marked.tag = "tagged"
    state["marked"] = marked
    found = read_torch_file(str(save(state, tmp_path / "m.bin", zipped)))[0]
    assert [tensor.name for tensor in found] == list(state)
    for tensor in found:
        assert tensor.shape == tuple(state[tensor.name].shape)
        assert bytes_of(tensor) == raw(state[tensor.name]), tensor.name


@FORMATS
def test_a_tied_head_is_an_alias_of_the_embedding(tmp_path, zipped):
    shared = torch.ones(4, 2)
    state = {"lm_head.weight": shared, "model.embed_tokens.weight": shared, "lm_head.bias": torch.ones(4)}
    save(state, tmp_path / "pytorch_model.bin", zipped)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.aliases == {"lm_head.weight": "model.embed_tokens.weight"}
    assert checkpoint.nbytes == 32 + 16
    assert set(checkpoint.tensors) == set(state)


@FORMATS
def test_a_square_tensor_and_its_transpose_are_not_the_same(tmp_path, zipped):
    square = torch.arange(9.0).reshape(3, 3)
    save({"a": square, "b": square.T}, tmp_path / "pytorch_model.bin", zipped)
    assert open_checkpoint(tmp_path).aliases == {}


@FORMATS
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_one_nested_state_dict_is_read_and_told(tmp_path, zipped, key):
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3}]}
    value = {"epoch": 3, key: {"w": torch.ones(2), "step": 5}, "optimizer": optimizer, "shape": torch.Size([2])}
    found, notes = read_torch_file(str(save(value, tmp_path / "m.pt", zipped)))
    assert [tensor.name for tensor in found] == ["w"]
    assert f"the weights are under '{key}'; not read: epoch, optimizer, shape" in notes[0]
    assert "not read: step" in notes[1]


@FORMATS
def test_two_state_dicts_or_none_are_refused(tmp_path, zipped):
    both = {"model": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}}
    assert "2 of them, under model, ema" in refused(save(both, tmp_path / "m.pt", zipped))
    assert "none found" in refused(save({"a": {"b": {"w": torch.ones(2)}}}, tmp_path / "m.pt", zipped))
    assert "no state dict" in refused(save([torch.ones(2)], tmp_path / "m.pt", zipped))
    assert "is no text" in refused(save({3: torch.ones(2)}, tmp_path / "m.pt", zipped))


@FORMATS
def test_what_is_not_stored_row_by_row_is_read_row_by_row(tmp_path, zipped):
    whole = torch.arange(60.0).reshape(3, 4, 5)
    state = {
        "turned": whole.permute(2, 0, 1)[1:],
        "spread": torch.tensor([7.0]).expand(3),
        "every_other": whole[0, :, ::2],
    }
    opened = open_checkpoint(save(state, tmp_path / "m.pt", zipped))
    with FileReader() as reader:
        for name, expected in state.items():
            tensor = opened.tensors[name]
            assert tensor.strides == expected.stride()
            raw = np.empty(tensor.nbytes, np.uint8)
            reader.read_elements(tensor, 0, raw)
            assert raw.view(np.float32).tolist() == expected.flatten().tolist()
            part = np.empty(8, np.uint8)
            reader.read_elements(tensor, 1, part)
            assert part.view(np.float32).tolist() == expected.flatten()[1:3].tolist()


@FORMATS
def test_element_types_that_plait_does_not_know(tmp_path, zipped):
    assert "complex" in refused(save({"w": torch.ones(2, dtype=torch.complex128)}, tmp_path / "m.pt", zipped)).lower()


@FORMATS
def test_a_whole_module_is_code(tmp_path, zipped):
    message = refused(save(torch.nn.Linear(2, 2), tmp_path / "m.pt", zipped))
    assert "torch.nn.modules.linear.Linear" in message
    assert "nothing was run" in message


@FORMATS
def test_every_truncation_is_refused(tmp_path, zipped):
    file = save({"a": torch.ones(20), "b": torch.ones(3, dtype=torch.int8)}, tmp_path / "m.pt", zipped)
    content = file.read_bytes()
    for length in range(0, len(content), 11 if zipped else 5):
        file.write_bytes(content[:length])
        refused(file)
    if not zipped:
        file.write_bytes(content + b"x")
        assert f"{len(content)} bytes expected, {len(content) + 1} there" in refused(file)


def saved_again(source, target, change):
    """Copy a zip archive, with `change` applied to each (name, content)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            changed = change(info.filename, old.read(info))
            if changed is not None:
                new.writestr(*changed)
    return target


def test_zip_archives_that_lie(tmp_path):
    good = save({"a": torch.ones(20)}, tmp_path / "good.pt", zipped=True)

    def changed(change):
        return refused(saved_again(good, tmp_path / "bad.pt", change))

    assert "byte order is b'big'" in changed(lambda n, c: (n, b"big" if n.endswith("byteorder") else c))
    assert "storage 'good/data/0' is missing" in changed(lambda n, c: None if n.endswith("data/0") else (n, c))
    assert "has 79 bytes, its pickle says 80" in changed(lambda n, c: (n, c[:-1] if n.endswith("data/0") else c))
    assert "not one with a state dict" in changed(lambda n, c: None if n.endswith(".pkl") else (n, c))
    with zipfile.ZipFile(tmp_path / "bad.pt", "w", zipfile.ZIP_DEFLATED) as new, zipfile.ZipFile(good) as old:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "compressed" in refused(tmp_path / "bad.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "bad.pt", "w") as new:
            new.writestr("a/data.pkl", "x")
            new.writestr("a/data.pkl", "y")
    assert "two entries of one name" in refused(tmp_path / "bad.pt")


def test_an_archive_of_torchscript_is_no_state_dict(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "m.pt"))
    assert "not one with a state dict" in refused(tmp_path / "m.pt")


def test_an_archive_of_more_than_4_gib(tmp_path, bytes_of):
    """The directory is then zip64; the big storage is a hole in the file, so the test takes no room."""
    small = torch.arange(3.0)
    count = 1_100_000_000
    file = tmp_path / "m.pt"
    template = save({"big": torch.zeros(1), "small": small}, tmp_path / "small.pt", zipped=True)
    with zipfile.ZipFile(template) as old:
        pickle = old.read("small/data.pkl")
    # One element becomes `count`, in the storage and in the shape: BININT1 1 -> BININT count.
    big = b"J" + struct.pack("<i", count)
    storage, shape = pickle.index(b"K\x01t"), pickle.index(b"K\x01\x85")
    pickle = pickle[:storage] + big + pickle[storage + 2 : shape] + big + pickle[shape + 2 :]
    with zipfile.ZipFile(file, "w", allowZip64=True) as new:
        new.writestr("m/data.pkl", pickle)
        info = zipfile.ZipInfo("m/data/0")
        with new.open(info, "w", force_zip64=True) as stream:
            hole(new.fp, stream, count * 4)
        new.writestr("m/data/1", raw(small))
    tensors = {tensor.name: tensor for tensor in read_torch_file(str(file))[0]}
    assert tensors["big"].nbytes == 4 * count
    assert tensors["small"].offset > 2**32
    assert bytes_of(tensors["small"]) == raw(small)


def hole(file, stream, length):
    """Let a zip entry grow by a hole of `length` bytes."""
    file.seek(length - 1, 1)
    file.write(b"\0")
    stream._file_size = length
    stream._compress_size = length


@FORMATS
def test_changed_bytes_open_within_the_file_or_are_refused(tmp_path, zipped):
    file = save(
        {"a": torch.ones(5), "n": {"x": 1}, "b": torch.ones(2, 2, dtype=torch.bfloat16)}, tmp_path / "m.pt", zipped
    )
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    opened = 0
    for _ in range(300):
        changed = bytearray(content)
        for at in rng.integers(len(changed), size=rng.integers(1, 4)):
            changed[at] = rng.choice([*b"\x00\x01\xff\x80.}]()tRQcXKJMq\x85", rng.integers(256)])
        file.write_bytes(changed)
        try:
            tensors = read_torch_file(str(file))[0]
        except CheckpointError:
            continue
        opened += 1
        assert all(t.offset >= 0 and t.offset + t.nbytes <= len(changed) for t in tensors)
    assert opened


def test_other_files_are_named_for_what_they_are(tmp_path):
    file = tmp_path / "m.bin"
    for content, message in (
        (b"", "not a file that torch.save wrote"),
        (b"version https://git-lfs.example\n", "git lfs pull"),
        (b"\x80\x02K\x01.", "a pickle, but not one that torch.save wrote"),
        (b"PK\x03\x04", "broken zip"),
    ):
        file.write_bytes(content)
        assert message in refused(file)
    assert "cannot be read" in refused(tmp_path / "none.bin")
