"""Merging what is in memory already: dicts of numpy arrays or torch tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from plait.checkpoint.io import FileReader
from plait.checkpoint.types import Checkpoint
from plait.dtypes import DTYPES, Dtype, dtype_by_name
from plait.engine.hashes import content_identity
from plait.engine.prepare import GRAM, columns
from plait.errors import PlaitError, did_you_mean
from plait.methods import Method, find_method
from plait.methods.measures import SAMPLE, Gram, Measure
from plait.ops import BLOCK, Rng, rng_key, weighted_sum

__all__ = ["load_arrays", "merge_mappings"]

_TILE = BLOCK * 64
_Sight: TypeAlias = tuple[Any, "Rng | None", Mapping[str, Any]]
"""What a measure is shown of one tensor: its stack, its generator, and what is known of it."""


def load_arrays(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read every tensor of a checkpoint into a numpy array of its own type."""
    import ml_dtypes

    arrays = {}
    with FileReader() as reader:
        for name, tensor in checkpoint.tensors.items():
            raw = np.empty(tensor.nbytes, np.uint8)
            reader.read_elements(tensor, 0, raw)
            kind = DTYPES[tensor.dtype].name
            arrays[name] = raw.view(getattr(ml_dtypes, kind, None) or np.dtype(kind)).reshape(tensor.shape)
    return arrays


def merge_mappings(
    models: Sequence[Mapping[str, Any]],
    method: str,
    base: Mapping[str, Any] | None,
    seed: int,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Merge dicts of tensors. See `plait.merge_tensors`."""
    declared = find_method(method)
    values = _checked(declared, parameters, len(models))
    everyone = [*models, *([base] if base is not None else [])]
    _check_names(everyone)
    if declared.sees.space == "deltas" and base is None:
        raise PlaitError(f"{method} works on differences from a base model: give `base`.")
    stacked = [base, *models] if declared.base == "first" and base is not None else list(models)
    if len(stacked) < declared.min_models or len(stacked) > (declared.max_models or len(stacked)):
        raise PlaitError(
            f"{method} takes {declared.min_models} to {declared.max_models or 'any number of'} models, not {len(stacked)}."
        )
    chosen = declared.chosen(values)
    jobs = [_Job.of(chosen, name, stacked, base, seed) for name in everyone[0]]
    shared = _over_all(chosen, jobs, values)
    return {job.name: job.merged({**values, **shared.get(job.name, {})}) for job in jobs}


def _checked(method: Method, parameters: Mapping[str, Any], k: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for given, value in parameters.items():
        name = method.parameter(given)
        if name is None:
            known = sorted(method.parameters)
            raise PlaitError(
                f"{method.name} has no parameter {given!r}. {did_you_mean(given, known)} It takes: {', '.join(known)}."
            )
        declared = method.parameters[name]
        several = declared.per_model and isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
        if several and len(value) != k:
            raise PlaitError(f"{method.name}: {given} has {len(value)} numbers for {k} models.")
        for one in value if several else [value]:
            wrong = declared.fault(one)
            if wrong:
                raise PlaitError(f"{method.name}: {given} = {one!r}; {wrong}.")
        values[name] = [declared.read(one) for one in value] if several else declared.read(value)
    values = {**method.defaults_of(values.get("variant", "")), **values}
    if method.variant_defaults:
        del values["variant"]  # it has had its effect
    missing = [name for name in method.parameters if name not in values and name != "variant"]
    if missing:
        raise PlaitError(f"{method.name} needs {', '.join(missing)}.")
    shaped = {
        name: np.array(np.broadcast_to(np.asarray(value, np.float64), (k,)))
        if method.parameters[name].per_model
        else value
        for name, value in values.items()
    }
    if wrong := method.fault(shaped):
        raise PlaitError(f"{method.name}: {wrong}.")
    return shaped


def _check_names(models: Sequence[Mapping[str, Any]]) -> None:
    for number, model in enumerate(models[1:], 2):
        different = sorted(models[0].keys() ^ model.keys())
        if different:
            raise PlaitError(
                f"The models do not have the same tensors: {different[0]} is not in both the first and number {number}."
            )
        for name, tensor in model.items():
            if tuple(tensor.shape) != tuple(models[0][name].shape):
                raise PlaitError(
                    f"{name}: {tuple(models[0][name].shape)} in the first model, {tuple(tensor.shape)} in number {number}."
                )


@dataclass(frozen=True)
class _Job:
    """One tensor to be merged: the models', and the base's where the method works on differences."""

    method: Method
    name: str
    inputs: Sequence[Any]
    base: Any
    seed: int

    @classmethod
    def of(cls, method: Method, name: str, models: Sequence[Mapping[str, Any]], base: Any, seed: int) -> _Job:
        origin = base[name] if base is not None and method.subtracts(base=True) else None
        return cls(method, name, [model[name] for model in models], origin, seed)

    @property
    def first(self) -> Any:
        """The tensor whose element type the result has."""
        return self.inputs[0] if self.base is None else self.base

    @property
    def is_merged(self) -> bool:
        """Whether there is anything to merge: what is no float is the first's, as it is between files."""
        return self.size > 0 and _code(self.first).is_float

    @property
    def size(self) -> int:
        return math.prod(self.first.shape)

    def stack(self) -> tuple[Any, Any]:
        """Return the stack as the method sees it, and the base."""
        stack, origin = _stacked(self.inputs, self.base, wide=_code(self.first).code == "F64")
        shape = tuple(stack.shape[1:])
        if self.method.locality == "row":
            return stack.reshape(len(stack), math.prod(shape[:-1]), shape[-1] if shape else 1), origin
        return (stack if self.method.locality == "matrix" else stack.reshape(len(stack), -1)), origin

    def rng(self) -> Rng | None:
        """The generator of a method with randomness: the models are told by the same hash as in files."""
        if not self.method.random:
            return None
        keys = [rng_key(self.seed, self.name, _identity(tensor)) for tensor in self.inputs]
        return Rng(np.array(keys, np.uint64))

    def merged(self, values: Mapping[str, Any]) -> Any:
        """Return the merged tensor; `values` may have what was measured over all tensors together."""
        if not self.is_merged:
            return self.first.copy() if isinstance(self.first, np.ndarray) else self.first.clone()
        stack, origin = self.stack()
        merged = _run(self.method, stack, values, self.rng()).reshape(tuple(self.first.shape))
        merged = merged if origin is None else origin + merged
        if isinstance(self.first, np.ndarray):
            with np.errstate(over="ignore"):
                return np.asarray(merged).astype(self.first.dtype)  # (0-d sums are numpy scalars)
        return merged.to(self.first.dtype)


def _over_all(method: Method, jobs: Sequence[_Job], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Measure what `scope: model` asks for over all tensors together, and what that needs; by tensor and argument."""
    jobs = [job for job in jobs if job.is_merged]
    if values.get("scope") != "model" or not jobs:
        return {}
    found: dict[str, dict[str, Any]] = {job.name: {} for job in jobs}
    for name in _before_tiles(method):
        scoped = name == GRAM or method.measured[name].scoped
        for together in [jobs] if scoped else [[job] for job in jobs]:
            known = [{**values, **found[job.name]} for job in together]
            measure = _made(method, name, known[0], len(jobs[0].inputs), sum(job.size for job in together))

            def each(together: Sequence[_Job] = together, known: Sequence[Any] = known) -> Iterator[_Sight]:
                return ((job.stack()[0], job.rng(), one) for job, one in zip(together, known, strict=True))

            value = _measure(method, measure, each)
            for job in together:
                found[job.name][name] = value
    return found


def _before_tiles(method: Method) -> list[str]:
    """What must be measured over all tensors, and before that: the arguments up to the last such."""
    if method.locality == "span":
        return [GRAM]
    names = list(method.measured)
    while names and not method.measured[names[-1]].scoped:
        names.pop()
    return names


def _made(method: Method, name: str, known: Mapping[str, Any], k: int, size: int) -> Measure:
    return Gram(k) if name == GRAM else method.measured[name].make(columns(known), k, size)


def _code(tensor: Any) -> Dtype:
    found = dtype_by_name(str(tensor.dtype))
    if found is None:
        raise PlaitError(f"Tensors of type {tensor.dtype} cannot be merged.")
    return found


def _identity(tensor: Any) -> bytes:
    """The content hash that tells a model's tensor from another's."""
    code = _code(tensor)
    if isinstance(tensor, np.ndarray):
        raw = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    else:
        import torch

        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    size = math.prod(tensor.shape)
    return content_identity(code.code, tuple(tensor.shape), size, lambda a, b: raw[a * code.size : b * code.size])


def _stacked(inputs: Sequence[Any], base: Any, *, wide: bool) -> tuple[Any, Any]:
    """Return the stack, of differences when there is a base, and the base, in float32 or, `wide`, float64."""
    if isinstance(inputs[0], np.ndarray):
        kind = np.float64 if wide else np.float32
        stack = np.stack([np.asarray(tensor).astype(kind) for tensor in inputs])
        origin = None if base is None else np.asarray(base).astype(kind)
        return (stack if origin is None else stack - origin), origin
    import torch

    precision = torch.float64 if wide else torch.float32
    tensors = torch.stack([tensor.to(precision) for tensor in inputs])
    origin = None if base is None else base.to(precision)
    return (tensors if origin is None else tensors - origin), origin


def _numbers(value: Any, stack: Any, *, rounded: bool = False) -> Any:
    """Shape numbers to go with a stack; those that the caller gave are rounded to its type."""
    if not isinstance(value, np.ndarray):
        return value
    kind = np.float32 if rounded and stack.dtype.itemsize < 8 else np.float64
    shaped = np.ascontiguousarray(value.reshape(*value.shape, *[1] * (stack.ndim - 1)), kind)
    if isinstance(stack, np.ndarray):
        return shaped
    import torch

    return torch.as_tensor(shaped, device=stack.device)


def _run(method: Method, stack: Any, values: Mapping[str, Any], rng: Rng | None) -> Any:
    known = dict(values)
    for name in [GRAM] if method.locality == "span" else method.measured:
        if name not in known:
            measure = _made(method, name, known, len(stack), math.prod(stack.shape[1:]))
            known[name] = _measure(method, measure, lambda: [(stack, rng, known)])
    if method.locality == "span":
        gram = known.pop(GRAM)
        return weighted_sum(stack, _numbers(np.asarray(method.run(gram, **known), np.float64), stack))
    arguments = {key: _numbers(value, stack, rounded=key in method.parameters) for key, value in known.items()}
    if method.random:
        arguments[method.random] = rng
    return method.run(stack, **arguments)


def _measure(method: Method, measure: Measure, sights: Callable[[], Iterable[_Sight]]) -> Any:
    """Show a measure all stacks, in as many passes as it asks for."""
    if not measure.needed():
        return np.asarray(measure.result(), np.float64)
    if measure.wants_sample():
        parts = [_flat(stack) for stack, _, _ in sights()]
        every = max(1, sum(part.shape[1] for part in parts) // SAMPLE)
        measure.prime(np.concatenate([_host(part[:, ::every]) for part in parts], axis=1))
    again = True
    while again:
        for stack, rng, known in sights():
            measure.enter(columns(known))
            for start, tile in _tiles(method, stack):
                measure.update(tile, start, rng.at(start) if rng else None)
        again = measure.finish_pass()
    return np.asarray(measure.result(), np.float64)


def _tiles(method: Method, stack: Any) -> Iterator[tuple[int, Any]]:
    """Cut a stack as the method's locality allows; with each tile the number of its first entry."""
    if method.locality in {"row", "matrix"}:
        yield 0, stack.detach() if hasattr(stack, "detach") else stack
        return
    flat = _flat(stack)
    for start in range(0, flat.shape[1], _TILE):
        part = flat[:, start : start + _TILE]
        yield start, np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part.contiguous()


def _flat(stack: Any) -> Any:
    plain = stack.detach() if hasattr(stack, "detach") else stack
    return plain.reshape(len(plain), -1)


def _host(part: Any) -> Any:
    return np.ascontiguousarray(part if isinstance(part, np.ndarray) else part.cpu().numpy())
