"""Merge three public BERTs, exactly as they were published, and measure what comes out.

    make demo        (or: python examples/demo/run.py)

rxnfp (MIT) ships a masked language model of chemical reactions and two fine-tunes of it, as legacy `.bin` files: one
without the `bert.` prefix, none with a model_type, the fine-tunes without a language-model head. The recipes name
these folders as they are. Each recipe is merged by a `plait merge` process of its own; then every model predicts
masked tokens of the reactions that rxnfp and rxnmapper print in their tests and readmes. Needs plait[hf], matplotlib
and, the first time, 80 MB from the package index. Exits with 1 when the merge is not better than both fine-tunes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from evaluate import load, score
from packages import PACKAGES, PackageError, unpacked
from reactions import Masked, encoded, maskings, reactions, texts
from report import Row, draw, print_table, save, verdict
from rich.console import Console

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache"
OUT = CACHE / "demo"
BASE = "rxnfp/models/transformers/bert_pretrained"
PARENTS = {"parent_ft": "bert_ft", "parent_ft_10k": "bert_ft_10k_25s"}
MERGES = {
    "average_two": "mean of the two fine-tunes",
    "average_three": "mean of all three",
    "task_arithmetic": "task arithmetic, 0.3 + 0.3",
    "ties": "TIES, density 0.5, scale 0.5",
    "dare_ties": "DARE-TIES, density 0.5, 0.3 + 0.3",
    "slerp": "SLERP of the two fine-tunes",
    "karcher": "Karcher mean of all three",
    "model_stock": "Model Stock",
}


def main() -> int:
    """Run the demo; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    try:
        rxnfp, rxnmapper = (unpacked(package, CACHE) for package in PACKAGES)
    except PackageError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    rows = masked_rows(rxnfp, rxnmapper)
    hidden = sum(len(row.hidden) for row in rows)
    console.print(f"{len(rows)} masked reactions, {hidden} hidden tokens; the same ones for every model.", style="dim")
    table = [Row("base", "bert_pretrained (base)", "parent", score(load(rxnfp / BASE), rows), None)]
    for name, title in (PARENTS | MERGES).items():
        seconds = merge(name)
        kind = "parent" if name in PARENTS else "merge"
        table.append(Row(name, title, kind, score(load(OUT / name), rows), seconds))
        console.print(f"  {title}: loss {table[-1].score.loss:.3f}", style="dim", highlight=False)
    print_table(table, console)
    draw(table, OUT / "merges.png")
    save(table, OUT / "results.json")
    console.print("Drawn in .cache/demo/merges.png, numbers in .cache/demo/results.json.", style="dim")
    good, sentence = verdict(table, "average_two", list(PARENTS))
    console.print(sentence, style="bold green" if good else "bold red", highlight=False, soft_wrap=True)
    return 0 if good else 1


def masked_rows(rxnfp: Path, rxnmapper: Path) -> list[Masked]:
    """Build the test set: six maskings of every reaction."""
    vocabulary = rxnfp / BASE / "vocab.txt"
    mask = vocabulary.read_text(encoding="utf-8").splitlines().index("[MASK]")
    return maskings(encoded(reactions(texts(rxnfp, rxnmapper)), vocabulary), mask)


def merge(name: str) -> float:
    """Merge one recipe with the command line, as a user would; returns the seconds that the process took."""
    recipe = HERE / "recipes" / f"{name}.yml"
    command = [sys.executable, "-m", "plait", "merge", str(recipe), str(OUT / name), "--overwrite", "--quiet"]
    start = time.perf_counter()
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"`plait merge {recipe.name}` ended with exit code {code}.")
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
