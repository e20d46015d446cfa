"""Merging what is in memory already: dicts of numpy arrays or torch tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plait.checkpoint.io import FileReader
from plait.checkpoint.types import Checkpoint
from plait.dtypes import DTYPES
from plait.errors import PlaitError, did_you_mean
from plait.methods import Method, find_method
from plait.methods.measures import SAMPLE, Gram, Measure
from plait.ops import BLOCK, Rng, rng_key, weighted_sum

__all__ = ["load_arrays", "merge_mappings"]


def load_arrays(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read every tensor of a checkpoint into a numpy array of its own type."""
    import ml_dtypes  # noqa: PLC0415 - only for the types that numpy lacks

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
        raise PlaitError(f"{method} takes {declared.min_models} to {declared.max_models or 'any number of'} models, not {len(stacked)}.")
    merged = {}
    for name in everyone[0]:
        inputs = [model[name] for model in stacked]
        origin = base[name] if base is not None and declared.sees.space == "deltas" else None
        merged[name] = _merge_one(declared.chosen(values), name, inputs, origin, values, seed)
    return merged


def _checked(method: Method, parameters: Mapping[str, Any], k: int) -> dict[str, Any]:
    values = dict(method.defaults)
    for given, value in parameters.items():
        name = method.parameter(given)
        if name is None:
            known = sorted(method.parameters)
            raise PlaitError(f"{method.name} has no parameter {given!r}. {did_you_mean(given, known)} It takes: {', '.join(known)}.")
        declared = method.parameters[name]
        several = declared.per_model and isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
        if several and len(value) != k:
            raise PlaitError(f"{method.name}: {given} has {len(value)} numbers for {k} models.")
        for one in value if several else [value]:
            wrong = declared.fault(one)
            if wrong:
                raise PlaitError(f"{method.name}: {given} = {one!r}; {wrong}.")
        values[name] = [declared.read(one) for one in value] if several else declared.read(value)
    missing = [name for name in method.parameters if name not in values]
    if missing:
        raise PlaitError(f"{method.name} needs {', '.join(missing)}.")
    return {
        name: np.broadcast_to(np.asarray(value, np.float64), (k,)) if method.parameters[name].per_model else value
        for name, value in values.items()
    }


def _check_names(models: Sequence[Mapping[str, Any]]) -> None:
    for number, model in enumerate(models[1:], 2):
        different = sorted(models[0].keys() ^ model.keys())
        if different:
            raise PlaitError(f"The models do not have the same tensors: {different[0]} is not in both the first and number {number}.")
        for name, tensor in model.items():
            if tuple(tensor.shape) != tuple(models[0][name].shape):
                raise PlaitError(f"{name}: {tuple(models[0][name].shape)} in the first model, {tuple(tensor.shape)} in number {number}.")


def _merge_one(
    method: Method, name: str, inputs: Sequence[Any], base: Any, values: Mapping[str, Any], seed: int
) -> Any:
    first = base if base is not None else inputs[0]
    stack, origin = _stacked(inputs, base)
    shape = tuple(stack.shape[1:])
    if method.locality != "matrix":
        rows = shape[0] if len(shape) > 1 and method.locality == "row" else 1
        stack = stack.reshape(len(inputs), rows, -1) if method.locality == "row" else stack.reshape(len(inputs), -1)
    rng = None
    if method.random:
        keys = [rng_key(seed, name, np.ascontiguousarray(_host(tensor)).tobytes()) for tensor in inputs]
        rng = Rng(np.array(keys, np.uint64))
    merged = _run(method, stack, values, rng).reshape(shape)
    merged = merged if origin is None else origin + merged
    return merged.astype(first.dtype) if isinstance(first, np.ndarray) else merged.to(first.dtype)


def _stacked(inputs: Sequence[Any], base: Any) -> tuple[Any, Any]:
    """Return the stack, of differences when there is a base, and the base, in float32 (float64 for float64)."""
    first = inputs[0]
    if isinstance(first, np.ndarray):
        kind = np.float64 if first.dtype == np.float64 else np.float32
        stack = np.stack([np.asarray(tensor).astype(kind) for tensor in inputs])
        origin = None if base is None else np.asarray(base).astype(kind)
        return (stack if origin is None else stack - origin), origin
    import torch  # noqa: PLC0415 - only for torch tensors

    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    tensors = torch.stack([tensor.to(wide) for tensor in inputs])
    origin = None if base is None else base.to(wide)
    return (tensors if origin is None else tensors - origin), origin


def _host(array: Any) -> Any:
    return array if isinstance(array, np.ndarray) else array.detach().cpu().float().numpy()


def _numbers(value: Any, stack: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    shaped = np.ascontiguousarray(value.reshape(-1, *[1] * (stack.ndim - 1)))
    if isinstance(stack, np.ndarray):
        return shaped
    import torch  # noqa: PLC0415 - only for torch tensors

    return torch.as_tensor(shaped, device=stack.device)


def _run(method: Method, stack: Any, values: Mapping[str, Any], rng: Rng | None) -> Any:
    if method.locality == "span":
        gram = _measure(Gram(len(stack)), stack, rng)
        return weighted_sum(stack, _numbers(np.asarray(method.run(gram, **values), np.float64), stack))
    known = dict(values)
    for name, measured in method.measured.items():
        columns = {key: value.reshape(-1, 1) if isinstance(value, np.ndarray) else value for key, value in known.items()}
        size = int(np.prod(stack.shape[1:]))
        known[name] = np.asarray(_measure(measured.make(columns, len(stack), size), stack, rng), np.float64)
    arguments = {key: _numbers(value, stack) for key, value in known.items()}
    if method.random:
        arguments[method.random] = rng
    return method.run(stack, **arguments)


def _measure(measure: Measure, stack: Any, rng: Rng | None) -> Any:
    if not measure.needed():
        return measure.result()
    flat = stack.detach() if hasattr(stack, "detach") else stack
    flat = flat.reshape(len(stack), -1)
    if measure.wants_sample():
        step = max(1, flat.shape[1] // SAMPLE)
        measure.prime(flat[:, ::step].copy() if isinstance(flat, np.ndarray) else flat[:, ::step].contiguous())
    again = True
    tile = BLOCK * 64
    while again:
        for start in range(0, flat.shape[1], tile):
            part = flat[:, start : start + tile]
            part = np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part.contiguous()
            measure.update(part, start, rng.at(start) if rng else None)
        again = measure.finish_pass()
    return measure.result()
