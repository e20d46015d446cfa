"""What `plait plan` and `plait explain` show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import plait
from plait.planning.render import explained_as_data, explained_as_text, plan_as_json, plan_as_text

RECIPE = """\
    models:
      - model: a
        parameters:
          weight: [0, 1]
      - model: b
        parameters:
          weight:
            - {filter: mlp, value: 0.5}
            - {value: 0.25}
    merge_method: ties
    base_model: base
    parameters:
      density: 0.5
    tensors:
      - {match: model.norm.weight, copy_from: a}
    """


@pytest.fixture
def planned(recipe, llamas):
    return plait.plan(recipe(RECIPE), explain=True)


def test_the_text_has_inputs_outputs_tensors_sums_and_losses(planned):
    text = plan_as_text(planned, threads=2)
    size = sum(step.nbytes for step in planned.steps)
    assert "0  base  (config and tokenizer)" in text
    assert "model.safetensors  " in text
    assert "config.json, README.md, plait_recipe.yml, plait.lock" in text
    assert "Tensors (21)" in text
    assert "lm_head.weight  16×8 float32: ties of 1, 2 on base 0; weight=[1, 0.25], density=[0.5, 0.5], scale=1" in text
    assert "[reads 3072 bytes, writes 512 bytes]" in text
    assert "model.norm.weight  8 float32: copied from 1 (the rule at r.yml:15)" in text
    assert "merged     20 tensors" in text
    assert "copied     1 tensor from a (the rule at r.yml:15): model.norm.weight" in text
    dropped = "model.norm.weight is copied from a by the rule at r.yml:15"
    assert f"dropped    1 tensor of base ({dropped}): model.norm.weight" in text
    assert f"writes {planned.bytes_written} bytes" in text
    assert planned.bytes_written > size
    assert "Peak memory" in text


def test_layers_treated_alike_share_a_line_unless_every_tensor_is_asked_for(recipe, llamas):
    plan = plait.plan(recipe("models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"))
    text = plan_as_text(plan)
    assert (
        "model.layers.*.mlp.up_proj.weight  12×8 float32: linear of 0, 1; weight=[1, 1], normalize=true  (2 tensors: 0 to 1)"
        in text
    )
    assert "model.layers.1.mlp.up_proj.weight" in plan_as_text(plan, every=True)


def test_layers_that_move_are_shown_with_where_they_come_from(recipe, llamas):
    plan = plait.plan(
        recipe("""\
        slices:
        - sources: [{model: a, layer_range: [0, 2]}]
        - sources: [{model: a, layer_range: [1, 2]}]
        merge_method: passthrough
        """)
    )
    line = next(one for one in plan_as_text(plan).splitlines() if "mlp.up_proj" in one)
    assert "(3 tensors: 0 to 2)  [layers 0 1 2 from 0 1 1 of 0]" in line


def test_the_json_has_every_tensor_and_where_it_lies(planned):
    data = json.loads(plan_as_json(planned))
    assert [one["name"] for one in data["tensors"]] == [step.name for step in planned.steps]
    head = next(one for one in data["tensors"] if one["name"] == "lm_head.weight")
    assert head["parameters"]["weight"] == [1.0, 0.25]
    assert head["base"] == {"model": 0, "name": "lm_head.weight"}
    assert head["bytes_written"] == 16 * 8 * 4
    assert head["bytes_read"] == 3 * head["bytes_written"]
    assert head["passes"] == 2
    assert data["bytes_written"] == planned.bytes_written
    assert {drop["model"] for drop in data["dropped"]} == {"base", "b"}
    assert data["peak_memory"] > 0


def test_explain_names_line_level_and_note(planned):
    step = next(step for step in planned.steps if step.name == "model.layers.1.mlp.up_proj.weight")
    text = explained_as_text(step)
    assert "weight of a = 1    r.yml:4, model 'a': gradient [0, 1] at t=1" in text
    assert "weight of b = 0.5    r.yml:8, model 'b': filter 'mlp'" in text
    assert "density of a = 0.5    r.yml:13, recipe" in text
    assert "scale = 1    default" in text
    rules = explained_as_data(step)["explained"]
    assert {"parameter": "scale", "model": None, "value": 1.0, "rule": "default"} in rules


def test_explain_of_nothing_says_what_there_is(recipe, llamas):
    path = recipe(RECIPE)
    assert len(plait.explain(path, "model.layers.0.*")) == 9
    with pytest.raises(
        plait.RecipeError, match=r"No output tensor matches 'nope\*'; there are 21, such as lm_head.weight"
    ):
        plait.explain(path, "nope*")


BIG = """
import json, resource, struct, sys, time
from pathlib import Path

def write(folder, shapes):
    folder.mkdir()
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 126, "vocab_size": 128256}))

wide, inner, rows = 16384, 53248, 128256
shapes = {"model.embed_tokens.weight": [rows, wide], "model.norm.weight": [wide], "lm_head.weight": [rows, wide]}
for i in range(126):
    for name, shape in {"self_attn.q_proj": [wide, wide], "self_attn.k_proj": [1024, wide], "self_attn.v_proj": [1024, wide],
                        "self_attn.o_proj": [wide, wide], "mlp.gate_proj": [inner, wide], "mlp.up_proj": [inner, wide],
                        "mlp.down_proj": [wide, inner], "input_layernorm": [wide], "post_attention_layernorm": [wide]}.items():
        shapes[f"model.layers.{i}.{name}.weight"] = shape
root = Path(sys.argv[1])
for name in ("base", *(f"expert{i}" for i in range(8))):
    write(root / name, shapes)
models = "".join(f"- {{model: {root}/expert{i}, parameters: {{weight: [0, 1], density: 0.5}}}}\\n" for i in range(8))
(root / "r.yml").write_text(f"models:\\n{models}merge_method: ties\\nbase_model: {root}/base\\n")
began = time.process_time()  # a machine may be busy with other things
import plait
from plait.planning.render import plan_as_text
text = plan_as_text(plait.plan(root / "r.yml"))
status = Path("/proc/self/status")  # where it is not, the peak of the test's own process counts too
told = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
peak = int(told[0]) / 2**10 if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": time.process_time() - began, "megabytes": peak, "tensors": "Tensors (1137)" in text}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files with holes")
def test_405_billion_parameters_and_eight_experts_are_planned_in_seconds(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", BIG, str(tmp_path)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["tensors"]
    assert told["seconds"] < 5
    assert told["megabytes"] < 500
