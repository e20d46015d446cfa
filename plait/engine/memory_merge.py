"""Merging what is in memory already: dicts of numpy arrays or torch tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plait.checkpoint.io import FileReader
from plait.checkpoint.types import Checkpoint
from plait.dtypes import DTYPES, Dtype, dtype_by_name
from plait.engine.hashes import content_identity
from plait.errors import PlaitError, did_you_mean
from plait.methods import Method, find_method
from plait.methods.measures import SAMPLE, Gram, Measure
from plait.ops import BLOCK, Rng, rng_key, weighted_sum

__all__ = ["load_arrays", "merge_mappings"]

_TILE = BLOCK * 64


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
    return {job.name: job.merged(values, shared) for job in jobs}


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
    return {
        name: np.array(np.broadcast_to(np.asarray(value, np.float64), (k,)))
        if method.parameters[name].per_model
        else value
        for name, value in values.items()
    }


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

    def merged(self, values: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
        if not self.is_merged:
            return self.first.copy() if isinstance(self.first, np.ndarray) else self.first.clone()
        stack, origin = self.stack()
        merged = _run(self.method, stack, {**values, **shared}, self.rng(), shared).reshape(tuple(self.first.shape))
        merged = merged if origin is None else origin + merged
        if isinstance(self.first, np.ndarray):
            with np.errstate(over="ignore"):
                return np.asarray(merged).astype(self.first.dtype)  # (0-d sums are numpy scalars)
        return merged.to(self.first.dtype)


def _over_all(method: Method, jobs: Sequence[_Job], values: Mapping[str, Any]) -> dict[str, Any]:
    """Measure over all tensors together what `scope: model` asks for."""
    if values.get("scope") != "model":
        return {}
    jobs = [job for job in jobs if job.is_merged]
    found = {}
    for name, measured in method.measured.items():
        if measured.scoped and jobs:
            measure = measured.make(_columns(values), len(jobs[0].inputs), sum(job.size for job in jobs))
            found[name] = np.asarray(_measure(measure, lambda: ((job.stack()[0], None) for job in jobs)), np.float64)
    return found


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


def _numbers(value: Any, stack: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    shaped = np.ascontiguousarray(value.reshape(*value.shape, *[1] * (stack.ndim - 1)))
    if isinstance(stack, np.ndarray):
        return shaped
    import torch

    return torch.as_tensor(shaped, device=stack.device)


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.reshape(*value.shape, 1) if isinstance(value, np.ndarray) else value for key, value in values.items()
    }


def _run(method: Method, stack: Any, values: Mapping[str, Any], rng: Rng | None, shared: Mapping[str, Any]) -> Any:
    def one() -> Iterator[tuple[Any, Rng | None]]:
        yield stack, rng

    if method.locality == "span":
        gram = _measure(Gram(len(stack)), one)
        return weighted_sum(stack, _numbers(np.asarray(method.run(gram, **values), np.float64), stack))
    known = dict(values)
    for name, measured in method.measured.items():
        if name not in shared:
            size = math.prod(stack.shape[1:])
            known[name] = np.asarray(_measure(measured.make(_columns(known), len(stack), size), one), np.float64)
    arguments = {key: _numbers(value, stack) for key, value in known.items()}
    if method.random:
        arguments[method.random] = rng
    return method.run(stack, **arguments)


def _measure(measure: Measure, stacks: Callable[[], Iterable[tuple[Any, Rng | None]]]) -> Any:
    """Show a measure all stacks, in as many passes as it asks for."""
    if not measure.needed():
        return measure.result()
    if measure.wants_sample():
        parts = [_flat(stack) for stack, _ in stacks()]
        every = max(1, sum(part.shape[1] for part in parts) // SAMPLE)
        measure.prime(np.concatenate([_host(part[:, ::every]) for part in parts], axis=1))
    again = True
    while again:
        for stack, rng in stacks():
            flat = _flat(stack)
            for start in range(0, flat.shape[1], _TILE):
                part = flat[:, start : start + _TILE]
                part = np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part.contiguous()
                measure.update(part, start, rng.at(start) if rng else None)
        again = measure.finish_pass()
    return measure.result()


def _flat(stack: Any) -> Any:
    plain = stack.detach() if hasattr(stack, "detach") else stack
    return plain.reshape(len(plain), -1)


def _host(part: Any) -> Any:
    return np.ascontiguousarray(part if isinstance(part, np.ndarray) else part.cpu().numpy())
