"""Do the tests of ops and methods notice? Each mutant is one small fault in a copy of plait, and a test must fail for it.

    python tests/mutants.py [WORD ...]     only those whose file or texts contain one of the words

A mutant that survives, a text that is no longer there (or is there twice), and tests that fail without any fault
make this script fail. Where the source has changed, change the mutant with it; where one survives, the tests need a case.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 300  # seconds; a mutant may well make a loop endless, and is noticed then, too


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` becomes `new` in `file` (below plait/), and `tests` (arguments of pytest) must fail."""

    file: str
    old: str
    new: str
    tests: str


ENTRIES, AXIS = "tests/ops/test_entries.py", "tests/ops/test_last_axis.py"
ELEMENTWISE, RNG = "tests/ops/test_elementwise.py", "tests/ops/test_rng.py"
RANKED = "tests/ops/test_ranked.py"
GOLDEN = "tests/methods/test_golden.py -k "
GGUF = "checkpoint/gguf/"
QUANTISED = "tests/checkpoint/quantised/test_formats.py"
PAINS, PROPERTIES = "tests/pains/test_", "tests/properties/test_"
CPU, TORCH = "ops/on_cpu/", "ops/on_torch/"

MUTANTS = [
    Mutant(CPU + "elementwise.py", "piece[j] >= 0 else", "piece[j] > 0 else", f"{ELEMENTWISE} -k elect"),
    Mutant(CPU + "elementwise.py", "agrees = vote * elected[j] > 0", "agrees = vote * elected[j] >= 0", ELEMENTWISE),
    Mutant(CPU + "elementwise.py", "abs(x[j]) >= least", "abs(x[j]) > least", f"{ELEMENTWISE} -k trim"),
    Mutant(CPU + "elementwise.py", "& (size >= -record)", "& (size > -record)", f"{ELEMENTWISE} -k largest"),
    Mutant(CPU + "elementwise.py", "best[j] = x[j] + zero", "best[j] = x[j]", f"{ELEMENTWISE} -k largest"),
    Mutant(CPU + "elementwise.py", "x >> u32(15)", "x >> u32(14)", f"{RNG} -k version"),
    Mutant(CPU + "elementwise.py", "bits <= last", "bits < last", f"{RNG} -k limit"),
    Mutant(CPU + "elementwise.py", "f64(bits) + 1.0 <=", "f64(bits) <=", f"{RNG} -k limit"),
    Mutant(CPU + "elementwise.py", "good &= (density[j] >= 0)", "good &= (density[j] > -1)", f"{ELEMENTWISE} -k misuse"),
    Mutant("ops/fusing/grids.py", "program.keys.tobytes(), program.limits.tobytes()", "program.keys.tobytes()", "tests/ops/test_fusing.py -k drawn"),
    Mutant("ops/fusing/kept.py", "!= check:", "== b'':", "tests/ops/test_fusing.py -k harmed"),
    Mutant("engine/verify.py", "units[:: max(1, written // _READ_AGAIN)]", "units[::1]", "tests/engine/test_verify.py"),
    Mutant("checkpoint/io.py", "self.read_elements(tensor, start, out[place", "self.read_elements(tensor, start + 1, out[place", "tests/checkpoint/test_io.py -k spans"),
    Mutant("engine/folder.py", "    if sync:\n        make_durable(partial)", "    if False:\n        make_durable(partial)", "tests/adapters_merge/test_recipes.py -k on_the_disk"),
    Mutant(CPU + "blocks.py", "x.size - 4 * LANES + 1, 4 * LANES):\n        a, b", "x.size - 4 * LANES, 4 * LANES):\n        a, b", "tests/ops/test_blocks.py"),
    Mutant(CPU + "blocks.py", "lanes[lane + half]", "lanes[2 * half - 1 - lane]", "tests/ops/test_blocks.py"),
    Mutant(CPU + "blocks.py", "size >= low_bits + counts.size", "size > low_bits + counts.size", "tests/ops/test_magnitude.py"),
    Mutant(CPU + "entries.py", "(other if more else one) + zero", "other if more else one", f"{ENTRIES} -k zeros"),
    Mutant(CPU + "entries.py", "return x[at + low : at + low + room.size]", "return x[at : at + room.size]", f"{ENTRIES} -k long_rows"),
    Mutant(CPU + "entries.py", "d, q, r = q - p, q // 2, p", "d, q, r = q - p, q // 2, 0", f"{ENTRIES} -k median"),
    Mutant(CPU + "entries.py", "room[(k - 1) // 2], room[k // 2]", "room[k // 2], room[k // 2]", f"{ENTRIES} -k median"),
    Mutant(CPU + "ranked.py", "own, u32(1)) >> u32(16))))", "own, u32(1)))))", RANKED),
    Mutant(CPU + "ranked.py", "_stays(draws[j], i64(below[place + 1]) - 1", "_stays(draws[j], i64(below[place])", RANKED),
    Mutant(CPU + "ranked.py", "return bool(negative == 0)", "return True", RANKED),
    Mutant(CPU + "last_axis.py", "i32(least) + i32(reached > n)", "i32(least)", f"{AXIS} -k keep"),
    Mutant(CPU + "exponential.py", "half = n >> 1", "half = n", f"{ENTRIES} -k exponentials"),
    Mutant(CPU + "exponential.py", "min(side * value, 20.0)", "min(side * value, 17.0)", f"{ENTRIES} -k 'exponentials or tanh'"),
    Mutant(CPU + "exponential.py", "q = q * r + C11\n", "q = q * r\n", f"{ENTRIES} -k exponentials"),
    Mutant(CPU + "shapes.py", "(b if second else 1) if first", "b if first", f"{ENTRIES} -k 'long_rows or broadcast'"),
    Mutant(CPU + "last_axis.py", "size = 8 * x.itemsize - 1", "size = 8 * x.itemsize - 11", f"{AXIS} -k ranks"),
    Mutant(CPU + "last_axis.py", "places[to, place] = places[1 - to, j]", "places[to, place] = j", f"{AXIS} -k ranks"),
    Mutant(CPU + "last_axis.py", "equal = (keys[j] == least) & (left > 0)", "equal = keys[j] == least", f"{AXIS} -k keep_of"),
    Mutant(CPU + "last_axis.py", "total += dot(part, part, lanes)", "total = dot(part, part, lanes)", f"{AXIS} -k norms"),
    Mutant(TORCH + "__init__.py", "agrees = vote * sign > 0", "agrees = vote * sign >= 0", ELEMENTWISE),
    Mutant(TORCH + "entries.py", "torch.where(y < x, y, x) + zero_of(x)", "torch.where(y < x, y, x)", f"{ENTRIES} -k zeros"),
    Mutant(TORCH + "last_axis.py", "run = LANES if columns <= BLOCK else BLOCK", "run = LANES", f"{AXIS} -k norms"),
    Mutant("ops/rng.py", "(each * 2.0**32)", "(each * (2.0**32 - 1))", f"{RNG} -k limits"),
    Mutant("ops/rng.py", 'digest.update(len(part).to_bytes(8, "little"))', "pass", f"{RNG} -k keys"),
    Mutant("ops/magnitude.py", "return len(above) - 1 - place, rank - before", "return len(above) - 1 - place, rank", "tests/ops/test_magnitude.py"),
    Mutant("ops/scratch.py", "self.arena.used = self.mark", "self.arena.used = 0", "tests/ops/test_scratch.py"),
    Mutant("ops/trace.py", "and not operand.boolean for operand", "for operand", "tests/ops/test_trace.py"),
    Mutant("ops/trace.py", "np.ndarray or value.dtype != np.float32", "np.ndarray", "tests/ops/test_trace.py"),
    Mutant("ops/fusing/program.py", "rng.start != 0 or", "", "tests/ops/test_trace.py"),
    Mutant("ops/fusing/program.py", ">= zero else -one", "> zero else -one", "tests/ops/test_fusing.py -k 'one_after or noted'"),
    Mutant("ops/fusing/source.py", '"0x7F7F8000"', '"0x7F800000"', "tests/ops/test_fusing.py -k overflows"),
    Mutant("ops/fusing/grids.py", "limit - 1)", "limit)", "tests/ops/test_fusing.py -k one_after"),
    Mutant("methods/linear.py", "weight / weight.sum() if normalize else weight", "weight", f"{GOLDEN}linear"),
    Mutant("methods/slerp.py", "_NEARLY_COLLINEAR = 0.9995", "_NEARLY_COLLINEAR = 0.9", f"{GOLDEN}slerp"),
    Mutant("methods/slerp.py", "if abs(cosine) >", "if cosine >", f"{GOLDEN}slerp"),
    Mutant("methods/model_stock.py", "below = 1 + (k - 1) * mean", "below = 1 + k * mean", f"{GOLDEN}model_stock"),
    Mutant("methods/karcher.py", "angle / np.sin(angle)", "angle", f"{GOLDEN}karcher"),
    Mutant("methods/arcee_fusion.py", "importance >= median", "importance > median", f"{GOLDEN}arcee_fusion"),
    Mutant("methods/nearswap.py", "ops.clamp(deltas[0], -t, t)", "ops.clamp(deltas[0], 0, t)", f"{GOLDEN}nearswap"),
    Mutant("methods/ties.py", 'norm if rescale == "l1" else 1 / (density', 'norm if rescale == "l1" else (density', f"{GOLDEN}dare"),
    Mutant("methods/ties.py", 'ops.sign(kept) if vote == "frequency" else kept, voice)\n    if merge', "kept, voice)\n    if merge", f"{GOLDEN}ties"),
    Mutant("methods/della.py", "ops.ranks(deltas) * (2 /", "ops.ranks(deltas) * (1 /", f"{GOLDEN}della"),
    Mutant("methods/breadcrumbs.py", "(rank < end)", "(rank <= end)", f"{GOLDEN}breadcrumbs"),
    Mutant("methods/measures/magnitude.py", "max(1, math.floor(d * size))", "max(1, math.ceil(d * size))", "tests/methods/test_measures.py -k 'kth or rank'"),
    Mutant(GGUF + "forms.py", "np.arange(rows).reshape(-1, 2).T", "np.arange(rows).reshape(2, -1).T", "tests/gguf/test_reading.py -k piece"),
    Mutant(GGUF + "forms.py", "out -= np.float32(self.minus)", "out -= np.float32(0)", "tests/gguf/test_reading.py -k gemma"),
    Mutant(GGUF + "tokenizer.py", "(-scores[number], number,", "(scores[number], number,", "tests/gguf/test_tokenizer.py -k sentencepiece"),
    Mutant("hub/pieces.py", "max(stop, _FIRST) if begin == 0 else stop", "stop", "tests/hub/test_planning.py -k usual"),
    Mutant("hub/pieces.py", "zlib.crc32(piece) != check", "False", "tests/hub/test_planning.py -k damaged"),
    Mutant("hub/pieces.py", "self._keep(low, found)", "None", "tests/hub/test_planning.py -k second_plan"),
    Mutant("hub/fetch.py", "self._digest, self._done = hashlib.sha256(), 0", "self._done = 0", "tests/hub/test_merging.py -k forgets_ranges"),
    Mutant("hub/fetch.py", "if self._is_wrong() and resumed:", "if False:", "tests/hub/test_merging.py -k damaged"),
    Mutant("hub/fetch.py", 'part.open("a+b")', 'part.open("w+b")', "tests/hub/test_merging.py -k killed"),
    Mutant("hub/fetch.py", "free < needed + written", "free < needed", "tests/hub/test_merging.py -k space"),
    Mutant("hub/snapshot.py", "_listed(repo, pinned or revision", "_listed(repo, revision", "tests/hub/test_merging.py -k commits"),
    Mutant("hub/snapshot.py", 'name.count("/") == one.count("/")', "True", "tests/hub/test_planning.py -k no_weights"),
    Mutant("hub/push.py", "delete_patterns=list(_STALE)", "delete_patterns=[]", "tests/hub/test_pushing.py -k old_shards"),
    Mutant("hub/push.py", "if private and not", "if False and not", "tests/hub/test_pushing.py -k everybody"),
    Mutant("export/weights.py", "if self.plus:", "if self.heads:", "tests/gguf/test_families.py -k Gemma2"),
    Mutant("export/writing.py", "_fill(part, constants, 1)", "_fill(part, (), 1)", "tests/gguf/test_export.py -k llama_3"),
    Mutant("adapters/merging/space.py", "np.sign(part.scaling) * (ups", "(ups", "tests/adapters_merge/test_space.py -k likeness"),
    Mutant("adapters/merging/space.py", "_SAFE = 1e-8", "_SAFE = 0.0", "tests/adapters_merge/test_space.py -k 'likeness or rounding'"),
    Mutant("adapters/merging/clusters.py", "* sqrt(rank / len(means))", "* (rank / len(means))", "tests/adapters_merge/test_clusters.py -k reweightings"),
    Mutant("planning/account.py", "if (source.model, source.name) in decisions.used:", "if True:", f"{PAINS}conservation_of_files.py"),
    Mutant("planning/ledger.py", 'step.action == "copy" or', "", f"{PAINS}pain_01_broken_model.py -k ledger"),
    Mutant("planning/ties.py", "            says = False", "            says = None", f"{PROPERTIES}ties.py"),
    Mutant("planning/ties.py", " and not _is_headless(view.config))", ")", f"{PROPERTIES}ties.py"),
    Mutant("planning/totals.py", "held.nbytes for held in", "2 * held.nbytes for held in", f"{PAINS}pain_07_quantised.py -k headline"),
    Mutant("checkpoint/aligned.py", "total / max(1, len(fill))", "total", f"{PROPERTIES}vocabularies.py"),
    Mutant("checkpoint/aligned.py", "if not fill or fill is AVERAGE", "if fill is AVERAGE", f"{PAINS}pain_03_vocabularies.py -k ghost"),
    Mutant("checkpoint/dequantise/kernels.py", "lead, low = at & 1,", "lead, low = 0,", "tests/checkpoint/quantised/test_formats.py -k odd"),
    Mutant("checkpoint/dequantise/kernels.py", "u64(0x00FF00FF00FF00FF)", "u64(0x00FF00FF00FF00FE)", f"{QUANTISED} -k mxfp4"),
    Mutant("checkpoint/dequantise/strips.py", "strip.low <= at < strip.high", "strip.low <= at <= strip.high", QUANTISED),
    Mutant("checkpoint/dequantise/strips.py", "work = 2 * strip", "work = 0 * strip", "tests/checkpoint/quantised/test_memory.py"),
    Mutant("checkpoint/adapters/settings.py", 'bool(config.get("ensure_weight_tying"))', "False", f"{PAINS}pain_08_ties.py -k leaves_it_tied"),
    Mutant("engine/twins.py", "one.shape == other.shape and all(", "one.shape == other.shape or all(", f"{PAINS}pain_08_ties.py -k found_out"),
]  # fmt: skip


def main(words: list[str]) -> int:
    """Try all mutants that one of the words is about, or all; return how many were not noticed."""
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.file} {m.old} {m.new} {m.tests}" for w in words)]
    started, kept = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="plait-mutants-") as folder:
        copy = _copy(Path(folder))
        files = sorted({m.tests.partition(" -k ")[0] for m in chosen})
        if (code := _run(copy, files, show=True)) != 0:
            sys.exit(f"These must pass without any fault, but pytest ended with {code}: {' '.join(files)}")
        shutil.rmtree(copy / "kept", ignore_errors=True)
        shutil.copytree(copy / "plait", copy / "sound")  # with the kernels that this has compiled
        for mutant in chosen:
            said = _try(copy, mutant)
            kept += said != "killed"
            print(f"{said:9} plait/{mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
    print(f"{len(chosen) - kept} of {len(chosen)} killed in {time.monotonic() - started:.0f} s")
    return kept


def _copy(folder: Path) -> Path:
    """Copy what the tests need, with what is compiled already."""
    for part in ("plait", "tests"):
        shutil.copytree(ROOT / part, folder / part)  # with the files' times, so that compiled kernels count as fresh
    shutil.copy2(ROOT / "pyproject.toml", folder / "pyproject.toml")
    found = _python(folder, "-c", "import plait; print(plait.__file__)")
    if Path(found.stdout.strip()).parent != folder.resolve() / "plait":
        sys.exit(f"The copy in {folder} is not what is imported there, but {found.stdout}{found.stderr}")
    return folder


def _try(copy: Path, mutant: Mutant) -> str:
    source, file = copy / "sound" / mutant.file, copy / "plait" / mutant.file
    text = source.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return "NO PLACE" if mutant.old not in text else "AMBIGUOUS"
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        where, _, words = mutant.tests.partition(" -k ")
        code = _run(copy, [where, *(["-k", words.strip("'")] if words else [])])
    finally:
        shutil.copy2(source, file)
        shutil.rmtree(copy / "kept", ignore_errors=True)  # fused kernels, which may have the mutant's within
        shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)  # the mutant's kernels
        if (compiled := source.parent / "__pycache__").exists():
            shutil.copytree(compiled, file.parent / "__pycache__")
    return {0: "SURVIVED", 1: "killed"}.get(code, "BROKEN")  # else no test has run: such a fault proves nothing


def _run(copy: Path, tests: list[str], *, show: bool = False) -> int:
    """Run some tests on the copy until one fails, always with the same examples; return pytest's exit status."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    try:
        done = _python(copy, "-m", "pytest", *tests, *options, limit=4 * LIMIT if show else LIMIT)
    except subprocess.TimeoutExpired:
        return 1
    if show and done.returncode:
        print(done.stdout[-3000:])
    return done.returncode


def _python(copy: Path, *arguments: str, limit: int = LIMIT) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {"PYTHONPATH": str(copy), "PLAIT_CACHE_DIR": str(copy / "kept")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=settings, capture_output=True, text=True, timeout=limit, check=False
    )


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
