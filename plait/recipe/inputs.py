"""Reading what a document merges: `models`, `slices` or `modules`."""

from __future__ import annotations

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from plait.recipe.document import Fields, Page, is_text, listed, open_fields, pairs, scalar
from plait.recipe.parameters import read_parameters
from plait.recipe.references import read_reference
from plait.recipe.types import Input, ModelRef, Module, Slice

__all__ = ["read_modules"]

_SLICE_KEYS = ("sources", "base_model", "parameters", "residual_weight")
_SOURCE_KEYS = ("model", "layer_range", "parameters")


def read_modules(page: Page, fields: Fields) -> tuple[Module, ...]:
    """Read the one of `models`, `slices` and `modules` that the document has."""
    key = _the_one(page, fields, ("models", "slices", "modules"))
    if key is None:
        return ()
    if key != "modules":
        return (_read_module(page, fields, key, ""),)
    node = fields.node_of("modules")
    if not isinstance(node, MappingNode) or not node.value:
        page.fault(fields.key_node(key), "'modules' must be a mapping from names to modules, with at least one.")
        return ()
    modules = []
    for name, (_, value) in pairs(page, node).items():
        inner = open_fields(page, value, f"Module '{name}'", ("models", "slices", "parameters"))
        inner_key = None if inner is None else _the_one(page, inner, ("models", "slices"))
        if inner is not None and inner_key is not None:
            modules.append(_read_module(page, inner, inner_key, name))
    return tuple(modules)


def _the_one(page: Page, fields: Fields, keys: tuple[str, ...]) -> str | None:
    """The only one of `keys` that is given; none or several is a fault, and None."""
    given = [key for key in keys if fields.node_of(key) is not None]
    choice = f"exactly one of {', '.join(repr(key) for key in keys)}"
    if len(given) == 1:
        return given[0]
    if given:
        second = fields.key_node(given[1])
        page.fault(second, f"{fields.what} takes {choice}, but has {' and '.join(repr(key) for key in given)}.")
    elif not any(fields.suggests(key) for key in keys):
        page.fault(fields.node, f"{fields.what} needs {choice}.")
    return None


def _read_module(page: Page, fields: Fields, key: str, name: str) -> Module:
    node, where = fields.node_of(key) or fields.node, page.where(fields.key_node(key))
    # A document's own parameters are the recipe's; a module's are one level above them.
    parameters = read_parameters(page, fields.node_of("parameters")) if name else {}
    if key == "models":
        slices: tuple[Slice, ...] = (Slice(_read_models(page, node), where),)
    else:
        read = [_read_slice(page, entry) for entry in listed(page, node, "'slices'")]
        slices = tuple(part for part in read if part is not None)
        _check_counts(page, slices, fields.key_node(key))
    return Module(name, where, slices, key == "models", parameters)


def _read_models(page: Page, node: Node) -> tuple[Input, ...]:
    inputs: list[Input] = []
    lines: dict[ModelRef, int] = {}
    for entry in listed(page, node, "'models'"):
        hint = f"Write it as `- model: {entry.value}`." if is_text(entry) else ""
        fields = open_fields(page, entry, "An entry of 'models'", ("model", "parameters"), hint)
        read = None if fields is None else _read_input(page, fields)
        if read is None:
            continue
        if read.model in lines:
            message = f"Model '{read.model}' is already in 'models', on line {lines[read.model]}."
            page.fault(entry, message, "Keep one of the two, with the sum of their weights.")
        lines.setdefault(read.model, read.where.line)
        inputs.append(read)
    return tuple(inputs)


def _read_input(page: Page, fields: Fields, layer_range: tuple[int, int] | None = None) -> Input | None:
    node = fields.require("model")
    model = None if node is None else read_reference(page, node, "'model'")
    parameters = read_parameters(page, fields.node_of("parameters"))
    return None if model is None else Input(model, page.where(fields.node), layer_range, parameters)


def _read_slice(page: Page, node: Node) -> Slice | None:
    fields = open_fields(page, node, "An entry of 'slices'", _SLICE_KEYS)
    if fields is None:
        return None
    if fields.node_of("residual_weight") is not None:
        message = "'residual_weight' has no effect, neither in mergekit nor in plait."
        page.warn(fields.key_node("residual_weight"), message, "Leave it out.")
    base, sources = fields.node_of("base_model"), fields.require("sources")
    read = [] if sources is None else [_read_source(page, entry) for entry in listed(page, sources, "'sources'")]
    inputs = tuple(source for source in read if source is not None)
    _check_lengths(page, inputs, fields)
    base_model = None if base is None else read_reference(page, base, "'base_model'")
    parameters = read_parameters(page, fields.node_of("parameters"))
    # A source that could not be read leaves no slice, so that the counts below are not compared.
    return Slice(inputs, page.where(node), base_model, parameters) if read and len(inputs) == len(read) else None


def _read_source(page: Page, node: Node) -> Input | None:
    fields = open_fields(page, node, "An entry of 'sources'", _SOURCE_KEYS)
    if fields is None:
        return None
    range_node = fields.require("layer_range")
    return _read_input(page, fields, None if range_node is None else _read_range(page, range_node))


def _read_range(page: Page, node: Node) -> tuple[int, int] | None:
    ends = [_whole(page, part) for part in node.value] if isinstance(node, SequenceNode) else []
    first, last = ends if len(ends) == 2 else (None, None)
    if first is None or last is None:
        expected = "two whole numbers, the first layer and the one after the last, as [0, 16]"
        page.fault(node, f"'layer_range' must be {expected}, not {page.shown(node)}.")
        return None
    if first < 0 or last < 0:
        page.fault(node, f"'layer_range' must not be negative: {page.shown(node)}.", "Layers are counted from 0.")
        return None
    if first >= last:
        hint = f"The end is not included: [{first}, {first + 1}] is layer {first} alone."
        page.fault(node, f"'layer_range' has no layers: {page.shown(node)}.", hint)
        return None
    return first, last


def _whole(page: Page, node: Node) -> int | None:
    value = scalar(page, node) if isinstance(node, ScalarNode) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _check_lengths(page: Page, sources: tuple[Input, ...], fields: Fields) -> None:
    lengths = [part.layer_range[1] - part.layer_range[0] for part in sources if part.layer_range is not None]
    if len(set(lengths)) > 1:
        ranges = ", ".join(f"{part.model} {list(part.layer_range)}" for part in sources if part.layer_range)
        message = f"The sources of a slice must have as many layers each, but have {' and '.join(map(str, lengths))}"
        page.fault(fields.key_node("sources"), f"{message}: {ranges}.", "Make the ranges equally long.")


def _check_counts(page: Page, slices: tuple[Slice, ...], node: Node) -> None:
    """Unequal lists would leave it open which models make embeddings and head; mergekit drops some in silence."""
    counts = [len(part.sources) for part in slices]
    if len(set(counts)) > 1:
        lines = ", ".join(f"{len(part.sources)} (line {part.where.line})" for part in slices)
        hint = (
            "Merge each part in a document of its own with a 'name', and stack these with 'passthrough'; "
            "or name every model in every slice, with weight 0 where it should not count."
        )
        page.fault(node, f"All slices must have the same number of sources, but they have {lines}.", hint)
