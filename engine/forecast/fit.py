"""Rules that need the models: what a recipe asks for must fit the architectures it names.

A model whose config is not on this machine and not in the catalogue is passed over in silence: what
is not known is no mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from engine import plugin
from engine.diagnostics import Diagnostic, RequestError, nearest
from engine.forecast import layouts
from engine.models import ModelFamily
from engine.models._facts import known_kinds
from engine.models._known import KnownModel, ModelFinder
from engine.recipe.model import Experiment, Recipe

_ALL_LINEAR = "all-linear"
_SMALLEST_TEXT = 8  # tokens of the shortest chat around an image
_DECODER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
_SEEING = {  # linear layers beside those of the decoder
    "idefics3": ("out_proj", "fc1", "fc2", "proj"),
    "smolvlm": ("out_proj", "fc1", "fc2", "proj"),
    "llava_next": ("out_proj", "fc1", "fc2", "linear_1", "linear_2"),
    "mllama": ("fc1", "fc2", "multi_modal_projector"),
    "qwen2_vl": ("qkv", "proj", "fc1", "fc2", "0", "2"),
    "qwen2_5_vl": ("qkv", "proj", "0", "2"),
    "qwen3_vl": ("qkv", "proj", "linear_fc1", "linear_fc2"),
    "internvl": ("projection_layer", "fc1", "fc2", "linear_1", "linear_2"),
    "gemma3": ("out_proj", "fc1", "fc2"),
    "paligemma": ("out_proj", "fc1", "fc2", "linear"),
}

Place = tuple[str | int, ...]


def check(experiment: Experiment, models: ModelFinder) -> None:
    """Raise RequestError with every mistake of every arm."""
    arms = (experiment.recipe, *experiment.arms.values())
    found = dict.fromkeys(mistake for recipe in arms for mistake in mistakes(recipe, models))
    if found:
        raise RequestError(*found)


def mistakes(recipe: Recipe, models: ModelFinder) -> list[Diagnostic]:
    """Return what does not fit the models of one arm."""
    return [
        *_unknown_families(recipe, models),
        *_not_in_vllm(recipe, models),
        *layouts.mistakes(recipe, models),
        *_parts_of_text_models(recipe, models),
        *_too_short_rows(recipe, models),
        *_unmatched_targets(recipe, models),
    ]


def _families() -> dict[str, ModelFamily]:
    loaded = (plugin.load("models", name) for name in plugin.names("models"))
    return {kind: family for family in loaded for kind in family.model_types}


class _Named(NamedTuple):
    """A model that a recipe names; `place` holds its keys `model` and `backend`."""

    name: str
    revision: str | None
    backend: str
    place: Place


def named_models(recipe: Recipe) -> Iterator[_Named]:
    """Yield every model that a recipe names, and where."""
    base, generator = recipe.base, recipe.generator
    yield _Named(base.model, base.revision, base.backend.name, ("base",))
    if generator is not None:
        backend = generator.backend.name
        yield _Named(generator.model, generator.revision, backend, ("generator",))
    for group in ("pairs", "tasks"):
        for number, use in enumerate(getattr(recipe.filters, group)):
            for key, value in use.settings.items():
                place: Place = ("filters", group, number, key)
                if isinstance(value, plugin.ModelUse):
                    yield _Named(value.model, value.revision, value.backend.name, place)
                elif isinstance(value, Mapping) and {"model", "backend"} <= value.keys():
                    backend = value["backend"]["use"]
                    yield _Named(value["model"], value.get("revision"), backend, place)


def _unknown_families(recipe: Recipe, models: ModelFinder) -> Iterator[Diagnostic]:
    for name, revision, _, place in named_models(recipe):
        known = models.find(name, revision)
        if known is None or known.kind in known_kinds():
            continue
        families = _families()
        if known.kind in families:
            continue
        close = nearest(known.kind, families)
        kinds = ", ".join(sorted(families))
        hint = f"known types: {kinds}" + (f"; `{close}` is close" if close else "")
        message = f"no model family knows the type of `{name}`: `{known.kind}` ({known.basis})"
        yield Diagnostic("unknown-model-family", message, recipe.span(*place, "model"), hint)


def _not_in_vllm(recipe: Recipe, models: ModelFinder) -> Iterator[Diagnostic]:
    """Refuse the backend vllm for a model that it lacks, or that it reads in another way."""
    for name, revision, backend, place in named_models(recipe):
        known = models.find(name, revision) if backend == "vllm" else None
        family = _families().get(known.kind) if known is not None else None
        if family is not None and family.not_in_vllm:
            message = f"`vllm` does not answer as `{name}`: {family.not_in_vllm}"
            span = recipe.span(*place, "backend")
            yield Diagnostic("backend-model", message, span, "write `backend: {use: transformers}`")


def _parts_of_text_models(recipe: Recipe, models: ModelFinder) -> Iterator[Diagnostic]:
    """Refuse parts written out for a base that has none: the default names all parts of any."""
    known = models.find(recipe.base.model, recipe.base.revision)
    if known is None or known.architecture is None or known.architecture.vision is not None:
        return
    for number, part in enumerate(recipe.base.train):
        if part != "language" and ("base", "train", number) in recipe.spans:
            message = f"`{recipe.base.model}` reads text alone and has no part `{part}` to train"
            hint = "write `train: [language]`, or choose a base that sees images"
            span = recipe.span("base", "train", number)
            yield Diagnostic("text-only-model", message, span, hint)


def _too_short_rows(recipe: Recipe, models: ModelFinder) -> Iterator[Diagnostic]:
    if recipe.source is None:
        return
    base, generator = recipe.base, recipe.generator
    yield from _too_short(
        recipe,
        models.find(base.model, base.revision),
        recipe.training.max_length,
        ("training", "max_length"),
        base.model,
    )
    if generator is None:
        return
    writer = models.find(generator.model, generator.revision)
    if generator.tune is not None:
        place = ("generator", "tune", "training", "max_length")
        limit = generator.tune.training.max_length
        yield from _too_short(recipe, writer, limit, place, generator.model)
    yield from _no_room_to_write(recipe, writer)


def _too_short(
    recipe: Recipe, known: KnownModel | None, limit: int, place: Place, name: str
) -> Iterator[Diagnostic]:
    fewest = _fewest(known)
    if fewest + _SMALLEST_TEXT <= limit or not fewest:
        return
    message = (
        f"`{place[-1]}` is {limit:,}, but an image takes {fewest:,} tokens or more in `{name}`: "
        "no row would fit"
    )
    hint = f"write {_comfortable(fewest):,} or more; the text of a row comes on top"
    yield Diagnostic("max-length", message, recipe.span(*place), hint)


def _no_room_to_write(recipe: Recipe, known: KnownModel | None) -> Iterator[Diagnostic]:
    """Refuse an answer so long that no request fits into what the model holds."""
    generator = recipe.generator
    if generator is None or known is None or known.architecture is None:
        return
    context = known.architecture.language.context_tokens
    context = min(generator.backend.settings.get("max_model_len") or context, context)
    needed = _fewest(known) + generator.max_new_tokens + _SMALLEST_TEXT
    if needed <= context:
        return
    message = (
        f"`{generator.model}` holds {context:,} tokens, but an image and "
        f"{generator.max_new_tokens:,} new tokens take {needed:,} or more"
    )
    span = recipe.span("generator", "max_new_tokens")
    yield Diagnostic("max-length", message, span, "lower `max_new_tokens`")


def _fewest(known: KnownModel | None) -> int:
    return known.fewest_image_tokens if known is not None else 0


def _comfortable(fewest: int) -> int:
    """Return the next power of two that leaves room for a caption and a task."""
    size = 64
    while size < fewest + 300:
        size *= 2
    return size


def _unmatched_targets(recipe: Recipe, models: ModelFinder) -> Iterator[Diagnostic]:
    base: Any = recipe.base
    known = models.find(base.model, base.revision)
    if base.method != "lora" or known is None or known.architecture is None:
        return
    layers = (*_DECODER, *_SEEING.get(known.kind, ()))
    for number, target in enumerate(base.lora.targets):
        if target in (_ALL_LINEAR, *layers) or "." in target:
            continue
        close = nearest(target, layers)
        hint = f"did you mean `{close}`?" if close else f"its linear layers: {', '.join(layers)}"
        message = f"no linear layer of `{base.model}` is named `{target}`"
        span = recipe.span("base", "lora", "targets", number)
        yield Diagnostic("lora-target", message, span, hint)
