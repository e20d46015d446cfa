"""However a checkpoint is cut into files and whatever its names begin with, what is merged is the same."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import plait

METHODS = {
    "linear": "merge_method: linear\nparameters: {weight: [0.25, 0.75]}\n",
    "slerp": "merge_method: slerp\nbase_model: a\nparameters: {t: 0.3}\n",
    "ties": "merge_method: ties\nbase_model: base\nparameters: {weight: 1, density: 0.5}\n",
    "dare_linear": "merge_method: dare_linear\nbase_model: base\nparameters: {weight: 1, density: 0.5}\n",
}
NAMES = ("base", "a", "b")
quickly = settings(max_examples=25, deadline=None, derandomize=True)


def merge(root, text, out="out", **options):
    models = ", ".join(f"{{model: {root}/{name}}}" for name in "ab")
    for name in NAMES:
        text = text.replace(f"base_model: {name}\n", f"base_model: {root}/{name}\n")
    (root / "r.yml").write_text(f"models: [{models}]\n{text}")
    return plait.merge(root / "r.yml", root / out, threads=1, verify=False, **options)


@quickly
@given(method=st.sampled_from(sorted(METHODS)), data=st.data())
def test_any_cut_of_the_inputs_into_files_gives_the_same_bytes(method, data, draw, write, place):
    root, whole = place(), place()
    for seed, name in enumerate(NAMES):
        arrays = draw(seed)
        order = data.draw(st.permutations(list(arrays)), label=f"order in {name}")
        files = data.draw(
            st.lists(st.integers(0, 4), min_size=len(arrays), max_size=len(arrays)), label=f"files of {name}"
        )
        write(root / name, {key: arrays[key] for key in order}, files)
        write(whole / name, arrays)
    merge(root, METHODS[method])
    merge(whole, METHODS[method])
    assert (root / "out/model.safetensors").read_bytes() == (whole / "out/model.safetensors").read_bytes()


@quickly
@given(method=st.sampled_from(sorted(METHODS)), size=st.integers(1, 900))
def test_any_cut_of_the_output_holds_the_same_tensors(method, size, draw, write, place):
    root = place()
    for seed, name in enumerate(NAMES):
        write(root / name, draw(seed))
    merge(root, METHODS[method])
    plan = merge(root, METHODS[method], "cut", shard_size=size).plan
    whole, cut = plait.load(root / "out"), plait.load(root / "cut")
    assert {name: array.tobytes() for name, array in whole.items()} == {name: cut[name].tobytes() for name in cut}
    largest = max(step.nbytes for step in plan.steps)
    assert all(file.size - len(file.header) <= max(size, largest) for file in plan.files)
    if len(plan.files) > 1:
        index = json.loads((root / "cut/model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == whole.keys()
        assert set(index["weight_map"].values()) == {file.name for file in plan.files}


PREFIXES = ("", "model.", "transformer.", "language_model.", "model.language_model.", "base_model.text.")


def under(prefix, arrays, *, headless=False):
    """Give a decoder's tensors another prefix than `model.`; its head stays, or is left out."""
    shown = {}
    for name, array in arrays.items():
        if name.startswith("model."):
            shown[prefix + name.removeprefix("model.")] = array
        elif not headless:
            shown[name] = array
    return shown


@quickly
@given(
    method=st.sampled_from(["linear", "slerp", "ties"]),  # masks are drawn by name
    prefixes=st.lists(st.sampled_from(PREFIXES), min_size=3, max_size=3),
    headless=st.lists(st.booleans(), min_size=3, max_size=3),
    tower=st.booleans(),
)
def test_any_prefix_is_read_and_the_donors_is_written(method, prefixes, headless, tower, draw, write, place):
    root, plain = place(), place()
    donor = "base" if method == "ties" else "a"
    for seed, name in enumerate(NAMES):
        shown = under(prefixes[seed], draw(seed), headless=headless[seed])
        if tower and name == donor:
            shown["vision_tower.patch.weight"] = np.full((3, 5), seed, np.float32)
        kind = "LlamaModel" if headless[seed] else "LlamaForCausalLM"
        write(root / name, shown, architectures=[kind], tie_word_embeddings=False)
        write(
            plain / name,
            under("model.", draw(seed), headless=headless[seed]),
            architectures=[kind],
            tie_word_embeddings=False,
        )
    plan = merge(root, METHODS[method]).plan
    merge(plain, METHODS[method])
    made, wanted = plait.load(root / "out"), plait.load(plain / "out")
    at = NAMES.index(donor)
    for name, array in under(prefixes[at], wanted).items():
        assert made[name].tobytes() == array.tobytes(), name
    assert len(made) == len(wanted) + tower
    if tower:
        assert (made["vision_tower.patch.weight"] == at).all()
    read = {(plan.models[one.model].reference, one.name) for step in plan.steps for one in step.inputs}
    lost = {(drop.model, drop.name) for drop in plan.dropped}
    used = {model.reference for model in plan.models}
    stored = {(one, name) for one in used for name in plait.inspect(one).tensors}
    assert read | lost == stored
    assert not read & lost
