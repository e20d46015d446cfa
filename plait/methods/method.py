"""`@method`: a function and what its signature declares, entered under its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from plait.errors import PlaitError, did_you_mean
from plait.methods.vocabulary import Measured, Parameter, Random, Sees

__all__ = ["Locality", "Method", "MethodError", "find_method", "method", "method_names", "post_step"]

Locality = Literal["element", "row", "span", "measured", "matrix"]
BaseRole = Literal["required", "optional", "first"]

_METHODS: dict[str, Method] = {}
_POST_STEPS: dict[str, Method] = {}


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
    """Whether a base is needed; "first" puts it first among the inputs of a method of weight space."""
    min_models: int
    max_models: int | None
    variants: list[tuple[Mapping[str, Any], Method]] = field(default_factory=list, compare=False, repr=False)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.run) or "").split("\n", 1)[0]

    @property
    def description(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.run) or ""

    def parameter(self, name: str) -> str | None:
        """The declared name of what a recipe calls `name`, or None."""
        if name in self.parameters:
            return name
        return next((own for own, declared in self.parameters.items() if name and declared.also == name), None)

    def chosen(self, values: Mapping[str, Any]) -> Method:
        """This method, or the variant of it that these parameter values ask for."""
        for wanted, other in self.variants:
            if all(values.get(key) == value for key, value in wanted.items()):
                return other
        return self

    def when(self, *, locality: Locality, **values: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter another function for particular values of this method's own parameters."""

        def enter(run: Callable[..., Any]) -> Callable[..., Any]:
            other = _declare(run, locality, self.paper, self.base, self.min_models, self.max_models, name=self.name)
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
) -> Callable[[Callable[..., Any]], Method]:
    """Enter a function as a merge method under its own name.

    `paper` is the address of the source; `locality` what it must see at once; `base` defaults to "required" in
    delta space and "optional" in weight space; `min_models` and `max_models` count the stack's entries.
    """

    def enter(run: Callable[..., Any]) -> Method:
        declared = _declare(run, locality, paper, base, min_models, max_models)
        if _METHODS.setdefault(declared.name, declared).run is not run:
            raise MethodError(f"Two methods are called {declared.name!r}.")
        return declared

    return enter


def post_step(run: Callable[..., Any]) -> Method:
    """Enter a function as a step that wraps any method: it takes the merged delta (or weight) and returns another."""
    declared = _declare(run, "element", "", None, 1, None)
    if _POST_STEPS.setdefault(declared.name, declared).run is not run:
        raise MethodError(f"Two post-steps are called {declared.name!r}.")
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
    hints = get_type_hints(run, include_extras=True)
    signature = inspect.signature(run)
    first, *rest = signature.parameters.values()
    sees = next((word for word in _words(hints[first.name]) if isinstance(word, Sees)), None)
    if sees is None:
        raise MethodError(f"{run.__name__}: the first argument must be Weights, Deltas, WeightsGram or DeltasGram.")
    if sees.gram != (locality == "span"):
        raise MethodError(f"{run.__name__}: locality 'span' and a Gram argument go together.")
    parameters, defaults, measured, random = {}, {}, {}, None
    for argument in rest:
        words = _words(hints[argument.name])
        declared = next((word for word in words if isinstance(word, (Parameter, Measured))), None)
        if isinstance(declared, Parameter):
            parameters[argument.name] = declared
            if argument.default is not inspect.Parameter.empty:
                defaults[argument.name] = argument.default
        elif isinstance(declared, Measured):
            measured[argument.name] = declared
        elif hints[argument.name] == Random:
            random = argument.name
        else:
            raise MethodError(f"{run.__name__}: argument {argument.name!r} is not annotated with a declared word.")
    role: BaseRole = base or ("required" if sees.space == "deltas" else "optional")
    return Method(
        name or run.__name__,
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
    )


def _words(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()
