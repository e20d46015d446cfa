"""Aligning the rows of token tables, where a recipe has a `tokenizer` section and inputs number tokens differently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.aligned import AVERAGE, Fill, aligned
from plait.checkpoint.names import list_some
from plait.checkpoint.vocabulary import Vocabulary, read_json, read_vocabulary
from plait.errors import Fault
from plait.output.config import output_config
from plait.planning.types import Source
from plait.planning.union import Added, TokenizerFiles, add_tokens, renumbered
from plait.planning.views import View
from plait.recipe.types import ModelRef, ModelToken, Recipe, TokenizerSpec, TokenRule
from plait.structure import embedding_and_heads, vocab_biases

__all__ = ["Aligned", "align_tokens"]

Numbers = npt.NDArray[np.int64]
_OTHER_SIZES = ("vocab_size_per_layer_input",)


@dataclass(frozen=True)
class Aligned:
    """The models with their token tables in the output's order."""

    views: Mapping[str, View]
    tokens: View | None
    """Where the output's tokenizer files come from, with those that are written anew; None where that failed."""
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


def align_tokens(recipe: Recipe, views: Mapping[str, View], donor: View, source: View | None) -> Aligned:
    """Give every model's embeddings, heads and their biases the rows of the output's tokenizer.

    Args:
        recipe: has a `tokenizer` section.
        views: the models under the output's names, ties settled.
        donor: the one that config and generation_config.json come from.
        source: the one whose tokenizer the output's is, or is made from; None where it could not be opened.
    """
    spec = recipe.tokenizer
    if spec is None or source is None:
        return Aligned(views, source)
    work = _Work(recipe, spec, views, donor, source)
    return work.run()


@dataclass
class _Work:
    recipe: Recipe
    spec: TokenizerSpec
    views: Mapping[str, View]
    donor: View
    source: View
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    known: dict[str, Vocabulary] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)
    """What each token of the output stands for: as in the model that it comes from."""

    def run(self) -> Aligned:
        """Read vocabularies, decide the output's, then give every table its rows."""
        files = self._vocabularies() and self._output()
        if not files:
            return Aligned(self.views, self.source, tuple(self.faults))
        rows = self._rows(files.vocabulary)
        tables = self._tables()
        made = _Rows(self, files.vocabulary, rows, tables)
        views = made.views() if not self.faults else self.views
        if made.changed and not self.faults:
            self._refuse_other_tables()
            self.notes += self._told(files, rows)
        views = {key: self._with_config(view, files.vocabulary, rows) for key, view in views.items()}
        texts = {**files.texts, **self._generation(files.vocabulary)}
        tokens = replace(self.source, files=files.files, texts=texts)
        return Aligned(views, tokens, tuple(self.faults), tuple(self.warnings), (*self.notes, *files.notes))

    def _vocabularies(self) -> bool:
        """Read every model's; returns whether all is known."""
        for view in dict.fromkeys((self.source, *self.views.values())):
            found = read_vocabulary(view.files, view.texts)
            if found is not None:
                self.known[view.reference] = found
        own = self.known.get(self.source.reference)
        if own is None:
            kept = self.spec.tokens or self.spec.pad_to_multiple_of
            sizes = {_height(view) for view in self.views.values()}
            if kept or len(sizes) > 1 or self.known:
                message = f"tokenizer: {self.source.reference} has no tokenizer that plait can read."
                self.faults.append(Fault(message, self.spec.where, "It needs tokenizer.json, vocab.json or vocab.txt."))
            return False
        for view in self.views.values():
            if view.reference in self.known:
                continue
            message = f"tokenizer: {view.reference} has no tokenizer that plait can read"
            if _height(view) != _height(self.source):
                hint = "It needs tokenizer.json, vocab.json or vocab.txt."
                self.faults.append(Fault(f"{message}, and another number of rows.", self.spec.where, hint))
            else:
                text = f"{message}; its rows are taken to be those of {self.source.reference}."
                self.warnings.append(Fault(text, self.spec.where))
                self.known[view.reference] = own
        return not self.faults

    def _output(self) -> TokenizerFiles | None:
        own = self.known[self.source.reference]
        self.meanings |= {token: own.means(token) for token in own.ids}
        added: dict[str, Added] = {}
        start = own.length
        if self.spec.source == "union":
            for view in self.views.values():
                for token in self._extra(view, own):
                    if token not in added:
                        theirs = self.known[view.reference]
                        number = start + len(added)
                        added[token] = Added(token, number, theirs.entries.get(token), theirs.type)
                        self.meanings[token] = theirs.means(token)
                    elif self._differs(token, added[token], view):
                        text = f"tokenizer: {token!r} is added in different ways by several inputs; the first counts."
                        self.warnings.append(Fault(text, self.spec.where))
        for token in self.spec.tokens:
            if token not in own.ids and token not in added:
                added[token] = Added(token, start + len(added), None)
        files, fault = add_tokens(own, self.source.files, self.source.texts, [*added.values()], self.spec.where)
        self.faults += [fault] if fault else []
        return files

    def _differs(self, token: str, added: Added, view: View) -> bool:
        mine, theirs = dict(added.entry or {}), dict(self.known[view.reference].entries.get(token) or {})
        return bool(mine and theirs) and mine | {"id": 0} != theirs | {"id": 0}

    def _extra(self, view: View, own: Vocabulary) -> list[str]:
        """The tokens of a model that the output's tokenizer lacks, of those that have a row."""
        theirs, height = self.known[view.reference], _height(view)
        extra = [token for token in theirs.ids if token not in own.ids]
        ghosts = [token for token in extra if theirs.ids[token] >= height]
        if ghosts:
            text = f"tokenizer: {len(ghosts)} tokens of {view.reference} have no row and are not added: {list_some(ghosts, 4)}."
            self.warnings.append(Fault(text, self.spec.where))
        return [token for token in extra if theirs.ids[token] < height]

    def _rows(self, vocabulary: Vocabulary) -> int:
        rows = max(_height(self.source), vocabulary.length)
        multiple = self.spec.pad_to_multiple_of or 1
        return -(-rows // multiple) * multiple

    def _tables(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for view in self.views.values():
            embeddings, heads = embedding_and_heads(view.shapes, view.config)
            found |= dict.fromkeys((*embeddings, *heads, *vocab_biases(view.shapes, view.config)))
        return tuple(found)

    def _refuse_other_tables(self) -> None:
        for view in self.views.values():
            if any(key in dict(view.config or {}) or _nested_has(view.config, key) for key in _OTHER_SIZES):
                message = f"tokenizer: {view.reference} has a second table of tokens ({_OTHER_SIZES[0]})"
                self.faults.append(Fault(f"{message}, which cannot be aligned yet.", self.spec.where))
            for name, shape in view.shapes.items():
                if len(shape) == 2 and shape[0] == 1 and shape[1] == _height(view):
                    message = f"tokenizer: {name} of {view.reference} has one column a token"
                    self.faults.append(Fault(f"{message}, which cannot be aligned yet.", self.spec.where))

    def _with_config(self, view: View, vocabulary: Vocabulary, rows: int) -> View:
        if view.config is None or not _height(view):
            return view
        config, notes = output_config(view.config, vocab_size=rows)
        if view is self.views[self.donor.reference] or view.reference == self.donor.reference:
            self.notes += [f"config.json: {note}" for note in notes]
            config, changes = renumbered(config, self.known[view.reference], vocabulary)
            self.notes += [f"config.json: {key}: {_short(old)} -> {_short(new)}" for key, old, new in changes]
        return replace(view, config=config)

    def _generation(self, vocabulary: Vocabulary) -> dict[str, str]:
        """Return generation_config.json with its tokens' numbers in the output, where any of them changes."""
        name = "generation_config.json"
        config = read_json(name, self.donor.files, self.donor.texts)
        made, changes = renumbered(config, self.known[self.donor.reference], vocabulary)
        self.notes += [f"{name}: {key}: {_short(old)} -> {_short(new)}" for key, old, new in changes]
        return {name: json.dumps(made, indent=2, ensure_ascii=False) + "\n"} if changes else {}

    def _told(self, files: TokenizerFiles, rows: int) -> list[str]:
        vocabulary = files.vocabulary
        more = len(vocabulary.ids) - len(self.known[self.source.reference].ids)
        text = f"tokenizer: that of {self.source.reference}" + (f" and {more} tokens more" if more else "")
        told = [f"{text}: {len(vocabulary.ids)} tokens, {rows} rows; rows are aligned by token."]
        for view in self.views.values():
            theirs = self.known[view.reference]
            gone = [token for token in theirs.ids if token not in vocabulary.ids and theirs.ids[token] < _height(view)]
            if gone:
                told.append(
                    f"tokenizer: {len(gone)} tokens of {view.reference} are not in the output: {list_some(gone, 4)}."
                )
        return told


@dataclass
class _Rows:
    """The rows of every table, model by model."""

    work: _Work
    vocabulary: Vocabulary
    count: int
    tables: tuple[str, ...]
    changed: bool = False
    _empty: set[str] = field(default_factory=set)
    _known: dict[tuple[str, int], Numbers] = field(default_factory=dict)

    def views(self) -> dict[str, View]:
        """Return the models with their tables aligned."""
        work = self.work
        stages = [view for view in work.views.values() if any(self._made(view, name) for name in self.tables)]
        found: dict[str, dict[str, Source]] = {key: {} for key in work.views}
        tokens = {number: token for token, number in self.vocabulary.ids.items()}
        for name in self.tables:
            having = {key: view for key, view in work.views.items() if name in view.entries}
            numbers = {key: self._own(view, view.entries[name].shape[0], tokens).copy() for key, view in having.items()}
            fills = self._fills(name, having, numbers, tokens)
            for key, view in having.items():
                source = self._table(view.entries[name], numbers[key], fills)
                if source is not None:
                    found[key][name] = source
        self.changed = any(found.values())
        if stages and self.changed:
            names = ", ".join(view.reference for view in stages)
            message = f"tokenizer: {names} is made by an earlier document, whose rows cannot be aligned yet."
            work.faults.append(Fault(message, work.spec.where, "Give that document the tokenizer section, too."))
        self._tell()
        return {key: replace(view, entries={**view.entries, **found[key]}) for key, view in work.views.items()}

    def _made(self, view: View, name: str) -> bool:
        return name in view.entries and view.entries[name].tensor is None

    def _own(self, view: View, height: int, tokens: Mapping[int, str]) -> Numbers:
        """For each output row the model's own row, or -1; rows of no token are matched by number."""
        if (view.reference, height) in self._known:
            return self._known[view.reference, height]
        theirs = self.work.known[view.reference]
        taken, meanings = set(theirs.ids.values()), self.work.meanings
        found = np.full(self.count, -1, np.int64)
        for i in range(self.count):
            token = tokens.get(i)
            if token is None:
                own = i if i not in taken else -1
            else:
                own = theirs.ids.get(token, -1) if theirs.means(token) == meanings.get(token, "text") else -1
            found[i] = own if own < height else -1
        self._known[view.reference, height] = found
        return found

    def _fills(
        self, name: str, having: Mapping[str, View], numbers: dict[str, Numbers], tokens: Mapping[int, str]
    ) -> dict[int, Fill]:
        """What stands for the rows that some model lacks, by output row; forced rows lose their own."""
        fills: dict[int, Fill] = {}
        if not having:
            return fills
        lacking = np.any(np.stack([*numbers.values()]) < 0, axis=0)
        rules = {self.vocabulary.ids[token]: rule for token, rule in self.work.spec.tokens.items()}
        forced = [i for i, rule in rules.items() if rule.force]
        for i in sorted({*np.flatnonzero(lacking).tolist(), *forced}):
            rule = rules.get(i)
            ruled = self._by_rule(name, tokens[i], rule, having) if rule is not None else None
            fills[i] = self._default(name, i, having, numbers, tokens) if ruled is None else ruled
        for i in forced:
            for own in numbers.values():
                own[i] = -1
        return fills

    def _default(
        self, name: str, i: int, having: Mapping[str, View], numbers: Mapping[str, Numbers], tokens: Mapping[int, str]
    ) -> Fill:
        base = str(self.work.recipe.base_model or "")
        keys = [key for key in having if numbers[key][i] >= 0]
        keys = [base] if base in keys else keys
        if not keys:
            if i in tokens:
                self._empty.add(tokens[i])
            return () if i in tokens else AVERAGE
        return tuple(self._row(having[key], name, int(numbers[key][i])) for key in keys)

    def _row(self, view: View, name: str, number: int) -> tuple[Any, int]:
        return view.entries[name].tensor, number

    def _by_rule(
        self,
        name: str,
        token: str,
        rule: TokenRule,
        having: Mapping[str, View],
    ) -> Fill | None:
        if rule.source is None or rule.source == "zero":
            return () if rule.source == "zero" else None
        wanted = ModelToken(rule.source, token) if isinstance(rule.source, ModelRef) else rule.source
        key = str(wanted.model)
        if key not in having:
            lacks = f"has no {name}" if key in self.work.views else "is not an input of this merge"
            return self._fault(rule, f"the row of token {token!r} is to come from {key}, which {lacks}.")
        view = having[key]
        number, height = wanted.token_id, view.entries[name].shape[0]
        if wanted.token is not None:
            number = self.work.known[key].ids.get(wanted.token)
        if number is None:
            return self._fault(rule, f"{key} has no token {wanted.token!r}, whose row token {token!r} is to have.")
        if not 0 <= number < height:
            return self._fault(rule, f"{key} has {height} rows in {name}; row {number} is asked for token {token!r}.")
        return (self._row(view, name, number),)

    def _fault(self, rule: TokenRule, text: str) -> Fill:
        fault = Fault(f"tokenizer: {text}", rule.where)
        if fault not in self.work.faults:
            self.work.faults.append(fault)
        return ()

    def _table(self, source: Source, numbers: Numbers, fills: Mapping[int, Fill]) -> Source | None:
        """The table with these rows; None where it has them already."""
        if len(numbers) == source.shape[0] and np.array_equal(numbers, np.arange(len(numbers))):
            return None
        used: dict[int, int] = {}
        rows = numbers.copy()
        for i in np.flatnonzero(numbers < 0).tolist():
            rows[i] = -1 - used.setdefault(i, len(used))
        if source.tensor is None:
            return source  # refused by `views`
        return replace(source, tensor=aligned(source.tensor, rows, tuple(fills[i] for i in used)))

    def _tell(self) -> None:
        if self._empty:
            found = sorted(self._empty)
            text = (
                f"tokenizer: {len(found)} tokens have no row in any input and get rows of zeros: {list_some(found, 4)}."
            )
            self.work.warnings.append(Fault(text, self.work.spec.where))


def _height(view: View) -> int:
    """Rows of the model's token tables; 0 where it has none."""
    embeddings, heads = embedding_and_heads(view.shapes, view.config)
    return max((view.shapes[name][0] for name in (*embeddings, *heads)), default=0)


def _nested_has(config: Mapping[str, Any] | None, key: str) -> bool:
    return any(isinstance(value, Mapping) and key in value for value in (config or {}).values())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
