"""Chemical reactions as token ids: those that the two packages print in their own tests and readmes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["LONGEST", "Masked", "encoded", "maskings", "reactions", "texts"]

LONGEST = 300
"""Reactions of more tokens are left out."""

# Reactants > agents > products, in quotes. Shorter reactants are made-up edge cases of a parser's tests.
_REACTION = re.compile(r"""['"]((?:->|[^\s'"<>*]){20,}>[^\s'"<>*]*>[^\s'"<>*]{5,})['"]""")
_ATOM_MAP = re.compile(r":\d+\]")
# Without its map, an atom of the organic subset needs no brackets; [nH] keeps its own, which carry meaning.
_PLAIN_ATOM = re.compile(r"\[(?:(Cl|Br|[BCNOSPFI])(?:H\d?)?|([cnosp])|(c)H)\]")
# Schwaller et al. 2019, "Molecular Transformer": how a SMILES string is cut into tokens.
_TOKEN = re.compile(r"\[[^\]]+]|Br?|Cl?|>>?|%\d\d|[NOSPFIbcnops()\\/.=#+\-:~@?*$\d]")


def texts(rxnfp: Path, rxnmapper: Path) -> list[str]:
    """Read the files of the unpacked packages that have reactions in them, as a list of their contents."""
    files = [rxnmapper / "tests" / name for name in ("test_mapper.py", "test_batched_mapper.py")]
    files += [found for folder in (rxnfp, rxnmapper) for found in folder.glob("*.dist-info/METADATA")]
    return [file.read_text(encoding="utf-8") for file in files]


def reactions(contents: Iterable[str]) -> list[str]:
    """Find the reactions in these texts, without atom maps, each once, sorted.

    >>> reactions(["print('[CH3:1][OH:2].CCCCCCCCCCC>>[CH3:1][O:2]CCCCC')"])
    ['CO.CCCCCCCCCCC>>COCCCCC']
    """
    found = {reaction for content in contents for reaction in _REACTION.findall(content)}
    return sorted({_PLAIN_ATOM.sub(r"\1\2\3", _ATOM_MAP.sub("]", reaction)) for reaction in found})


def encoded(found: Iterable[str], vocabulary: Path) -> list[list[int]]:
    """Turn reactions into token ids with [CLS] and [SEP] around them, leaving out those over `LONGEST`."""
    ids = {token: i for i, token in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}
    rows = [[ids["[CLS]"], *(ids.get(t, ids["[UNK]"]) for t in _TOKEN.findall(r)), ids["[SEP]"]] for r in found]
    return [row for row in rows if len(row) < LONGEST]


@dataclass(frozen=True)
class Masked:
    """A reaction with some tokens hidden: the ids that the model sees, and what stood at the hidden positions."""

    ids: tuple[int, ...]
    hidden: dict[int, int]


def maskings(rows: Iterable[list[int]], mask: int, times: int = 6, share: float = 0.15, seed: int = 0) -> list[Masked]:
    """Hide every inner token with probability `share`, `times` times over; at least one is hidden each time."""
    draw = np.random.default_rng(seed)
    out = []
    for row in rows:
        for _ in range(times):
            places = [i for i in range(1, len(row) - 1) if draw.random() < share] or [1]
            hidden = {i: row[i] for i in places}
            out.append(Masked(tuple(mask if i in hidden else token for i, token in enumerate(row)), hidden))
    return out
