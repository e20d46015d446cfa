import io
import os
import pickle
import zipfile

import pytest

from plait.checkpoint.pickles import MAX_PICKLE, read_pickle
from plait.checkpoint.torch_file import read_torch_file
from plait.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


def refused(content):
    with pytest.raises(CheckpointError) as caught:
        read_pickle("m.bin", io.BytesIO(content))
    assert str(caught.value).startswith("m.bin: ")
    return str(caught.value)


def legacy_file(path, content, *, little=True):
    head = [MAGIC, 1001, {"protocol_version": 1001, "little_endian": little, "type_sizes": {}}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + content)
    return path


def zip_file(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("write", [legacy_file, zip_file])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path, write, protocol):
    mark = tmp_path / "mark"
    content = pickle.dumps({"w": Call(os.system, f"touch {mark}")}, protocol)
    file = write(tmp_path / "m.bin", content)
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(str(file))
    assert "asks for posix.system" in str(caught.value) or "asks for nt.system" in str(caught.value)
    assert "refused, nothing was run" in str(caught.value)
    assert not mark.exists()
    pickle.loads(content)  # the same pickle does run elsewhere: the test can fail
    assert mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval", "builtins.getattr", "__builtin__.exec", "torch.load", "torch.storage._load_from_bytes",
        "torch.hub.load", "torch.jit.load", "torch.utils.data.x", "collections.namedtuple", "numpy.load", "torch._C.x",
        "FloatStorage.x", "cuda.FloatStorage", "torch.serialization.load", "codecs.decode", "torch.FloatStorage.__init__", "importlib.import_module",
    ],
)  # fmt: skip
def test_names_that_are_not_on_the_list(name):
    module, _, attribute = name.rpartition(".")
    content = b"c" + module.encode() + b"\n" + attribute.encode() + b"\n(tR."
    assert name in refused(content)
    attribute_bytes, module_bytes = attribute.encode(), module.encode()
    stacked = b"\x80\x04\x8c" + bytes([len(module_bytes)]) + module_bytes
    stacked += b"\x8c" + bytes([len(attribute_bytes)]) + attribute_bytes + b"\x93)R."
    assert name in refused(stacked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"(ios\nsystem\n.", "uses INST"),
        (b"(c__main__\nX\no.", "asks for __main__.X"),
        (b"\x82\x01.", "uses EXT1"),
        (b"Pabc\n.", "uses PERSID"),
        (b"]K\x01a\x81.", "uses NEWOBJ"),
        (b"K\x01)R.", "calls something that is no function"),
        (b"ctorch\nFloatStorage\n)R.", "calls something that is no function"),
        (b"ctorch\nSize\nK\x01R.", "calls something that is no function"),
        (b"]]\x93.", "asks for a name that is no text"),
        (b"K\x01Q.", "broken"),
        (b"(X\x01\x00\x00\x00xK\x01K\x01K\x01K\x01tQ.", "no storage"),
        (b"}(K\x01t", "broken"),
        (b"}()K\x01u.", "plain keys"),
        (b"](K\x01s.", "broken"),
        (b"K\x01K\x02a.", "appends to something that is no list"),
        (b"K\x01K\x02K\x03s.", "sets items of something that is no dict"),
        (b"h\x05.", "broken"),
        (b"0.", "broken"),
        (b".", "broken"),
        (b"", "broken"),
        (b"\x86.", "takes more from its stack"),
        (b"B\xff\xff\xff\x7fx.", "broken"),
        (b"\xff.", "broken"),
        (b"I" + b"1" * 10_000 + b"\n.", "broken"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)))Nt", "broken"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))\x89NtR.", "no typed storage"),
        (b"ctorch._utils\n_rebuild_parameter\n(K\x01tR.", "no tensor"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n(K\x01K\x01K\x01K\x01tR.", "unknown type"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n(K\x01ctorch\nSize\nK\x01K\x01tR.", "unknown type"),
    ],
)
def test_broken_and_hostile_programs(content, message):
    assert message in refused(content)


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04%stQ"


def rebuilt(arguments, view=b""):
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE.replace(b"%s", view) + arguments + b"\x89NtR."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (b"J\xff\xff\xff\xffK\x02\x85K\x01\x85", "no whole number"),
        (b"K\x00X\x01\x00\x00\x002\x85K\x01\x85", "no whole number"),
        (b"K\x00\x88\x85K\x01\x85", "no whole number"),
        (b"K\x00K\x02\x85K\x01K\x01\x86", "do not fit each other"),
        (b"K\x00(" + b"K\x01" * 65 + b"t(" + b"K\x01" * 65 + b"t", "do not fit each other"),
        (b"K\x00K\x02K\x02", "broken"),
    ],
)
def test_tensors_that_lie(arguments, message):
    assert message in refused(rebuilt(arguments))


def test_a_sound_tensor_and_a_view_of_old_times():
    plain = read_pickle("m", io.BytesIO(rebuilt(b"K\x01K\x03\x85K\x01\x85"))).value
    assert (plain.offset, plain.shape, plain.storage.total, plain.is_contiguous) == (1, (3,), 4, True)
    view = b"(X\x01\x00\x00\x001K\x02K\x02t"
    old = read_pickle("m", io.BytesIO(rebuilt(b"K\x00K\x02\x85K\x01\x85", view))).value
    assert (old.storage.start, old.storage.count, old.storage.total) == (2, 2, 4)
    assert "larger than its storage" in refused(rebuilt(b"K\x00K\x02\x85K\x01\x85", view.replace(b"K\x02K", b"K\x03K")))


def test_a_file_of_old_times_with_a_view(tmp_path):
    tensor = rebuilt(b"K\x01K\x01\x85K\x01\x85", b"(X\x01\x00\x00\x001K\x02K\x02t")
    state = b"}X\x01\x00\x00\x00w" + tensor.removesuffix(b".") + b"s."
    content = state + pickle.dumps(["0"], 2) + (4).to_bytes(8, "little") + bytes(range(16))
    file = legacy_file(tmp_path / "m.bin", content)
    ((tensor,), notes) = read_torch_file(str(file))
    assert (tensor.name, tensor.shape, tensor.dtype, notes) == ("w", (1,), "F32", [])
    assert (
        tensor.offset == file.stat().st_size - 4
    )  # element 2 of the storage begins the view, and 1 of that the tensor
    file = legacy_file(tmp_path / "m.bin", content, little=False)
    with pytest.raises(CheckpointError, match="byte order that plait does not read"):
        read_torch_file(str(file))


def test_one_storage_told_in_two_ways():
    first = STORAGE.replace(b"%s", b"")
    assert "describes the storage '0' in two ways" in refused(b"(" + first + first.replace(b"K\x04", b"K\x05") + b"t.")


def test_deep_nests_and_wide_memos_cost_no_more_than_their_bytes():
    deep = read_pickle("m", io.BytesIO(b")" + b"\x85" * 100_000 + b".")).value
    assert isinstance(deep, tuple)
    assert "plain keys" in refused(b"}" + b")" + b"\x85" * 100_000 + b"K\x01s.")
    assert read_pickle("m", io.BytesIO(b"K\x07r\xff\xff\xff\x7f.")).value == 7


def test_a_pickle_without_end(tmp_path):
    file = tmp_path / "m.bin"
    with file.open("wb") as stream:
        stream.write(b"\x80\x02B" + (2**31 - 1).to_bytes(4, "little"))
        stream.truncate(2**31 + 100)
    with file.open("rb") as stream, pytest.raises(CheckpointError, match=f"over {MAX_PICKLE} bytes"):
        read_pickle("m.bin", stream)
