"""Numbers a layer: `{layers: ...}` in the recipe, or `{file: ...}` for a CSV, JSON or YAML file beside it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from yaml.nodes import MappingNode, Node, SequenceNode

from plait.errors import Fault, Where
from plait.recipe.document import Page, documents, is_text, listed, open_fields, pairs, plain_number, scalar
from plait.recipe.types import Column, PerLayer

__all__ = ["is_per_layer", "read_per_layer"]

_KEYS = ("file", "layers")
_KINDS = (".csv", ".json", ".yml", ".yaml")
_LAYER = "layer"
Row = tuple[int, list[str]]


def is_per_layer(page: Page, node: Node) -> bool:
    """Whether a parameter's value is written as numbers a layer: a mapping with `file` or `layers`."""
    return isinstance(node, MappingNode) and any(key in pairs(page, node) for key in _KEYS)


def read_per_layer(page: Page, node: Node, name: str) -> PerLayer | None:
    """Read the numbers of parameter `name`; None, with every fault told, when they cannot be had.

    `layers` is a list with a number for each layer, or a mapping from models to such lists. `file` names a file
    with the same, relative to the recipe's folder; a CSV has a row for each layer, see `_from_csv`.
    """
    fields = open_fields(page, node, f"Parameter '{name}'", _KEYS)
    file, layers = (fields.node_of(key) for key in _KEYS) if fields else (None, None)
    if file is not None and layers is not None:
        page.fault(node, f"Parameter '{name}' takes 'file' or 'layers', not both.")
    elif layers is not None:
        columns = _columns(page, layers, f"'layers' of parameter '{name}'")
        return PerLayer(columns) if columns else None
    elif file is not None and fields is not None:
        return _from_file(page, fields.key_node("file"), file, name)
    return None


def _from_file(page: Page, key: Node, node: Node, name: str) -> PerLayer | None:
    between = page.text[key.end_mark.index : node.end_mark.index]
    if not is_text(node) or not node.value or "&" in between or "*" in between or not between:
        page.fault(node, f"'file' of parameter '{name}' must be a file's name, written out: not {page.shown(node)}.")
        return None
    path = Path(page.file).parent / node.value
    if path.suffix.lower() not in _KINDS:
        page.fault(node, f"Parameter '{name}': {node.value} is none of {', '.join(_KINDS)}.")
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        hint = "Its name is relative to the recipe's folder."
        page.fault(node, f"Parameter '{name}': cannot read {path}: {why}.", hint)
        return None
    read = _from_csv if path.suffix.lower() == ".csv" else _from_yaml
    columns = read(page, str(path), text, name)
    if columns is None:
        return None
    page.replaced[key.start_mark.index, node.end_mark.index] = f"layers: {_written(columns)}"
    return PerLayer(columns, str(path))


def _written(columns: Sequence[Column]) -> str:
    """Write columns as the value of `layers`, on one line. Every float is read back as itself."""
    lists = {column.model: f"[{', '.join(map(repr, column.numbers))}]" for column in columns}
    if None in lists:
        return lists[None]
    named = (f"{json.dumps(model, ensure_ascii=False)}: {numbers}" for model, numbers in lists.items())
    return "{" + ", ".join(named) + "}"


def _from_yaml(page: Page, file: str, text: str, name: str) -> tuple[Column, ...] | None:
    """Read JSON (which is YAML, but for tabs) or YAML: a list of numbers, or a mapping from models to such lists."""
    own = Page(file, text.replace("\t", " ") if file.lower().endswith(".json") else text)
    nodes, _ = documents(own)
    columns = _columns(own, nodes[0], f"The file of parameter '{name}'") if len(nodes) == 1 else None
    if len(nodes) != 1 and not own.faults:
        own.faults.append(Fault(f"Expected one list or mapping for parameter '{name}'.", Where(file, 1)))
    page.faults += own.faults
    return None if own.faults else columns


def _columns(page: Page, node: Node, what: str) -> tuple[Column, ...] | None:
    before = len(page.faults)
    if isinstance(node, MappingNode):
        columns = [_column(page, value, model, f"{what}, {model}") for model, (_, value) in pairs(page, node).items()]
        if not columns:
            page.fault(node, f"{what} is empty.")
    elif isinstance(node, SequenceNode):
        columns = [_column(page, node, None, what)]
    else:
        columns = []
        page.fault(node, f"{what} must be a list of numbers, one a layer, or a mapping from models to such lists.")
    lengths = {len(column.numbers) for column in columns}
    if len(page.faults) == before and len(lengths) > 1:
        page.fault(node, f"{what}: the models' lists have {' and '.join(map(str, sorted(lengths)))} numbers.")
    return tuple(columns) if len(page.faults) == before else None


def _column(page: Page, node: Node, model: str | None, what: str) -> Column:
    entries = listed(page, node, what)
    numbers = []
    for entry in entries:
        before = len(page.faults)
        value = scalar(page, entry)
        number = _number(plain_number(value) if isinstance(value, str) else value)
        if number is None and len(page.faults) == before:
            page.fault(entry, f"{what}: expected a number, not {page.shown(entry)}.")
        numbers.append(number or 0.0)
    return Column(model, tuple(numbers), tuple(page.where(entry) for entry in entries))


def _number(value: object) -> float | None:
    """Return a finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= 2**64:
        return None
    return float(value) if math.isfinite(value) else None


def _from_csv(page: Page, file: str, text: str, name: str) -> tuple[Column, ...] | None:
    """Read rows of numbers, the first layer's first. Lines that begin with # do not count.

    One column may go without a name. Named, in the first row, a column is a model's; or, as the only one, called
    `value` or as the parameter is, everyone's. A column `layer` numbers the rows from 0; they may then be in any order.
    """
    faults: list[Fault] = []
    reader = csv.reader(io.StringIO(text))
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    rows = [(line, row) for line, row in rows if not row[0].startswith("#")]
    header = rows.pop(0)[1] if rows and any(_cell(cell) is None for cell in rows[0][1]) else []
    names = header or ["value"]
    faults += _wrong_rows(file, rows, names, has_header=bool(header))
    if not faults and _LAYER in names:
        rows, faults = _in_order(file, rows, names.index(_LAYER))
    if faults:
        page.faults += faults
        return None
    columns = []
    for i, column in enumerate(names):
        if column != _LAYER:
            model = None if column in {"value", name} and len(set(names) - {_LAYER}) == 1 else column
            places = tuple(Where(file, line) for line, _ in rows)
            columns.append(Column(model, tuple(_cell(row[i]) or 0.0 for _, row in rows), places))
    return tuple(columns)


def _cell(text: str) -> float | None:
    return _number(plain_number(text))


def _wrong_rows(file: str, rows: Sequence[Row], names: Sequence[str], *, has_header: bool) -> list[Fault]:
    first = Where(file, 1)
    if not rows or not set(names) - {_LAYER}:
        return [Fault("There are no numbers in this file.", first, "Write a row for each layer.")]
    if not has_header and len(rows[0][1]) > 1:
        hint = "Begin with a row such as `layer,org/model-a,org/model-b`."
        return [Fault(f"The {len(rows[0][1])} columns have no names.", Where(file, rows[0][0]), hint)]
    twice = {name for name in names if names.count(name) > 1 or not name}
    if twice:
        return [Fault(f"Two columns are called {min(twice)!r}." if all(twice) else "A column has no name.", first)]
    faults = []
    for line, row in rows:
        wrong = next((cell for cell in row if _cell(cell) is None), None)
        if len(row) != len(names):
            faults.append(Fault(f"The row has {len(row)} cells; expected {len(names)}.", Where(file, line)))
        elif wrong is not None:
            faults.append(Fault(f"Expected a number, not {wrong!r}.", Where(file, line)))
    return faults


def _in_order(file: str, rows: Sequence[Row], at: int) -> tuple[list[Row], list[Fault]]:
    """Sort rows by their layer; all layers from 0 on must be there, once each."""
    seen: dict[float, Row] = {}
    faults = []
    for line, row in rows:
        layer = _cell(row[at]) or 0.0
        if layer < 0 or not layer.is_integer():
            faults.append(Fault(f"A layer is a whole number from 0 up, not {row[at]}.", Where(file, line)))
        elif layer in seen:
            faults.append(Fault(f"Layer {row[at]} has a row already, on line {seen[layer][0]}.", Where(file, line)))
        else:
            seen[layer] = line, row
    missing = sorted(set(range(int(max(seen, default=0)))) - seen.keys()) if not faults else []
    if missing:
        few = ", ".join(map(str, missing[:6])) + (" …" if missing[6:] else "")
        faults.append(Fault(f"There is no row for layer {few}.", Where(file, 1), "Layers are counted from 0."))
    return [seen[layer] for layer in sorted(seen)], faults
