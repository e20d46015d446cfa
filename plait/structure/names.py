"""Bringing one checkpoint's tensor names to another's: the changes of prefix under which most of them agree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

__all__ = ["Alignment", "align"]

Shapes = Mapping[str, tuple[int, ...]]
# A name with its layer number blotted out, and a shape: two layers of one kind have the same form.
Form = tuple[str, tuple[int, ...]]
Change = tuple[str, str]

_LAYER = re.compile(r"(?:^|(?<=\.))(?:0|[1-9][0-9]*)(?=\.|$)")
_LONGEST = 3  # segments that a changed prefix may have, on either side


@dataclass(frozen=True, slots=True)
class Alignment:
    """How another checkpoint's names become the reference's."""

    renames: dict[str, str]
    """Name as stored -> name in the reference's manner; only the tensors that the change helps."""
    strip: str
    """The dotted prefix taken off most of them, "" for none."""
    add: str
    """The dotted prefix put on instead, "" for none."""
    matched: int
    """How many of the other's tensors the reference has after renaming, by name and shape, in whichever layer."""
    unmatched: tuple[str, ...]
    """Names as stored of those that it has not."""
    ambiguous: tuple[Change, ...] = ()
    """The (strip, add) changes that are equally good and disagree; nothing is renamed then."""
    further: tuple[Change, ...] = ()
    """The (strip, add) changes of other parts, most names first: a tower that moved along with the language model."""


def align(reference: Shapes, other: Shapes) -> Alignment:
    """Find the change of prefix under which most of `other`'s tensors are in `reference`, by name and shape.

    A change takes one dotted prefix of up to three segments off the front of a name and puts another on; either may
    be "". It is made only where it helps: a name that already agrees stays, so does one that would agree with
    nothing, and so does one that would take a name that `other` has already. The number of the layer is ignored,
    as the two may differ in depth. Equally good changes with one result count as one (the shortest is
    reported); with different results nothing is renamed and `ambiguous` lists them.

    Where a change was made, the names that it leaves out may have changes of their own (`further`), as in a
    vision-language model that another version of its library has saved. These are held to be the same part only when
    segments were put in, taken out or moved (`visual` and `model.visual`), not when others stand in their place.

    >>> base = {"transformer.h.0.ln.weight": (8,), "transformer.wte.weight": (97, 8)}
    >>> align(base, {"h.0.ln.weight": (8,), "h.1.ln.weight": (8,), "wte.weight": (97, 8)}).renames["h.1.ln.weight"]
    'transformer.h.1.ln.weight'
    """
    found = _best_change(reference, other, related=False)
    while True:
        stored = {found.renames.get(name, name): name for name in other}
        more = _best_change(reference, {name: other[own] for name, own in stored.items()}, related=True)
        if not found.renames or not more.renames:
            return found
        renames = found.renames | {stored[name]: new for name, new in more.renames.items()}
        found = replace(
            found,
            renames={name: renames[name] for name in other if name in renames},
            matched=more.matched,
            unmatched=tuple(stored[name] for name in more.unmatched),
            further=(*found.further, (more.strip, more.add)),
        )


def _best_change(reference: Shapes, other: Shapes, *, related: bool) -> Alignment:
    wanted = {(_LAYER.sub("#", name, count=1), shape) for name, shape in reference.items()}
    forms: dict[Form, list[str]] = {}
    for name, shape in other.items():
        forms.setdefault((_LAYER.sub("#", name, count=1), shape), []).append(name)
    taken = {form for form, _ in forms}
    lost = {form: names for form, names in forms.items() if form not in wanted}

    helped = _helped(lost, (form for form in wanted if form[0] not in taken))
    helped = {change: forms_ for change, forms_ in helped.items() if not related or _is_related(*change)}
    best = max((sum(len(lost[form]) for form in forms_) for forms_ in helped.values()), default=0)
    ties = sorted(
        (change for change, forms_ in helped.items() if sum(len(lost[form]) for form in forms_) == best),
        key=lambda change: (len(change[0]) + len(change[1]), change),
    )
    if not ties:
        return _alignment(other, lost, {}, ("", ""))
    # The shortest change of each result.
    results: dict[frozenset[tuple[Form, str]], Change] = {}
    for change in ties:
        results.setdefault(frozenset((form, _changed(form[0], change)) for form in helped[change]), change)
    if len(results) > 1:
        return _alignment(other, lost, {}, ("", ""), tuple(results.values()))
    chosen = ties[0]
    renames = {name: _changed(name, chosen) for form in helped[chosen] for name in lost[form]}
    return _alignment(other, lost, renames, chosen)


def _alignment(
    other: Shapes,
    lost: Mapping[Form, list[str]],
    renames: dict[str, str],
    change: Change,
    ambiguous: tuple[Change, ...] = (),
) -> Alignment:
    missing = {name for names in lost.values() for name in names} - renames.keys()
    unmatched = tuple(name for name in other if name in missing)
    ordered = {name: renames[name] for name in other if name in renames}
    return Alignment(ordered, *change, len(other) - len(unmatched), unmatched, ambiguous)


def _helped(lost: Iterable[Form], free: Iterable[Form]) -> dict[Change, set[Form]]:
    """For every change that brings a lost form to a free one of the reference: the forms it helps."""
    ends: dict[Form, list[str]] = {}
    for name, shape in free:
        for prefix, end in _cuts(name):
            ends.setdefault((end, shape), []).append(prefix)
    helped: dict[Change, set[Form]] = {}
    for name, shape in lost:
        for strip, end in _cuts(name):
            for add in ends.get((end, shape), ()):
                if _is_prefix_change(strip, add, end):
                    helped.setdefault((strip, add), set()).add((name, shape))
    return helped


def _cuts(name: str) -> Iterator[Change]:
    """Every way to cut a name in (prefix, end), the prefix short and ending before the layer's number."""
    yield "", name
    segments = name.split(".")
    for cut in range(1, min(_LONGEST, len(segments) - 1) + 1):
        if segments[cut - 1] == "#":
            return
        yield ".".join(segments[:cut]), ".".join(segments[cut:])


def _is_prefix_change(strip: str, add: str, end: str) -> bool:
    # `score.weight` is no other spelling of `lm_head.weight`: the module's own name must be in the common end,
    # unless one side has nothing but that end.
    return strip != add and ("." in end or not strip or not add)


def _is_related(strip: str, add: str) -> bool:
    """Whether the prefixes differ by segments put in or moved, and not by what part of a model they name.

    >>> _is_related("vision_tower.vision_model", "model.vision_tower"), _is_related("audio.model", "vision.model")
    (True, False)
    """
    one, two = ([part for part in prefix.split(".") if part] for prefix in (strip, add))
    for end in (0, -1):
        while one and two and one[end] == two[end]:
            one.pop(end)
            two.pop(end)
    return not one or not two or bool(set(one) & set(two))


def _changed(name: str, change: Change) -> str:
    strip, add = change
    end = name[len(strip) + 1 :] if strip else name
    return f"{add}.{end}" if add else end
