from __future__ import annotations

from time import perf_counter

import pytest

from plait.structure import align


def test_an_encoder_without_its_wrapper(tiny):
    reference, encoder = tiny("bert")[0], tiny("bert-encoder")[0]
    found = align(reference, encoder)
    assert (found.strip, found.add) == ("", "bert")
    assert found.renames["encoder.layer.2.output.dense.weight"] == "bert.encoder.layer.2.output.dense.weight"
    # MaskedLM has no pooler; its names are left alone and told.
    assert found.unmatched == ("pooler.dense.weight", "pooler.dense.bias")
    assert found.matched == len(encoder) - 2
    assert found.ambiguous == ()
    back = align(encoder, reference)
    assert (back.strip, back.add) == ("bert", "")
    assert "cls.predictions.bias" in back.unmatched
    assert len(back.renames) == sum(name.startswith("bert.") for name in reference)


@pytest.mark.parametrize(
    ("strip", "add"),
    [
        ("model", "language_model.model"),
        ("model", "model.language_model"),
        ("", "base_model.model"),
        ("", "module"),
        ("", "a.b.c"),
    ],
)
def test_prefixes_change_either_way(tiny, strip, add):
    shapes, _ = tiny("llama")
    old = f"{strip}." if strip else ""
    other = {(f"{add}.{n.removeprefix(old)}" if n.startswith(old) else n): s for n, s in shapes.items()}
    for reference, stored in ((shapes, other), (other, shapes)):
        found = align(reference, stored)
        renamed = {found.renames.get(name, name): shape for name, shape in stored.items()}
        assert renamed == reference
        assert found.unmatched == ()
        assert found.matched == len(stored)


def test_a_language_model_within_a_vision_model(tiny):
    text, both = tiny("gemma3")[0], tiny("gemma3-vision")[0]
    found = align(text, both)
    assert (found.strip, found.add) == ("model.language_model", "model")
    assert found.renames.keys() == {name for name in both if name.startswith("model.language_model.")}
    assert all("vision" in name or "projector" in name for name in found.unmatched)
    assert align(both, text).renames == {new: old for old, new in found.renames.items()}


LAYOUTS = {
    "llava": {"language_model.model": "model.language_model", "language_model.lm_head": "lm_head"}
    | {"vision_tower": "model.vision_tower", "multi_modal_projector": "model.multi_modal_projector"},
    "qwen2-vl": {"model": "model.language_model", "lm_head": "lm_head", "visual": "model.visual"},
    "gemma3": {"language_model.model": "model.language_model", "vision_tower.vision_model": "model.vision_tower"},
}
PARTS = {
    "language_model.model": ("layers.0.mlp.up.weight", "layers.1.mlp.up.weight", "norm.weight", "embed_tokens.weight"),
    "model": ("layers.0.mlp.up.weight", "layers.1.mlp.up.weight", "norm.weight", "embed_tokens.weight"),
    "vision_tower.vision_model": ("encoder.layers.0.mlp.fc1.weight", "post_layernorm.weight"),
    "vision_tower": ("vision_model.encoder.layers.0.mlp.fc1.weight", "vision_model.post_layernorm.weight"),
    "visual": ("blocks.0.mlp.fc1.weight", "merger.ln_q.weight"),
    "multi_modal_projector": ("linear_1.weight",),
}


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_towers_that_moved_with_the_language_model_are_found_too(layout, back):
    moves = LAYOUTS[layout]
    ends = {old: PARTS.get(old, ("weight",)) for old in moves}
    new = {f"{old}.{end}": f"{moves[old]}.{end}" for old in moves for end in ends[old]}
    one, two = ({name: (len(name) % 3 + 7, 8) for name in new}, {new[name]: (len(name) % 3 + 7, 8) for name in new})
    reference, other = (two, one) if back else (one, two)
    found = align(reference, other)
    renamed = {found.renames.get(name, name): shape for name, shape in other.items()}
    assert renamed == reference
    assert (found.matched, found.unmatched) == (len(other), ())
    assert 1 <= len(found.further) <= len(moves) - 1


def test_another_tower_is_no_tower_that_moved():
    text = {f"layers.{i}.up.weight": (9, 8) for i in range(3)}
    reference = {f"model.language.{name}": shape for name, shape in text.items()}
    reference["model.vision.blocks.0.fc.weight"] = (5, 8)
    other = {f"model.{name}": shape for name, shape in text.items()} | {"audio.blocks.0.fc.weight": (5, 8)}
    found = align(reference, other)
    assert (found.further, found.unmatched) == ((), ("audio.blocks.0.fc.weight",))


def test_gpt2_with_and_without_its_wrapper(tiny):
    wrapped, plain = tiny("gpt2")[0], tiny("gpt2-headless")[0]
    assert align(wrapped, plain).renames == {name: f"transformer.{name}" for name in plain}
    assert align(plain, wrapped).unmatched == ("lm_head.weight",)


def test_models_of_other_depth_align(tiny):
    reference = tiny("gpt2")[0]
    deeper = {"wte.weight": (97, 8)} | {f"h.{i}.mlp.c_fc.weight": (8, 32) for i in range(9)}
    found = align(reference, deeper)
    assert found.renames["h.8.mlp.c_fc.weight"] == "transformer.h.8.mlp.c_fc.weight"
    assert found.matched == 10


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "qwen3-moe", "whisper"])
def test_what_agrees_is_left_alone(tiny, family):
    shapes, _ = tiny(family)
    found = align(shapes, shapes)
    assert (found.renames, found.strip, found.add, found.matched, found.unmatched) == ({}, "", "", len(shapes), ())
    part = {name: shape for name, shape in shapes.items() if "decoder" not in name}
    assert align(shapes, part).renames == {}
    assert align(part, shapes).renames == {}, "a decoder must not take the place of an encoder"


def test_shapes_count():
    assert align({"model.norm.weight": (8,)}, {"norm.weight": (9,)}).renames == {}
    assert align({"model.norm.weight": (8,)}, {"norm.weight": (8,)}).renames == {"norm.weight": "model.norm.weight"}


def test_a_rename_never_takes_a_name_that_is_there():
    reference = {"model.norm.weight": (8,), "model.up.weight": (9, 8)}
    other = {"norm.weight": (8,), "up.weight": (9, 8), "model.norm.weight": (7,)}
    found = align(reference, other)
    assert found.renames == {"up.weight": "model.up.weight"}
    assert found.unmatched == ("norm.weight", "model.norm.weight")


def test_another_module_is_not_another_prefix():
    assert align({"lm_head.weight": (97, 8)}, {"score.weight": (97, 8)}).renames == {}
    assert align({"model.logit_scale": ()}, {"logit_scale": ()}).renames == {"logit_scale": "model.logit_scale"}


def test_the_number_of_a_layer_is_no_part_of_a_prefix():
    assert align({"a.up.weight": (9, 8)}, {"h.10.up.weight": (9, 8)}).renames == {}


def test_a_draw_between_two_readings_renames_nothing():
    layer = {"layers.0.up.weight": (9, 8), "layers.0.norm.weight": (8,)}
    reference = {f"{side}.{name}": shape for side in ("encoder", "decoder") for name, shape in layer.items()}
    found = align(reference, layer)
    assert found.renames == {}
    assert found.ambiguous == (("", "decoder"), ("", "encoder"))
    assert (found.strip, found.add, found.matched, found.unmatched) == ("", "", 0, tuple(layer))
    # One tensor more on a side decides.
    reference["decoder.layers.0.cross.weight"] = (8, 8)
    assert align(reference, layer | {"layers.0.cross.weight": (8, 8)}).add == "decoder"


def test_five_thousand_names_take_a_moment():
    def model(prefix, layers):
        names = {f"{prefix}.embed_tokens.weight": (97, 8), "lm_head.weight": (97, 8)}
        for layer in range(layers):
            for expert in range(50):
                for part, shape in (("gate", (16, 8)), ("up", (16, 8)), ("down", (8, 16))):
                    names[f"{prefix}.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"] = shape
        return names

    reference, other = model("model", 33), model("model.language_model", 33)
    seconds = []
    for _ in range(5):
        start = perf_counter()
        found = align(reference, other)
        seconds.append(perf_counter() - start)
    assert len(found.renames) == len(other) - 1
    # 25 ms where this was written; the bound leaves room for a busy machine.
    assert min(seconds) < 0.25
