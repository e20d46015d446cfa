"""What a recipe mentions, wherever it does: models, parameters, filters; and the levels of its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.recipe.settings import Level, entries_of, rule_text
from plait.recipe.types import Filtered, Input, ModelRef, ModelToken, Module, Recipe, Setting, Slice, TensorRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["filters_in", "levels_of", "model_mentions", "parameter_mentions"]

_RECIPE = "recipe"


def levels_of(
    recipe: Recipe,
    module: Module,
    part: Slice,
    source: Input | None = None,
    rules: Sequence[TensorRule] = (),
) -> tuple[Level, ...]:
    """Return the levels at which a parameter may stand, highest precedence first.

    They are `rules` (the tensor rules that match, in the order given), the source, its slice, the module, the
    recipe. `source` None is for a parameter of the method as a whole: sources are then not asked, as in mergekit.
    """
    levels = [(_rule_label(rule), rule.parameters) for rule in rules]
    if source is not None:
        levels.append((_source_label(module, part, source), source.parameters))
    levels += [(_slice_label(module, part), part.parameters), (_module_label(module), module.parameters)]
    levels.append((_RECIPE, recipe.parameters))
    return tuple(level for level in levels if level[1])


def parameter_mentions(recipe: Recipe) -> Iterator[tuple[str, Setting, str]]:
    """Yield every parameter that the recipe sets, at every level: its name, its setting and the level's label."""
    levels: list[Level] = [(_RECIPE, recipe.parameters)]
    for module in recipe.modules:
        levels.append((_module_label(module), module.parameters))
        for part in module.slices:
            levels.append((_slice_label(module, part), part.parameters))
            levels += [(_source_label(module, part, source), source.parameters) for source in part.sources]
    levels += [(_rule_label(rule), rule.parameters) for rule in recipe.tensors]
    levels += [(f"post '{step.name}'", step.parameters) for step in recipe.post]
    for label, settings in levels:
        for name, setting in settings.items():
            yield name, setting, label


def filters_in(recipe: Recipe) -> Iterator[Filtered]:
    """Yield every `{filter, value}` entry of the recipe, so that filters that match no tensor can be told."""
    for _, setting, _ in parameter_mentions(recipe):
        yield from entries_of(setting)


def model_mentions(recipe: Recipe) -> Iterator[ModelRef]:
    """Yield every model that the recipe names, in its order; a model named twice comes twice."""
    if recipe.base_model is not None:
        yield recipe.base_model
    for module in recipe.modules:
        for part in module.slices:
            if part.base_model is not None:
                yield part.base_model
            yield from (source.model for source in part.sources)
    if recipe.tokenizer is not None:
        named = [recipe.tokenizer.source, *(rule.source for rule in recipe.tokenizer.tokens.values())]
        models = (name.model if isinstance(name, ModelToken) else name for name in named)
        yield from (model for model in models if isinstance(model, ModelRef))
    yield from (rule.copy_from for rule in recipe.tensors if rule.copy_from is not None)


def _rule_label(rule: TensorRule) -> str:
    return f"tensors {rule_text(rule)}"


def _module_label(module: Module) -> str:
    return f"module '{module.name}'"


def _slice_label(module: Module, part: Slice) -> str:
    number = next(i for i, other in enumerate(module.slices, 1) if other is part)
    return (f"{_module_label(module)}, " if module.name else "") + f"slice {number}"


def _source_label(module: Module, part: Slice, source: Input) -> str:
    if module.whole:
        return (f"{_module_label(module)}, " if module.name else "") + f"model '{source.model}'"
    return f"{_slice_label(module, part)}, source '{source.model}'"
