"""Every layout from every other: what comes out is what that layout would have held, byte for byte."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from plait.checkpoint import FileReader, StoredTensor, open_checkpoint
from plait.checkpoint.experts import find_banks, needs_rearranging, rearranged
from plait.checkpoint.experts.woven import Matrix
from plait.errors import CheckpointError

COUNT = 3
LAYOUTS = ["w", "proj", "joined", "list", "stack", "turned", "apart", "granite"]


def canonical(inner, outer, *, bias, dtype, seed=0):
    """Gate, up and down of every expert, and their biases."""
    rng = np.random.default_rng(seed)
    shapes = {"gate": (inner, outer), "up": (inner, outer), "down": (outer, inner)}
    found = {(role, "weight"): rng.standard_normal((COUNT, *shape)).astype(dtype) for role, shape in shapes.items()}
    if bias:
        found |= {(r, "bias"): rng.standard_normal((COUNT, shapes[r][0])).astype(dtype) for r in shapes}
    return found


def stored(parts, layout, block, *, woven):
    """Write the experts as a family would, with code of its own."""
    found = {}
    for kind in sorted({kind for _, kind in parts}):
        of = {role: parts[role, kind] for role in ("gate", "up", "down")}
        both = np.stack([of["gate"], of["up"]], 2 if woven else 1).reshape(COUNT, -1, *of["gate"].shape[2:])
        for form, array in _forms(layout, kind, of, both):
            each = "{e}" in form
            found |= {f"{block}.{form.format(e=e)}": array[e] if each else array for e in range(COUNT if each else 1)}
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def _forms(layout, kind, of, both):
    tail = "_bias" if kind == "bias" else ""
    turn = (lambda array: array.swapaxes(1, 2)) if kind == "weight" else (lambda array: array)
    return {
        "w": [
            (f"experts.{{e}}.{name}.{kind}", of[role]) for name, role in (("w1", "gate"), ("w3", "up"), ("w2", "down"))
        ],
        "proj": [(f"experts.{{e}}.{role}_proj.{kind}", array) for role, array in of.items()],
        "joined": [(f"experts.{{e}}.gate_up_proj.{kind}", both), (f"experts.{{e}}.down_proj.{kind}", of["down"])],
        "list": [(f"experts.gate_up_projs.{{e}}.{kind}", both), (f"experts.down_projs.{{e}}.{kind}", of["down"])],
        "stack": [(f"experts.gate_up_proj{tail}", both), (f"experts.down_proj{tail}", of["down"])],
        "turned": [(f"experts.gate_up_proj{tail}", turn(both)), (f"experts.down_proj{tail}", turn(of["down"]))],
        "apart": [(f"experts.{role}_proj{tail}", array) for role, array in of.items()],
        "granite": [(f"input_linear.{kind}", both), (f"output_linear.{kind}", of["down"])],
    }[layout]


def bank_of(arrays, config):
    (bank,) = find_banks({name: array.shape for name, array in arrays.items()}, config).values()
    return bank


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from(LAYOUTS),
    st.sampled_from([(2, 3), (5, 4), (4, 4), (2, 4), (4, 8), (1, 1)]),
    st.tuples(st.booleans(), st.booleans()),
    st.booleans(),
    st.sampled_from([np.float32, ml_dtypes.bfloat16]),
    st.data(),
)
def test_any_layout_from_any_other(tmp_path_factory, one, two, sizes, woven, bias, dtype, data):
    parts = canonical(*sizes, bias=bias, dtype=dtype)
    ways = ((one, "l.0.moe", woven[0]), (two, "l.7.mlp", woven[1]))
    mine, theirs = (stored(parts, way, block, woven=in_turns) for way, block, in_turns in ways)
    kinds = [{"model_type": "gpt_oss" if in_turns else "openai_privacy_filter"} for in_turns in woven]
    bank, like = bank_of(mine, kinds[0]), bank_of(theirs, kinds[1])
    folder = tmp_path_factory.mktemp("m")
    save_file(mine, folder / "model.safetensors")
    tensors = open_checkpoint(folder).tensors
    square = sizes[0] == sizes[1] and "apart" in (one, two) and one != two  # then nothing says which way it lies
    if square:
        with pytest.raises(CheckpointError, match="is transposed cannot be told"):
            rearranged(tensors, bank, like)
        return
    assert needs_rearranging(bank, like)  # if only because the block has another name
    made = rearranged(tensors, bank, like)
    there = {name.replace("l.0.", "l.7."): tensor for name, tensor in made.items()}
    compare(there, theirs, data)
    back = rearranged(there, like, bank)  # made from what is made itself
    compare({name.replace("l.7.", "l.0."): tensor for name, tensor in back.items()}, mine, data)


def compare(made, wanted, data):
    """Read tensors whole and a part of each, and compare."""
    assert made.keys() == wanted.keys()
    with FileReader() as reader:
        for name, tensor in made.items():
            array = wanted[name]
            assert tensor.shape == array.shape
            start = data.draw(st.integers(0, tensor.size - 1))
            stop = data.draw(st.integers(start + 1, tensor.size))
            for begin, end in ((0, tensor.size), (start, stop)):
                out = np.empty((end - begin) * array.itemsize, np.uint8)
                reader.read_elements(tensor, begin, out)
                assert out.tobytes() == array.reshape(-1)[begin:end].tobytes(), name


def test_what_is_a_run_of_bytes_stays_one(tmp_path):
    parts = canonical(3, 4, bias=False, dtype=np.float32)
    mine, theirs = (stored(parts, way, "l.0.mlp", woven=False) for way in ("stack", "proj"))
    save_file(mine, tmp_path / "model.safetensors")
    save_file(theirs, tmp_path / "other.safetensors")
    bank, like = bank_of(mine, {}), bank_of(theirs, {})
    assert all(
        t.derived is None
        for t in rearranged(open_checkpoint(tmp_path / "model.safetensors").tensors, bank, like).values()
    )
    back = rearranged(open_checkpoint(tmp_path / "other.safetensors").tensors, like, bank)
    assert all(t.derived.is_plain and t.derived.room == 0 for t in back.values())


def test_tensors_of_two_models_in_turns_are_read_once(tmp_path, monkeypatch):
    """As a merge of two models reads them that both have another layout than the base: a batch of one, then of the other."""
    parts = canonical(8, 4, bias=False, dtype=np.float32)
    mine, theirs = (stored(parts, way, "l.0.mlp", woven=False) for way in ("proj", "turned"))
    made = []
    for owner in "ab":
        save_file(mine, tmp_path / f"{owner}.safetensors")
        tensors = open_checkpoint(tmp_path / f"{owner}.safetensors").tensors
        made.append(rearranged(tensors, bank_of(mine, {}), bank_of(theirs, {}), owner)["l.0.mlp.experts.gate_up_proj"])
    counted = []
    whole = Matrix.whole
    monkeypatch.setattr(Matrix, "whole", lambda self, *rest: counted.append(self) or whole(self, *rest))
    with FileReader() as reader:
        for start in range(0, made[0].size, 16):
            for tensor in made:
                reader.read_elements(tensor, start, np.empty(64, np.uint8))
    assert len(counted) == 2 * 2 * COUNT


def test_experts_of_several_types_are_read_as_float32(tmp_path):
    parts = canonical(3, 4, bias=False, dtype=ml_dtypes.bfloat16)
    mine, theirs = (stored(parts, way, "l.0.mlp", woven=False) for way in ("proj", "stack"))
    name = "l.0.mlp.experts.1.up_proj.weight"
    save_file(mine | {name: mine[name].astype(np.float32)}, tmp_path / "model.safetensors")
    made = rearranged(open_checkpoint(tmp_path).tensors, bank_of(mine, {}), bank_of(theirs, {}))
    assert {key: (t.dtype, t.native) for key, t in made.items()} == {
        "l.0.mlp.experts.gate_up_proj": ("F32", None),
        "l.0.mlp.experts.down_proj": ("BF16", None),
    }
    with FileReader() as reader:
        out = np.empty((COUNT, 6, 4), np.float32)
        reader.read_elements(made["l.0.mlp.experts.gate_up_proj"], 0, out.reshape(-1).view(np.uint8))
    np.testing.assert_array_equal(out, theirs["l.0.mlp.experts.gate_up_proj"].astype(np.float32))


def refuse(parts, one, two, match, *, config=None, woven=False, change=None):
    mine, theirs = (stored(parts, way, "l.0.mlp", woven=woven) for way in (one, two))
    if change:
        change(mine)
    bank, like = bank_of(mine, config or {}), bank_of(theirs, config or {})
    tensors = {name: StoredTensor(name, "F32", array.shape, "file", 0) for name, array in mine.items()}
    with pytest.raises(CheckpointError, match=match):
        rearranged(tensors, bank, like)


def test_what_cannot_be_told_is_refused_by_name():
    parts = canonical(3, 4, bias=True, dtype=np.float32)
    plain = canonical(3, 4, bias=False, dtype=np.float32)
    refuse(
        parts, "stack", "proj", r"gate and up lie in l\.0\.mlp\.experts\.gate_up_proj one above the other or in turns"
    )
    refuse(parts, "proj", "turned", "cannot be told")
    refuse(
        plain,
        "proj",
        "stack",
        r"experts\.1\.up_proj\.weight is missing",
        change=lambda a: a.pop("l.0.mlp.experts.1.up_proj.weight"),
    )
    refuse(plain, "stack", "proj", "not both", change=lambda a: a.pop("l.0.mlp.experts.down_proj"))
    odd = {"l.0.mlp.experts.scale": np.ones(3)}
    refuse(plain, "stack", "proj", r"not known what l\.0\.mlp\.experts\.scale is", change=lambda a: a.update(odd))
    turned = {"l.0.mlp.experts.down_proj": np.ones((3, 3, 4))}
    refuse(
        plain,
        "stack",
        "proj",
        r"sizes do not fit each other: \[3, 6, 4\] and \[3, 3, 4\]",
        change=lambda a: a.update(turned),
    )
    other = {"l.0.mlp.experts.1.w1.weight": np.ones((3, 4))}
    refuse(plain, "proj", "stack", "in several ways", change=lambda a: a.update(other))
    wide = {"l.0.mlp.experts.1.up_proj.weight": np.ones((5, 4))}
    refuse(plain, "proj", "stack", "in several ways", change=lambda a: a.update(wide))


def test_biases_that_the_other_has_no_place_for_are_refused():
    mine = stored(canonical(3, 4, bias=True, dtype=np.float32), "proj", "l.0.mlp", woven=False)
    theirs = stored(canonical(3, 4, bias=False, dtype=np.float32), "stack", "l.0.mlp", woven=False)
    with pytest.raises(CheckpointError, match="have a down bias, gate bias, up bias, and the other's have none"):
        rearranged({}, bank_of(mine, {}), bank_of(theirs, {}))


def test_experts_without_a_gate(tmp_path):
    parts = {key: value for key, value in canonical(3, 4, bias=False, dtype=np.float32).items() if key[0] != "gate"}
    each = {
        f"l.0.mixer.experts.{e}.{r}_proj.weight": parts[r, "weight"][e] for e in range(COUNT) for r in ("up", "down")
    }
    stack = {f"l.0.mixer.experts.{r}_proj": parts[r, "weight"] for r in ("up", "down")}
    turned = {name: array.swapaxes(1, 2) for name, array in stack.items()}
    save_file(each, tmp_path / "model.safetensors")
    tensors = open_checkpoint(tmp_path).tensors
    with FileReader() as reader:
        for like in (stack, turned):
            for name, tensor in rearranged(tensors, bank_of(each, {}), bank_of(like, {})).items():
                out = np.empty(like[name].shape, np.float32)
                reader.read_elements(tensor, 0, out.reshape(-1).view(np.uint8))
                np.testing.assert_array_equal(out, like[name])
    gated = bank_of(stored(canonical(3, 4, bias=False, dtype=np.float32), "stack", "l.0.mixer", woven=False), {})
    with pytest.raises(CheckpointError, match="no gate"):
        rearranged(tensors, bank_of(each, {}), gated)


def test_shared_experts_and_dense_layers_are_no_bank():
    shapes = {
        "l.0.mlp.shared_experts.gate_proj.weight": (3, 4),
        "l.0.mlp.shared_expert.down_proj.weight": (4, 3),
        "l.1.mlp.gate_proj.weight": (3, 4),
        "l.2.mlp.input_linear.weight": (3, 4),
        "l.3.experts.gate_proj.weight": (3, 4),
        "l.4.mlp.shared_experts.gate_up_proj": (2, 6, 4),
        "l.4.mlp.shared_experts.0.w1.weight": (3, 4),
    }
    assert find_banks(shapes, None) == {}


def test_a_bank_says_what_else_is_in_its_block():
    parts = stored(canonical(3, 4, bias=False, dtype=np.float32), "proj", "l.0.mlp", woven=False)
    shapes = {name: array.shape for name, array in parts.items()}
    more = {"l.0.mlp.gate.weight": (3, 4), "l.0.mlp.shared_expert.up_proj.weight": (3, 4), "l.0.norm.weight": (4,)}
    bank = find_banks(shapes | more, None)["l.0.mlp"]
    assert bank.others == ("l.0.mlp.gate.weight", "l.0.mlp.shared_expert.up_proj.weight")
    assert dataclasses.replace(bank, others=()) == bank
