"""The public functions. Every command of the command line is a thin call of one of these."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.checkpoint import open_checkpoint
from plait.checkpoint.types import Checkpoint
from plait.errors import CheckpointError, RecipeError
from plait.output.lock import read_lock
from plait.planning import DEFAULT_SHARD_SIZE, make_plan, read_documents
from plait.planning.types import Plan, Step
from plait.recipe import parse_recipe
from plait.recipe.references import parse_reference

if TYPE_CHECKING:
    from plait.adapters import Extraction
    from plait.checkpoint.token_report import TokenReport
    from plait.engine.kinship import Kinship
    from plait.engine.run import Event, MergeResult
    from plait.export import Exported

__all__ = [
    "explain",
    "export_gguf",
    "extract",
    "inspect",
    "kinship",
    "load",
    "merge",
    "merge_tensors",
    "plan",
    "tokens",
]

Path_ = str | os.PathLike[str]


def plan(recipe: Path_, *, shard_size: int | None = None, seed: int | None = None, explain: bool = False) -> Plan:
    """Return everything that merging `recipe` (a recipe or a lock) will do; reads headers only, writes nothing.

    Args:
        recipe: Path of a YAML recipe, or of a `plait.lock`.
        shard_size: Most bytes of weights in one output file; default 5 GB, or the lock's.
        seed: Overrides the recipe's seed.
        explain: Keep which rule gave each parameter its value (`plan.steps[i].explained`).

    Raises:
        RecipeError: with every fault of the recipe, once its models' headers have been read.
        CheckpointError: for a lock that is damaged.
    """
    lock = read_lock(Path(recipe))
    documents = parse_recipe(lock.recipe, file=lock.recipe_file) if lock else read_documents(Path(recipe))
    if any(document.adapter for document in documents):
        from plait.adapters.merging import plan_adapter

        return plan_adapter(documents, Path(recipe).resolve().parent, lock, seed=seed, explain=explain)
    if lock is None:
        return make_plan(recipe, shard_size=shard_size or DEFAULT_SHARD_SIZE, seed=seed, explain=explain)
    return make_plan(
        documents,
        root=Path(recipe).resolve().parent,
        shard_size=shard_size or lock.shard_size,
        seed=lock.seed if seed is None else seed,
        explain=explain,
        expected_hashes=lock.hashes,
        places=lock.models,
        commits=lock.commits,
    )


def merge(
    recipe: Path_,
    out: Path_,
    *,
    threads: int | None = None,
    memory: int = 1 << 30,
    shard_size: int | None = None,
    device: str = "cpu",
    seed: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    verify: bool = True,
    allow_nonfinite: bool = False,
    sync: bool = False,
    on_event: Callable[[Event], None] | None = None,
    planned: Plan | None = None,
) -> MergeResult:
    """Merge as `recipe` says and leave a complete model folder at `out`, or leave nothing there.

    Args:
        recipe: Path of a YAML recipe, or of a `plait.lock`, which gives the same bytes again.
        out: The folder to make. While work goes on its files are in `out` + ".partial".
        threads: Most threads; default one a core. The result does not depend on it.
        memory: Most bytes to hold over what the process needs anyway.
        shard_size: Most bytes of weights in one output file.
        device: "cpu", or a torch device such as "cuda". The result does not depend on it.
        seed: Overrides the recipe's seed.
        resume: Go on with an interrupted merge of the same plan; otherwise start afresh.
        overwrite: Replace an earlier output; nothing of it is kept.
        verify: Open the output anew and hold it against the plan and its own config.
        allow_nonfinite: Go on when an input has, or the merge makes, NaN or infinity.
        sync: Wait until all of it is on the disk before the folder gets its name, so that a power cut cannot harm it.
        on_event: Called with progress, from any thread.
        planned: What `plan` returned for this recipe and these arguments, to save planning twice.

    Raises:
        RecipeError: the recipe is wrong; nothing was written.
        OutputError: the folder may not be touched, or the disk is full.
        MergeError: work had begun and had to stop; what is done is kept for the next run.
    """
    from plait.engine.run import execute  # only now: planning needs no engine

    made = planned or plan(recipe, shard_size=shard_size, seed=seed)
    if made.recipe.adapter is not None:
        from plait.adapters.merging import Work, merge_adapters

        work = Work(threads or _cores(), memory, device, overwrite, verify, allow_nonfinite, sync)
        return merge_adapters(made, Path(out), work, on_event or (lambda _event: None))
    lock = read_lock(Path(recipe))
    return execute(
        made,
        out,
        threads=threads,
        memory=memory,
        device=device,
        resume=resume,
        overwrite=overwrite,
        verify=verify,
        allow_nonfinite=allow_nonfinite,
        sync=sync,
        shard_size=shard_size or (lock.shard_size if lock else DEFAULT_SHARD_SIZE),
        on_event=on_event,
    )


def explain(recipe: Path_, pattern: str = "*") -> tuple[Step, ...]:
    """Return the steps whose output tensor matches the glob, each with which rule gave each parameter its value.

    Raises:
        RecipeError: no tensor matches, or the recipe is wrong.
    """
    steps = plan(recipe, explain=True).steps
    found = tuple(step for step in steps if fnmatchcase(step.name, pattern))
    if not found:
        raise RecipeError.of(f"No output tensor matches {pattern!r}; there are {len(steps)}, such as {steps[0].name}.")
    return found


def inspect(checkpoint: Path_) -> Checkpoint:
    """Return a checkpoint's headers: names, element types, shapes, config. No weight is read.

    Args:
        checkpoint: A folder, a file or a hub name (`org/name@revision`), also with an adapter on it
            (`base+adapter`); an adapter's folder alone is shown on the base that its config names.

    Raises:
        CheckpointError: there is nothing of that name, or it cannot be read.
    """
    return _open(checkpoint)


def _open(checkpoint: Path_) -> Checkpoint:
    try:
        named = parse_reference(os.fspath(checkpoint))
    except ValueError as error:
        raise CheckpointError(f"{os.fspath(checkpoint)}: {error}.") from None
    return open_checkpoint(
        named.path, revision=named.revision, adapter=named.adapter, adapter_revision=named.adapter_revision
    )


def tokens(models: Sequence[Path_]) -> TokenReport:
    """Describe the tokens of one or more models, and compare each with the first: tokens, numbers, kinds, rows.

    Args:
        models: Checkpoints (folders, files, hub names); only their headers and tokenizer files are read.

    Raises:
        CheckpointError: one of them cannot be opened.
    """
    from plait.checkpoint.token_report import compare_tokens

    return compare_tokens([_open(model) for model in models])


def kinship(models: Sequence[Path_], base: Path_, *, measure: str = "pearson", threads: int | None = None) -> Kinship:
    """Compare what fine-tuning changed in two or more models of one base: model kinship, arXiv 2410.12613.

    The whole models are read once, tile by tile. What is compared are the differences from the base, of all tensors that
    every model has, as one vector a model.

    Args:
        models: Two or more checkpoints (folders, files, hub names).
        base: The checkpoint that they were made from.
        measure: "pearson" (correlation), "cosine", or "euclidean" (distance).
        threads: Most threads; default one a core. The result does not depend on it.

    Returns:
        The matrix `[k, k]`, and the order in which a soup would take the models in, the least alike first.

    Raises:
        RecipeError: models that cannot be merged, such as other shapes than the base's; from headers alone.
        MergeError: an input has NaN or infinity.
        PlaitError: fewer than two models, or an unknown measure.
    """
    from plait.engine.fetch import fetch_inputs
    from plait.engine.kinship import kinship_of

    listed: list[dict[str, str]] = [{"model": os.fspath(model)} for model in models]
    document = {"models": listed, "merge_method": "metagpt", "base_model": os.fspath(base)}
    planned = make_plan(parse_recipe(json.dumps(document), file="kinship"), root=Path.cwd())
    fetch_inputs(planned)
    return kinship_of(planned, measure, threads or _cores())


def extract(
    base: Path_,
    model: Path_,
    out: Path_,
    *,
    rank: int | None = None,
    energy: float | None = None,
    error: float | None = None,
    include: str | None = None,
    exclude: str | None = None,
    save_embeddings: bool = True,
    base_name: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    memory: int = 1 << 31,
    overwrite: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Extraction:
    """Write the difference of `model` from `base` as a LoRA adapter, a folder that peft loads, or leave nothing there.

    The weights of linear layers become factors of low rank, as near as the rank allows; whatever else differs is saved
    whole. Scaling is 1. One layer is held in memory at a time and thread.

    Args:
        base: The checkpoint (folder, file, hub name) that the model was made from.
        model: The fine-tuned checkpoint.
        out: The folder to make.
        rank: Singular values kept of each delta, from 1 up; 32 where neither `energy` nor `error` is given.
        energy: Keep as many as have this share of the sum of squares, in (0, 1).
        error: Keep as many as leave this relative error (of Frobenius norms), in (0, 1).
        include: Regular expression, searched for in tensor names: leave out all others.
        exclude: Regular expression: leave out what matches.
        save_embeddings: Whether embeddings that differ are saved whole, or left out.
        base_name: What adapter_config.json calls the base; default as in `base`.
        seed: Of the random projection, which decides the last digits only.
        threads: Most threads; default one a core. The result does not depend on it.
        memory: Most bytes to hold, unless a single layer needs more; fewer threads work where layers are large.
        overwrite: Replace an earlier adapter; nothing of it is kept.
        on_event: Called with progress, from any thread.

    Returns:
        Rank and relative error of each module, the total error, what was saved whole and what was left out.

    Raises:
        CheckpointError: a checkpoint is quantised, or tensors differ in name or shape; all are named.
        OutputError: the folder may not be touched, or the disk is full.
        MergeError: an input has NaN or infinity.
        PlaitError: an argument is out of range, or nothing differs that an adapter can hold.
    """
    from plait.adapters import extract_adapter
    from plait.adapters.low_rank import Wanted

    return extract_adapter(
        os.fspath(base),
        os.fspath(model),
        Path(out),
        Wanted(32 if rank is energy is error is None else rank, energy, error),
        include=include,
        exclude=exclude,
        save_embeddings=save_embeddings,
        base_name=base_name,
        seed=seed,
        threads=threads or _cores(),
        memory=memory,
        overwrite=overwrite,
        on_event=on_event or (lambda _event: None),
    )


def export_gguf(
    model: Path_,
    file: Path_ | None = None,
    *,
    kind: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a checkpoint as a GGUF file, for llama.cpp, or leave nothing there.

    Args:
        model: Checkpoint (folder, file, hub name) of a family that plait knows in GGUF, with its tokenizer.
        file: Where to; default a file in the model's folder, called as that and the type.
        kind: "f32", "f16", "bf16" or "q8_0"; default as most weights are.
        threads: Most threads; default one a core. The bytes do not depend on it.
        overwrite: Replace a file that is there.

    Raises:
        CheckpointError: a family, tensor, setting or tokenizer that is not written to GGUF; by name.
        OutputError: the file is there already, or cannot be written.
    """
    from plait.export import export_gguf as write

    target = None if file is None else Path(file)
    return write(_open(model), target, kind=kind, threads=threads or _cores(), overwrite=overwrite)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(checkpoint: Path_) -> dict[str, Any]:
    """Read a whole checkpoint into numpy arrays (bfloat16 and float8 as ml_dtypes types), by name."""
    from plait.engine.fetch import fetch_tensors
    from plait.engine.memory_merge import load_arrays

    opened = _open(checkpoint)
    fetch_tensors(opened.tensors.values())
    return load_arrays(opened)


def merge_tensors(
    models: Sequence[Mapping[str, Any]],
    method: str,
    *,
    base: Mapping[str, Any] | None = None,
    seed: int = 0,
    **parameters: Any,
) -> dict[str, Any]:
    """Merge dicts of numpy arrays or torch tensors in memory, by name.

    Args:
        models: One mapping a model, all with the same names and shapes.
        method: Name of a merge method.
        base: The base model, for methods that need one.
        seed: For methods with randomness.
        parameters: The method's parameters; a per-model one as a number or a sequence with one number a model.

    Returns:
        Arrays (or tensors, with gradients where the method has them) in the element type of the base or first model.

    Raises:
        PlaitError: names or shapes differ, or a parameter is unknown, missing or out of range.

    >>> import numpy as np
    >>> a, b = {"w": np.ones(3, np.float32)}, {"w": np.zeros(3, np.float32)}
    >>> merge_tensors([a, b], "linear", weight=[3, 1])["w"].tolist()
    [0.75, 0.75, 0.75]
    """
    from plait.engine.memory_merge import merge_mappings

    return merge_mappings(models, method, base, seed, parameters)
