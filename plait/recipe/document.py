"""The YAML of a recipe file: nodes that know their lines, and typed readings that collect faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from plait.errors import Fault, Where, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Fields",
    "Page",
    "documents",
    "is_null",
    "is_text",
    "listed",
    "open_fields",
    "pairs",
    "plain_number",
    "scalar",
    "text_of",
]

Pairs = dict[str, tuple[Node, Node]]

_TAG = "tag:yaml.org,2002:"
_LONGEST_SHOWN = 60
_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(inf|infinity|nan)", re.IGNORECASE)
_CONSTRUCTOR = SafeConstructor()
# Nothing in a recipe is a date, and `=` is a token like any other: both are text.
_TEXT = {_TAG + "str", _TAG + "timestamp", _TAG + "value"}
_READERS: dict[str, Any] = {
    _TAG + "bool": _CONSTRUCTOR.construct_yaml_bool,
    _TAG + "int": _CONSTRUCTOR.construct_yaml_int,
    _TAG + "float": _CONSTRUCTOR.construct_yaml_float,
    _TAG + "null": lambda _node: None,
    **dict.fromkeys(_TEXT, lambda node: node.value),
}


class Page:
    """The text of one recipe file, and all that was found wrong or odd in it so far."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []
        self.read_pairs: dict[int, Pairs] = {}
        self.replaced: dict[tuple[int, int], str] = {}
        """Spans of the text, and what stands there in `standalone`."""

    def standalone(self) -> str:
        """The text with everything written out that was read from other files."""
        text = self.text
        for (start, end), new in sorted(self.replaced.items(), reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def where(self, node: Node) -> Where:
        """The file and the line on which `node` begins."""
        return Where(self.file, node.start_mark.line + 1)

    def fault(self, node: Node, message: str, hint: str = "") -> None:
        """Record that something is wrong at `node`."""
        self.faults.append(Fault(message, self.where(node), hint))

    def warn(self, node: Node, message: str, hint: str = "") -> None:
        """Record that something is odd at `node`."""
        self.warnings.append(Fault(message, self.where(node), hint))

    def shown(self, node: Node) -> str:
        """`node` as it is written, on one line and cut when long."""
        written = " ".join(self.text[node.start_mark.index : node.end_mark.index].split())
        if not written:
            return "nothing"
        return f"`{written}`" if len(written) <= _LONGEST_SHOWN else f"`{written[: _LONGEST_SHOWN - 3]}...`"


def documents(page: Page) -> tuple[list[Node], bool]:
    """Return the documents of the file, and whether all of it could be read; if not, the fault is on the page."""
    found: list[Node] = []
    try:
        found.extend(_composed(page))
    except yaml.YAMLError as error:
        page.faults.append(Fault(*_syntax(page, error)))
        return found, False
    except RecursionError:
        page.faults.append(Fault("The YAML is nested too deeply.", Where(page.file, 1)))
        return found, False
    return found, True


def _composed(page: Page) -> Iterator[Node]:
    for node in yaml.compose_all(page.text, Loader=yaml.SafeLoader):
        if _holds_itself(node):
            page.fault(node, "An anchor of this document contains itself.", "Write that part out.")
        else:
            yield node


def _syntax(page: Page, error: yaml.YAMLError) -> tuple[str, Where]:
    """Return what is wrong with the YAML, in PyYAML's words, and where."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        parts = [getattr(error, "context", None), getattr(error, "problem", None)]
        reason = ", ".join(part for part in parts if part)
        return f"This is not valid YAML: {reason}.", Where(page.file, mark.line + 1)
    position = getattr(error, "position", 0)
    reason = str(getattr(error, "reason", error))
    return f"This is not valid YAML: {reason}.", Where(page.file, page.text.count("\n", 0, position) + 1)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _holds_itself(root: Node) -> bool:
    """Whether an alias leads back into a node that is still open (YAML allows it; no recipe means it)."""
    open_now: set[int] = set()
    done: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            open_now.discard(id(node))
            done.add(id(node))
        elif id(node) in open_now:
            return True
        elif id(node) not in done:
            open_now.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in _children(node))
    return False


def scalar(page: Page, node: Node) -> bool | int | float | str | None:
    """Read one scalar by YAML 1.1's rules. None for null, and for what is at fault: a list, a tag, `!!int abc`."""
    if not isinstance(node, ScalarNode) or node.tag not in _READERS:
        page.fault(node, f"Expected a single value, not {page.shown(node)}.")
        return None
    try:
        value: bool | int | float | str | None = _READERS[node.tag](node)
    except (ValueError, KeyError):
        page.fault(node, f"{page.shown(node)} cannot be read as {node.tag.removeprefix(_TAG)}.")
        return None
    return value


def plain_number(text: str) -> str | float:
    """YAML 1.1 reads `1e-3`, `-.5` and `inf` as text; without quotes they are meant as numbers."""
    if _NUMBER.fullmatch(text):
        return float(text.replace("_", ""))
    return float(text) if _NOT_FINITE.fullmatch(text) else text


def is_null(node: Node) -> bool:
    """Whether a value was left out, or written as null."""
    return isinstance(node, ScalarNode) and node.tag == _TAG + "null"


def is_text(node: Node) -> bool:
    """Whether `node` is text: not a number, a bool, null or a collection."""
    return isinstance(node, ScalarNode) and node.tag in _TEXT


def text_of(page: Page, node: Node, what: str) -> str | None:
    """Read `node` as text that is not empty; `what` names it in the fault."""
    if is_text(node) and node.value:
        return str(node.value)
    hint = "Put it in quotes." if isinstance(node, ScalarNode) and node.value and not is_text(node) else ""
    page.fault(node, f"{what} must be text, not {page.shown(node)}.", hint)
    return None


def listed(page: Page, node: Node, what: str) -> list[Node]:
    """Read `node` as a list of at least one entry; an empty result is at fault."""
    if not isinstance(node, SequenceNode):
        page.fault(node, f"{what} must be a list, not {page.shown(node)}.")
        return []
    if not node.value:
        page.fault(node, f"{what} is empty.")
    return list(node.value)


def pairs(page: Page, node: MappingNode) -> Pairs:
    """Return key -> (key node, value node), with `<<` resolved: a key written here wins over a merged one."""
    if id(node) not in page.read_pairs:
        page.read_pairs[id(node)] = _read_pairs(page, node)
    return page.read_pairs[id(node)]


def _read_pairs(page: Page, node: MappingNode) -> Pairs:
    own: Pairs = {}
    merge: tuple[Node, Node] | None = None
    for key_node, value in node.value:
        if key_node.tag == _TAG + "merge":
            if merge is not None:
                page.fault(key_node, "Duplicate key '<<'.", "Write one, with a list.")
            merge = (key_node, value)
        elif not is_text(key_node):
            page.fault(key_node, f"A key must be text, not {page.shown(key_node)}.", "Put it in quotes.")
        elif key_node.value in own:
            first = page.where(own[key_node.value][0]).line
            page.fault(key_node, f"Duplicate key '{key_node.value}', first on line {first}.", "Keep one of them.")
        else:
            own[key_node.value] = (key_node, value)
    for part in _merged(page, merge[1]) if merge else ():
        own = {**pairs(page, part), **own}
    return own


def _merged(page: Page, node: Node) -> Iterator[MappingNode]:
    """The mappings that a `<<` names; of those that share a key, the first one wins, as YAML has it."""
    for part in node.value if isinstance(node, SequenceNode) else (node,):
        if isinstance(part, MappingNode):
            yield part
        else:
            page.fault(part, f"'<<' takes a mapping or a list of mappings, not {page.shown(part)}.")


class Fields:
    """A mapping with a fixed set of keys. A key whose value is null counts as absent."""

    def __init__(self, page: Page, node: MappingNode, what: str, known: Sequence[str]) -> None:
        self.page = page
        self.node = node
        self.what = what
        self._pairs = pairs(page, node)
        self._hints: list[str] = []
        for key, (key_node, value) in self._pairs.items():
            if key not in known:
                self._unknown(key_node, value, known)

    def _unknown(self, key_node: Node, value: Node, known: Sequence[str]) -> None:
        hint = did_you_mean(key_node.value, known)
        self._hints.append(hint)
        if not hint and "parameters" in known and not isinstance(value, MappingNode):
            hint = "If it is a parameter, put it under 'parameters'."
        takes = f"It takes: {', '.join(known)}."
        message = f"{self.what} has no key '{key_node.value}'."
        self.page.fault(key_node, message, f"{hint} {takes}".strip())

    def suggests(self, key: str) -> bool:
        """Whether an unknown key is probably `key` misspelt, so that its absence needs no fault of its own."""
        return any(f"'{key}'" in hint for hint in self._hints)

    def node_of(self, key: str) -> Node | None:
        """The value under `key`; None when absent or null."""
        pair = self._pairs.get(key)
        return None if pair is None or is_null(pair[1]) else pair[1]

    def key_node(self, key: str) -> Node:
        """Where `key` is written; the whole mapping when it is not."""
        return self._pairs[key][0] if key in self._pairs else self.node

    def require(self, key: str) -> Node | None:
        """As `node_of`, but absence is a fault."""
        node = self.node_of(key)
        if node is None and not self.suggests(key):
            self.page.fault(self.key_node(key), f"{self.what} needs '{key}'.")
        return node

    def text(self, key: str) -> str | None:
        """Text that is not empty."""
        node = self.node_of(key)
        return None if node is None else text_of(self.page, node, f"'{key}'")

    def whole(self, key: str, least: int) -> int | None:
        """A whole number, at least `least`."""
        node = self.node_of(key)
        if node is None:
            return None
        value = scalar(self.page, node) if isinstance(node, ScalarNode) else None
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        self.page.fault(node, f"'{key}' must be a whole number from {least} up, not {self.page.shown(node)}.")
        return None

    def flag(self, key: str) -> bool | None:
        """True or false."""
        node = self.node_of(key)
        if node is None:
            return None
        value = scalar(self.page, node) if isinstance(node, ScalarNode) else None
        if isinstance(value, bool):
            return value
        self.page.fault(node, f"'{key}' must be true or false, not {self.page.shown(node)}.")
        return None


def open_fields(page: Page, node: Node, what: str, known: Sequence[str], hint: str = "") -> Fields | None:
    """Read `node` as a mapping that takes the keys `known`; None, with a fault, when it is no mapping."""
    if isinstance(node, MappingNode):
        return Fields(page, node, what, known)
    page.fault(node, f"{what} must be a mapping, not {page.shown(node)}.", hint)
    return None
