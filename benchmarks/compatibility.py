"""Merges a tiny model of every transformers class listed, in three ways, and writes docs/compatibility.md.

python benchmarks/compatibility.py [--write] [--only LlamaForCausalLM,...]

A row is good when every output loads in transformers without a missing, unexpected or mismatched key, computes finite
numbers, has the mean of the inputs' parameters where it is their mean, and where a model is merged with itself computes
what the model does. Exits with 1 when a row that is good in compatibility.json is not any more; --write keeps the
rows there and writes the page.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compatibility_classes import CLASSES, LENGTH
from compatibility_page import page
from compatibility_senses import HEARING, SEEING

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HERE = Path(__file__).parent
KEPT = HERE / "compatibility.json"
PAGE = HERE.parent / "docs" / "compatibility.md"
GROUPS = CLASSES | {"Vision and language": SEEING, "Audio": HEARING}
TWO = "models:\n- {{model: {a}, parameters: {{weight: 0.5}}}}\n- {{model: {b}, parameters: {{weight: 0.5}}}}\n"
METHODS = {
    "linear": TWO + "merge_method: linear\n",
    "ties": TWO + "merge_method: ties\nbase_model: {base}\n",
    "slerp": "models: [{{model: {a}}}, {{model: {b}}}]\nmerge_method: slerp\nbase_model: {a}\nparameters: {{t: 0.5}}\n",
}
# Merging a model with itself may round its numbers once (float32); one number of the output is compared with this.
NEAR = 1e-6
BFLOAT16_EVERY = 3


@dataclass
class Row:
    """What was seen of one class."""

    name: str
    group: str
    dtype: str
    version: str
    """Of transformers."""
    merged: list[str]
    loads: bool
    same: str
    """How a model merged with itself compares: "bits", "1e-6", or what differs."""
    remark: str

    @property
    def good(self) -> bool:
        """Whether everything was as it should be."""
        return self.merged == [*METHODS] and self.loads and self.same in {"bits", "1e-6"}


class Class:
    """One model class: three small models of it on disk, merged into a folder."""

    def __init__(self, name: str, given: tuple[str, dict[str, Any], str], dtype: str, root: Path) -> None:
        import torch
        import transformers

        config_name, settings, self.sees = given
        self.kind = getattr(transformers, name)
        self.root = root
        self.dtype = getattr(torch, dtype)
        config = getattr(transformers, config_name)(**settings)
        for seed, place in enumerate(("base", "a", "b")):
            self._build(config, seed).save_pretrained(root / place)
        shutil.copytree(root / "a", root / "twin")

    def _build(self, config: Any, seed: int) -> Any:
        import torch

        torch.manual_seed(0)
        model = self.kind(config)
        # Norms and biases start out constant, which would hide their loss.
        for scale, each in ((0.05, 100), (0.02, seed)) if seed else ((0.05, 100),):
            generator = torch.Generator().manual_seed(each)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
        return model.to(self.dtype)

    def merge(self, text: str, out: str, **models: str) -> Any:
        """Merge as the recipe says; returns the plan."""
        import plait

        recipe = self.root / f"{out}.yml"
        recipe.write_text(text.format(**{key: self.root / place for key, place in models.items()}))
        planned = plait.plan(recipe)
        plait.merge(recipe, self.root / out, threads=1, planned=planned)
        return planned

    def load(self, folder: str) -> tuple[Any, str]:
        """Load an output, and say what is wrong with its keys ("" for nothing)."""
        model, told = self.kind.from_pretrained(self.root / folder, output_loading_info=True)
        wrong = [
            f"{len(told[key])} {key.removesuffix('_keys')}, such as {min(map(str, told[key]))}"
            for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if told.get(key)
        ]
        return model.eval(), "; ".join(wrong)

    def output(self, model: Any) -> Any:
        """What the model computes for one input, the same each time."""
        import torch

        with torch.no_grad():
            found = model(**_inputs(self.sees, self.dtype))
        names = ("logits", "logits_per_image", "last_hidden_state")
        return next(value for name in names if (value := getattr(found, name, None)) is not None)


def _inputs(sees: str, dtype: Any) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, 50, (2, LENGTH), generator=generator)

    def numbers(*shape: int) -> Any:
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "text": lambda: {"input_ids": ids},
        "pair": lambda: {"input_ids": ids, "decoder_input_ids": ids.flip(1)},
        "sight": lambda: {
            "input_ids": torch.cat([torch.full((2, 4), 60), ids], 1),
            "pixel_values": numbers(2, 3, 16, 16),
        },
        "image": lambda: {"pixel_values": numbers(2, 3, 16, 16)},
        "both": lambda: {"input_ids": ids, "pixel_values": numbers(2, 3, 16, 16)},
        "wave": lambda: {"input_values": numbers(2, 200)},
        "long wave": lambda: {"input_values": numbers(2, 3000), "decoder_input_ids": ids},
        "mel": lambda: {"input_features": numbers(2, 8, 32), "decoder_input_ids": ids},
        "frames": lambda: {"input_features": numbers(2, 32, 8), "decoder_input_ids": ids},
        "spectrum": lambda: {"input_values": numbers(2, 16, 8)},
    }[sees]()


def examine(name: str, group: str, given: tuple[str, dict[str, Any], str], dtype: str) -> Row:
    """Build, merge and load one class; whatever fails is told in the row."""
    import transformers

    row = Row(name, group, dtype, transformers.__version__, [], False, "", "")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _fill(row, Class(name, given, dtype, Path(folder)))
        except Exception as error:  # noqa: BLE001 - plait, transformers and torch may raise anything; the row says so
            text = " ".join(str(error).replace(f"{folder}/", "").split())
            row.remark = f"{type(error).__name__}: {text[:300]}"
    return row


def _fill(row: Row, one: Class) -> None:
    faults: list[str] = []
    for method, text in METHODS.items():
        planned = one.merge(text, method, base="base", a="a", b="b")
        row.merged.append(method)
        faults += [f"{method}: {fault}" for fault in planned.warnings]
        faults += [f"{method}: drops {drop.name} ({drop.reason})" for drop in planned.dropped]
        model, wrong = one.load(method)
        faults += [f"{method}: {wrong}"] if wrong else []
        faults += [] if one.output(model).isfinite().all() else [f"{method}: the output is not finite"]
        if method == "linear":
            faults += _not_the_mean(one, model)
    row.loads = not faults
    row.same = _with_itself(one)
    row.remark = "; ".join(faults)[:400] or _remark(one)


def _not_the_mean(one: Class, model: Any) -> list[str]:
    """Compare what the class has in memory, under its own names, with the mean of both inputs."""
    a, b = (one.load(place)[0].state_dict() for place in ("a", "b"))
    rounding = 2.0**-8 if one.dtype.itemsize == 2 else NEAR
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            wanted = (a[name].double() + b[name].double()) / 2
            if not bool(((value.double() - wanted).abs() <= rounding * wanted.abs().clamp(min=1e-3)).all()):
                return [f"linear: {name} is not the mean of the inputs'"]
    return []


def _with_itself(one: Class) -> str:
    """Merge a model with itself in every way; "bits" where the output is the same to the last bit each time."""
    wanted = one.output(one.load("a")[0]).double()
    worst = 0.0
    for method, text in METHODS.items():
        one.merge(text, f"{method}-self", base="base", a="a", b="twin")
        got = one.output(one.load(f"{method}-self")[0]).double()
        worst = max(worst, float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1)))
    return "bits" if worst == 0 else "1e-6" if worst <= NEAR else f"differs by {worst:.1e}"


def _remark(one: Class) -> str:
    """What is worth knowing of the class's files."""
    import plait

    names = plait.load(one.root / "a").keys()
    loaded = one.load("a")[0]
    known = loaded.state_dict().keys()
    told = []
    if len({parameter.data_ptr() for parameter in loaded.state_dict().values() if parameter.numel()}) < len(known):
        told.append("tied tensors, written once")
    odd = [name for name in names if name not in known]
    if odd:
        told.append(f"{len(odd)} of {len(names)} tensors have other names in files than in the class")
    return "; ".join(told)


def chosen(only: str) -> list[tuple[str, str, tuple[str, dict[str, Any], str], str]]:
    """The classes to examine, with group and element type; bfloat16 for every third."""
    listed = [(name, group, given) for group, table in GROUPS.items() for name, given in table.items()]
    rows = [
        (*one, "bfloat16" if index % BFLOAT16_EVERY == BFLOAT16_EVERY - 1 else "float32")
        for index, one in enumerate(listed)
    ]
    return [row for row in rows if not only or row[0] in only.split(",")]


def lost(before: dict[str, Row], rows: list[Row]) -> list[str]:
    """Name the rows that were good and are not."""
    return [row.name for row in rows if row.name in before and before[row.name].good and not row.good]


def examined(only: str) -> list[Row]:
    """Examine the classes that the installed transformers has."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows = []
    for name, group, given, dtype in chosen(only):
        if not hasattr(transformers, name):
            print(f"none {name}: not in transformers {transformers.__version__}")
            continue
        rows.append(examine(name, group, given, dtype))
        print(f"{'good' if rows[-1].good else 'BAD '} {name} {rows[-1].same} {rows[-1].remark}", flush=True)
    return rows


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the rows, and write the page")
    parser.add_argument("--only", default="", help="names of classes, with commas; others keep their rows")
    options = parser.parse_args()
    kept = {name: Row(**row) for name, row in json.loads(KEPT.read_text()).items()} if KEPT.exists() else {}
    rows = examined(options.only)
    worse = lost(kept, rows)
    if options.write:
        known = kept | {row.name: row for row in rows}
        listed = [known[name] for name, *_ in chosen("") if name in known]
        lines = [f" {json.dumps(row.name)}: {json.dumps(asdict(row))}" for row in listed]
        KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        PAGE.write_text(page(listed), encoding="utf-8")
    if worse:
        print(f"Good before, bad now: {', '.join(worse)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(_main())
