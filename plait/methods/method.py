"""`@method`: a function and what its signature declares, entered under its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from plait.errors import PlaitError, did_you_mean
from plait.methods.terms import Terms, in_terms
from plait.methods.vocabulary import LayerPosition, Measured, Parameter, Random, Sees, Stack

__all__ = ["Locality", "Method", "MethodError", "find_method", "method", "method_names", "post_step", "replacing"]

Locality = Literal["element", "row", "span", "measured", "matrix"]
BaseRole = Literal["required", "optional", "first", "origin"]
Check = Callable[[Mapping[str, Any]], str]
"""From parameter values, numbers one a model as sequences, to what is wrong with them together; "" for nothing."""

_METHODS: dict[str, Method] = {}
_POST_STEPS: dict[str, Method] = {}
_WORDS = "The words are in plait.methods, or Annotated[float, Parameter(float, 'What it is.')]."


class MethodError(PlaitError):
    """A method was declared wrongly, or asked for by a name that none has."""

    exit_code = 2


@dataclass(frozen=True)
class Method:
    """A merge method: what it computes and everything that its signature says about it."""

    name: str
    run: Callable[..., Any]
    locality: Locality
    sees: Sees
    parameters: Mapping[str, Parameter]
    defaults: Mapping[str, Any]
    """Parameters without an entry here must be set."""
    measured: Mapping[str, Measured]
    random: str | None
    """The argument that takes the tile's generator, if any."""
    paper: str
    base: BaseRole
    """Whether a base is needed. In weight space "first" puts it first among the inputs; with "origin" the method works on
    differences from a base where there is one, and on the weights where there is none."""
    min_models: int
    max_models: int | None
    variants: list[tuple[Mapping[str, Any], Method]] = field(default_factory=list, compare=False, repr=False)
    variant_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each value of the parameter `variant` changes in the defaults (the first: nothing). `run` is not given it."""
    terms: Terms = "any"
    """Whose arrays `run` was written for."""
    stack: str | None = None
    """A post-step's argument that takes what the method merged, if any."""
    position: str | None = None
    """A post-step's argument that takes where the tensor's layer lies, if any."""
    check: Check | None = None
    """What is told of values that are each right but do not go together."""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.run) or "").split("\n", 1)[0]

    @property
    def description(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.run) or ""

    def subtracts(self, *, base: bool) -> bool:
        """Whether it is given differences from the base, when there is a base or when there is none."""
        return self.sees.space == "deltas" or (self.base == "origin" and base)

    def parameter(self, name: str) -> str | None:
        """The declared name of what a recipe calls `name`, or None."""
        if name in self.parameters:
            return name
        return next((own for own, declared in self.parameters.items() if name and declared.also == name), None)

    def defaults_of(self, variant: str) -> Mapping[str, Any]:
        """The defaults with `variant: …`; without variants, or of none of that name, those of the signature."""
        return {**self.defaults, **self.variant_defaults.get(variant, {})}

    def chosen(self, values: Mapping[str, Any]) -> Method:
        """This method, or the variant of it that these parameter values ask for."""
        for wanted, other in self.variants:
            if all(values.get(key) == value for key, value in wanted.items()):
                return other
        return self

    @property
    def rounds(self) -> tuple[tuple[str, ...], ...]:
        """What is measured, round by round: each looks up only what was measured in earlier ones."""
        number: dict[str, int] = {}
        for name, measured in self.measured.items():
            looked_up = number if measured.uses is None else number.keys() & set(measured.uses)
            number[name] = 1 + max((number[other] for other in looked_up), default=-1)
        return tuple(
            tuple(name for name in number if number[name] == i) for i in range(1 + max(number.values(), default=-1))
        )

    def fault(self, values: Mapping[str, Any]) -> str:
        """Say what is wrong with the values of all parameters together, or return ""."""
        return self.check(values) if self.check else ""

    def when(self, *, locality: Locality, **values: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter another function for particular values of this method's own parameters."""

        def enter(run: Callable[..., Any]) -> Callable[..., Any]:
            own = in_terms(run, self.terms)
            other = _declare(own, locality, self.paper, self.base, self.min_models, self.max_models, name=self.name)
            if unknown := values.keys() - self.parameters.keys():
                raise MethodError(f"{self.name} has no parameter {min(unknown)!r} to have a variant for.")
            self.variants.append((values, other))
            return run

        return enter


def method(
    *,
    paper: str,
    locality: Locality,
    base: BaseRole | None = None,
    min_models: int = 1,
    max_models: int | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    terms: Terms = "any",
    check: Check | None = None,
) -> Callable[[Callable[..., Any]], Method]:
    """Enter a function as a merge method under its own name.

    `paper` is the address of the source; `locality` what it must see at once; `base` defaults to "required" in
    delta space and "optional" in weight space, where "origin" means that a base is subtracted if there is one;
    `min_models` and `max_models` count the stack's entries. `variants` gives the method a parameter `variant`, which
    decides the defaults of the others and nothing else: {"mergekit": {}, "paper": {"density": 0.2}}, where the first
    names the defaults of the signature. `terms` says whether the body is in "numpy" or "torch" terms, so that it is
    given such arrays on every device, or in "any": operators and `plait.ops`, which are the same for both. `check` is
    asked before anything is read, once for each set of values: it returns what is wrong with them together, or "".
    """
    if terms not in get_args(Terms):
        raise MethodError(f"terms is one of {', '.join(get_args(Terms))}, not {terms!r}.")

    def enter(function: Callable[..., Any]) -> Method:
        run = in_terms(function, terms)
        declared = _with_variants(_declare(run, locality, paper, base, min_models, max_models), variants or {})
        if declared.stack or declared.position:
            raise MethodError(f"{declared.name}: Stack and LayerPosition are for post-steps.")
        declared = replace(declared, terms=terms, check=check)
        if not paper:
            raise MethodError(f"{declared.name} has no paper; give the address of its source.")
        if _METHODS.setdefault(declared.name, declared).run is not run:
            raise MethodError(f"There is a method {declared.name!r} already. Choose another name.")
        return declared

    return enter


def post_step(run: Callable[..., Any]) -> Method:
    """Enter a function as a step that wraps any method: it takes the merged delta and returns another.

    What it declares as measured is measured over the method's stack with the merged delta as one entry more, the last:
    `[k + 1, *shape]`, tensor by tensor. Beside parameters it may declare a `Stack` and a `LayerPosition`.
    """
    declared = _declare(run, "element", "", None, 1, None)
    if declared.random or "scope" in declared.parameters:
        raise MethodError(f"{declared.name}: a post-step has nothing random, and measures tensor by tensor.")
    if _POST_STEPS.setdefault(declared.name, declared).run is not run:
        raise MethodError(f"There is a post-step {declared.name!r} already. Choose another name.")
    return declared


def find_method(name: str, *, post: bool = False) -> Method:
    """Return the method of that name. Raises MethodError, with the nearest name, when there is none."""
    known = _POST_STEPS if post else _METHODS
    if name not in known:
        kind = "post-step" if post else "merge method"
        near = did_you_mean(name.replace("-", "_"), list(known))
        raise MethodError(f"There is no {kind} {name!r}. {near or 'Known: ' + ', '.join(sorted(known)) + '.'}")
    return known[name]


def method_names(*, post: bool = False) -> tuple[str, ...]:
    """The names of all methods (or post-steps), sorted."""
    return tuple(sorted(_POST_STEPS if post else _METHODS))


@contextmanager
def replacing(old: set[tuple[str, bool]]) -> Iterator[set[tuple[str, bool]]]:
    """Withdraw `old`, and note into the yielded set what is entered meanwhile, as (name, whether it is a post-step).

    When an exception leaves the block everything is as it was before.
    """
    registries = (_METHODS, _POST_STEPS)
    before = tuple(dict(registry) for registry in registries)
    for name, post in old:
        registries[post].pop(name, None)
    kept = tuple(set(registry) for registry in registries)
    new: set[tuple[str, bool]] = set()
    try:
        yield new
    except BaseException:
        for registry, former in zip(registries, before, strict=True):
            registry.clear()
            registry.update(former)
        raise
    new.update((name, post) for post in (False, True) for name in registries[post].keys() - kept[post])


def _declare(
    run: Callable[..., Any],
    locality: Locality,
    paper: str,
    base: BaseRole | None,
    min_models: int,
    max_models: int | None,
    *,
    name: str | None = None,
) -> Method:
    name = name or run.__name__
    _check_terms(name, run, locality, base, min_models, max_models)
    sees, arguments = _signature(run, name)
    if sees.gram != (locality == "span"):
        raise MethodError(f"{name}: locality 'span' and a Gram argument go together.")
    parameters, defaults, measured, random = {}, {}, {}, None
    beside: dict[str, str] = {}
    for argument, hint in arguments:
        declared = next((word for word in _words(hint) if isinstance(word, (Parameter, Measured))), None)
        if isinstance(declared, Parameter):
            parameters[argument.name] = declared
            if argument.default is not inspect.Parameter.empty:
                defaults[argument.name] = _default(name, argument, declared)
        elif isinstance(declared, Measured):
            measured[argument.name] = declared
        elif hint == Random:
            random = argument.name
        elif hint in (Stack, LayerPosition):
            beside["stack" if hint == Stack else "position"] = argument.name
        else:
            raise MethodError(f"{name}: argument {argument.name!r} is not annotated with a declared word. {_WORDS}")
    if sees.gram and (measured or random):
        raise MethodError(f"{name}: a span method sees the Gram matrix and parameters, nothing measured or random.")
    role: BaseRole = base or ("required" if sees.space == "deltas" else "optional")
    return Method(
        name,
        run,
        locality,
        sees,
        parameters,
        defaults,
        measured,
        random,
        paper,
        role,
        min_models,
        max_models,
        stack=beside.get("stack"),
        position=beside.get("position"),
    )


def _with_variants(declared: Method, variants: Mapping[str, Mapping[str, Any]]) -> Method:
    """Add the parameter `variant`, before all others: it decides what they are by default."""
    if not variants:
        return declared
    if "variant" in declared.parameters or next(iter(variants.values())):
        what = "the parameter `variant` is declared by `variants`, the first of which changes nothing"
        raise MethodError(f"{declared.name}: {what}.")
    for name, values in variants.items():
        for key, value in values.items():
            known = declared.parameters.get(key)
            wrong = known.fault(value) if known else "there is no such parameter"
            if wrong:
                raise MethodError(f"{declared.name}: variant {name!r} sets {key} to {value!r}; {wrong}.")
    choice = Parameter(str, "Whose defaults hold for what the recipe does not set.", choices=tuple(variants))
    parameters = {"variant": choice, **declared.parameters}
    defaults = {"variant": choice.choices[0], **declared.defaults}
    return replace(declared, parameters=parameters, defaults=defaults, variant_defaults=variants)


def _check_terms(
    name: str, run: Callable[..., Any], locality: str, base: str | None, min_models: int, max_models: int | None
) -> None:
    if locality not in get_args(Locality):
        raise MethodError(f"{name}: locality is one of {', '.join(get_args(Locality))}, not {locality!r}.")
    if base is not None and base not in get_args(BaseRole):
        raise MethodError(f"{name}: base is one of {', '.join(get_args(BaseRole))}, not {base!r}.")
    if not 1 <= min_models <= (max_models or min_models):
        raise MethodError(f"{name}: it takes {min_models} to {max_models} models; expected 1 or more, the least first.")
    if not inspect.getdoc(run):
        raise MethodError(f"{name} has no docstring; its first line is shown as its summary.")


def _signature(run: Callable[..., Any], name: str) -> tuple[Sees, list[tuple[inspect.Parameter, Any]]]:
    """Return what the first argument sees, and every other argument with its annotation."""
    try:
        hints = get_type_hints(run, include_extras=True)
    except NameError as error:
        raise MethodError(f"{name}: an annotation cannot be read: {error}. {_WORDS}") from None
    arguments = list(inspect.signature(run).parameters.values())
    first = hints.get(arguments[0].name) if arguments else None
    sees = next((word for word in _words(first) if isinstance(word, Sees)), None)
    if sees is None:
        raise MethodError(f"{name}: the first argument must be Weights, Deltas, WeightsGram or DeltasGram.")
    if any(argument.kind in {argument.VAR_POSITIONAL, argument.VAR_KEYWORD} for argument in arguments):
        raise MethodError(f"{name}: every parameter must be named; * and ** arguments cannot be declared.")
    return sees, [(argument, hints.get(argument.name)) for argument in arguments[1:]]


def _default(name: str, argument: inspect.Parameter, declared: Parameter) -> Any:
    if argument.default is None:
        return None  # the body says what that means
    wrong = declared.fault(argument.default)
    if wrong:
        raise MethodError(f"{name}: the default of {argument.name!r} is {argument.default!r}; {wrong}.")
    return argument.default


def _words(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()
