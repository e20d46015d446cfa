import json
import os

import pytest

from plait.checkpoint import open_checkpoint
from plait.errors import CheckpointError


@pytest.fixture
def two(ones):
    return {
        "model-00001-of-00002.safetensors": {"a.10": ones(2), "a.2": ones(3)},
        "model-00002-of-00002.safetensors": {"b": ones(4)},
    }


def refused(folder):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    return str(caught.value)


def test_an_index_and_its_shards(tmp_path, write_shards, two):
    checkpoint = open_checkpoint(write_shards(tmp_path / "m", two))
    assert list(checkpoint.tensors) == ["a.2", "a.10", "b"]
    assert checkpoint.tensors["b"].file == str(tmp_path / "m" / "model-00002-of-00002.safetensors")
    assert checkpoint.notes == ()
    assert checkpoint.path == tmp_path / "m"
    assert checkpoint.nbytes == 36
    assert checkpoint.config == {"model_type": "llama"}


def test_shards_without_an_index(tmp_path, write_shards, two):
    checkpoint = open_checkpoint(write_shards(tmp_path / "m", two, index=None))
    assert list(checkpoint.tensors) == ["a.2", "a.10", "b"]
    assert "2 files read as one checkpoint" in checkpoint.notes[0]


def test_all_missing_shards_are_listed_at_once(tmp_path, write_shards, ones):
    shards = {f"model-{i:05d}-of-00004.safetensors": {f"t{i}": ones(1)} for i in range(1, 5)}
    for index in ("model.safetensors.index.json", None):
        folder = write_shards(tmp_path / f"m{index}", shards, index=index)
        for i in (2, 4):
            (folder / f"model-{i:05d}-of-00004.safetensors").unlink()
        message = refused(folder)
        assert "2 of 4 shards are missing" in message
        assert "model-00002-of-00004.safetensors, model-00004-of-00004.safetensors" in message


def test_shards_of_two_saves_without_an_index(tmp_path, write_shards, ones):
    shards = {"model-00001-of-00001.safetensors": {"a": ones(1)}, "model-00001-of-00002.safetensors": {"b": ones(1)}}
    assert "shards of 2 saves" in refused(write_shards(tmp_path / "m", shards, index=None))


def test_a_truncated_shard_is_named_with_sizes(tmp_path, write_shards, two):
    folder = write_shards(tmp_path / "m", two)
    shard = folder / "model-00002-of-00002.safetensors"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    message = refused(folder)
    assert "model-00002-of-00002.safetensors" in message
    assert f"{size} bytes expected by its header, {size - 1} there" in message


def test_an_index_that_names_the_wrong_shard_or_a_tensor_that_is_nowhere(tmp_path, write_shards, two):
    first, second = two
    folder = write_shards(tmp_path / "m", two, weight_map={"a.2": first, "a.10": second, "b": second, "c": first})
    message = refused(folder)
    assert "2 tensors are not in the shards" in message
    assert f"a.10 ({second})" in message
    assert f"c ({first})" in message


def test_tensors_that_the_index_forgets_are_read_and_told(tmp_path, write_shards, two):
    first, second = two
    checkpoint = open_checkpoint(write_shards(tmp_path / "m", two, weight_map={"a.2": first, "b": second}))
    assert "a.10" in checkpoint.tensors
    assert "does not name 1 tensors of its shards, read all the same: a.10" in checkpoint.notes[0]


def test_one_tensor_in_two_shards(tmp_path, write_shards, two, ones):
    two["model-00002-of-00002.safetensors"]["a.2"] = ones(3)
    message = refused(write_shards(tmp_path / "m", two))
    assert "'a.2' is in model-00001-of-00002.safetensors too" in message


@pytest.mark.parametrize(
    ("weight_map", "fault"),
    [
        ({"a": "../x.safetensors"}, "beside the index, not ../x.safetensors"),
        ({"a": "/x.safetensors"}, "beside the index"),
        ({"a": "x\\y.safetensors"}, "beside the index"),
        ({"a": ".."}, "beside the index"),
        ({"a": 3}, "1 of 1 shards are missing: 3"),
        ({}, "missing or empty"),
        ([], "missing or empty"),
    ],
)
def test_an_index_that_points_elsewhere_or_nowhere(tmp_path, write_shards, two, weight_map, fault):
    message = refused(write_shards(tmp_path / "m", two, weight_map=weight_map))
    assert "model.safetensors.index.json" in message
    assert fault in message


def test_a_single_file_beside_an_index_of_another_save(tmp_path, write_shards, write_tensors, two, ones):
    folder = write_shards(tmp_path / "m", two)
    write_tensors(folder / "model.safetensors", {"a": ones(1)})
    message = refused(folder)
    assert "model.safetensors and model.safetensors.index.json are both there" in message
    assert f"name the file: {folder}{os.sep}model.safetensors" in message
    for shard in two:  # the shards gone, the index left
        (folder / shard).unlink()
    assert "both there" in refused(folder)
    assert list(open_checkpoint(folder / "model.safetensors").tensors) == ["a"]


def test_a_single_file_goes_before_others(tmp_path, write_tensors, ones):
    write_tensors(tmp_path / "model.safetensors", {"a": ones(1)})
    write_tensors(tmp_path / "model.fp16.safetensors", {"b": ones(1)})
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == ["a"]
    assert "not read: model.fp16.safetensors" in checkpoint.notes[0]


def test_an_index_of_the_single_file_is_no_contradiction(tmp_path, write_shards, ones):
    folder = write_shards(tmp_path / "m", {"model.safetensors": {"a": ones(1)}})
    assert list(open_checkpoint(folder).tensors) == ["a"]


def test_pickles_and_duplicates_beside_the_weights_are_left_alone_and_told(tmp_path, write_shards, two, write_tensors):
    folder = write_shards(tmp_path / "m", two)
    pickles = ["training_args.bin", "scheduler.pt", "optimizer.pt", "rng_state_0.pth", "scaler.pt", "pytorch_model.bin"]
    for name in pickles:
        (folder / name).write_bytes(b"cos\nsystem\n")
    (folder / "consolidated.00.pth").write_bytes(b"")
    write_tensors(folder / "consolidated.safetensors", {})
    write_tensors(folder / "other.safetensors", {})
    (folder / "runs").mkdir()
    checkpoint = open_checkpoint(folder)
    assert len(checkpoint.tensors) == 3
    left, duplicates, others = checkpoint.notes
    assert all(name in left for name in pickles)
    assert left.startswith("Pickles beside the weights, not opened")
    assert "consolidated.00.pth, consolidated.safetensors" in duplicates
    assert "not read: other.safetensors" in others


def test_consolidated_alone_is_the_checkpoint(tmp_path, write_tensors, ones):
    write_tensors(tmp_path / "consolidated.safetensors", {"a": ones(1)})
    assert list(open_checkpoint(tmp_path).tensors) == ["a"]


def test_an_adapter_is_no_model(tmp_path, write_tensors, ones):
    write_tensors(tmp_path / "adapter_model.safetensors", {"a": ones(1)})
    assert "<its base>+" in refused(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    assert "an adapter that does not say its peft_type" in refused(tmp_path)


def test_an_empty_folder_and_one_without_weights(tmp_path):
    assert "It is empty" in refused(tmp_path)
    (tmp_path / "notes.md").write_text("")
    (tmp_path / "weights.pth").write_text("")
    message = refused(tmp_path)
    assert "notes.md, weights.pth" in message
    assert f"name the file: {tmp_path}{os.sep}weights.pth" in message


def test_other_indexes_than_models(tmp_path, write_shards, ones):
    shards = {"diffusion_pytorch_model-00001-of-00001.safetensors": {"a": ones(1)}}
    folder = write_shards(tmp_path / "m", shards, index="diffusion_pytorch_model.safetensors.index.json")
    assert list(open_checkpoint(folder).tensors) == ["a"]
    assert open_checkpoint(folder).notes == ()
