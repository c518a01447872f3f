"""A recipe with stand-ins: all is the recipe's own but models, rows and how long it trains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import plugin, prompts
from engine.diagnostics import Diagnostic, RequestError, Span
from engine.models import family_of
from engine.models._known import KnownModel, ModelFinder
from engine.plugin import Use
from engine.recipe.model import (
    BaseSpec,
    BenchmarkSpec,
    Experiment,
    FiltersSpec,
    GeneratorSpec,
    HoldoutSpec,
    MixSpec,
    Path_,
    Recipe,
    TrainSpec,
    TuneSpec,
)
from engine.recipe.prompts import variables
from engine.rehearsal import adapters, formats, models, rows
from engine.sources._columns import RowParams

NUM_ROWS = 16
NUM_ITEMS = 6  # of a benchmark
NUM_STEPS = 2
HELD_OUT = 4  # one pair of so many is held out
BATCH_ROWS = 2
ITSELF = "itself"
_VERSION = 2  # of stand-in models: moves their folders
_LOCAL = (".", "/", "~")
_PLACES = (
    "path",
    "image_root",
    "tasks",
    "captions",
    "answers",
    "images",
)  # settings that are paths
_CHATS = ("instruct", "chat", "-it")  # parts of the names of text models that were tuned to talk
_QUESTION = "What lies beside mark {n}?"
_INFORMATIVE = "Mark {n} has a bright field at its left side."
_PRECISE = "A bright field."


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be real: so many rows of data that must be fetched, and the models."""

    folder: Path  # relative paths of the recipe start here
    num_rows: int = NUM_ROWS
    num_items: int = NUM_ITEMS
    fetches: bool = False
    with_models: bool = False


@dataclass(slots=True)
class Staged:
    """A recipe ready for rehearsal, and what stands in for what."""

    experiment: Experiment
    models: dict[str, str] = field(default_factory=dict)  # name -> what it is
    sources: dict[str, str] = field(default_factory=dict)  # place -> what is read
    unchecked: list[str] = field(default_factory=list)  # sentences
    warnings: list[Diagnostic] = field(default_factory=list)  # what would stop a run of this recipe


def stage(
    experiment: Experiment,
    folder: Path,
    finder: ModelFinder,
    texts: Callable[[str], str],
    wishes: Wishes,
) -> Staged:
    """Write stand-ins under a folder, and return the recipe that names them.

    `texts` gives the text of a prompt template. Raise RequestError for models of which no config
    is known: nothing could stand in for them; and for adapters that do not fit.
    """
    staged = Staged(experiment)
    maker = _Maker(folder, finder, texts, wishes, staged)
    made = {id(experiment.recipe): maker.recipe(experiment.recipe)}
    for arm in experiment.arms.values():
        if id(arm) not in made:
            made[id(arm)] = maker.recipe(arm)
    if maker.mistakes:
        raise RequestError(*dict.fromkeys(maker.mistakes))
    arms = {name: made[id(arm)] for name, arm in experiment.arms.items()}
    staged.experiment = replace(experiment, recipe=made[id(experiment.recipe)], arms=arms)
    staged.unchecked = list(dict.fromkeys(staged.unchecked))
    staged.warnings = list(dict.fromkeys(staged.warnings))
    return staged


class _Maker:
    """Makes each stand-in once."""

    def __init__(
        self,
        folder: Path,
        finder: ModelFinder,
        texts: Callable[[str], str],
        wishes: Wishes,
        staged: Staged,
    ) -> None:
        self._folder = folder
        self._finder = finder
        self._texts = texts
        self._wishes = wishes
        self._staged = staged
        self._made: dict[tuple[str, str | None], str] = {}
        self.mistakes: list[Diagnostic] = []

    def recipe(self, recipe: Recipe) -> Recipe:
        specs = {
            name: replace(spec, source=self._questions(recipe, name, spec), expected_items=None)
            for name, spec in recipe.benchmark_specs.items()
        }
        changed = replace(
            recipe,
            source=None if recipe.source is None else self._source(recipe, ("source",)),
            mix=self._mix(recipe),
            training=_shortened(recipe.training),
            benchmarks=replace(recipe.benchmarks, holdout=self._holdout()),
            benchmark_specs=specs,
        )
        if self._wishes.with_models:
            return changed
        return replace(
            changed,
            generator=None if recipe.generator is None else self._generator(recipe),
            filters=FiltersSpec(
                pairs=self._filters(recipe, "pairs"), tasks=self._filters(recipe, "tasks")
            ),
            base=self._base(recipe),
        )

    def _holdout(self) -> HoldoutSpec:
        """Return what holds out some of a few pairs; the recipe's share of them may be none."""
        return HoldoutSpec(share=1.0, max_items=max(1, self._wishes.num_rows // HELD_OUT))

    def _base(self, recipe: Recipe) -> BaseSpec:
        base = recipe.base
        span = recipe.span("base", "model")
        name = self._model(base.model, base.revision, span)
        self._note_layout(base.model, base.layout)
        return replace(
            base,
            model=name,
            revision=None if name != base.model else base.revision,
            layout="huggingface",
            vision_tower=None,
            backend=self._backend(base.backend, base.model),
        )

    def _generator(self, recipe: Recipe) -> GeneratorSpec:
        spec = recipe.generator
        assert spec is not None, "asked for a recipe with a generator"
        name = self._model(spec.model, spec.revision, recipe.span("generator", "model"))
        self._note_layout(spec.model, spec.layout)
        adapter = spec.adapter
        if adapter is not None:
            span = recipe.span("generator", "adapter")
            found = self._adapter(adapter.model, spec.model, name, span)
            adapter = None if found is None else replace(adapter, model=found, revision=None)
        return replace(
            spec,
            model=name,
            revision=None if name != spec.model else spec.revision,
            layout="huggingface",
            vision_tower=None,
            adapter=adapter,
            backend=self._backend(spec.backend, spec.model, self._dialogue(spec.prompt)),
            tune=None if spec.tune is None else self._tune(recipe, spec.tune),
        )

    def _tune(self, recipe: Recipe, tune: TuneSpec) -> TuneSpec:
        seeds = self._source(recipe, ("generator", "tune", "seed_tasks"))
        return replace(tune, seed_tasks=seeds, training=_shortened(tune.training))

    def _mix(self, recipe: Recipe) -> MixSpec:
        if recipe.mix.replay is None:
            return recipe.mix
        return replace(recipe.mix, replay=self._source(recipe, ("mix", "replay")))

    def _dialogue(self, prompt: str) -> tuple[str, ...]:
        """Return what a tuned synthesizer writes after the caption turn; empty for an order."""
        template = self._texts(prompt)
        if "turn" not in variables(template):
            return ()
        found: list[str] = []
        for style, answer in (("informative", _INFORMATIVE), ("precise", _PRECISE)):
            asked = prompts.render(template, turn=style, instruction=_QUESTION)
            found += [asked, answer]
        return tuple(found)

    def _filters(self, recipe: Recipe, group: str) -> tuple[Use, ...]:
        uses: tuple[Use, ...] = getattr(recipe.filters, group)
        return tuple(
            replace(use, settings=self._settings(use.settings, recipe, ("filters", group, number)))
            for number, use in enumerate(uses)
        )

    def _settings(self, value: Any, recipe: Recipe, place: Path_) -> Any:
        """Return settings of a filter with stand-ins for the models in them."""
        if isinstance(value, Mapping):
            inner = {k: self._settings(item, recipe, (*place, k)) for k, item in value.items()}
            if {"model", "backend"} <= value.keys() and isinstance(value["model"], str):
                return {**inner, **self._judge(value, recipe, place)}
            return inner
        if isinstance(value, list | tuple):
            return [self._settings(item, recipe, (*place, n)) for n, item in enumerate(value)]
        return value

    def _judge(self, value: Mapping[str, Any], recipe: Recipe, place: Path_) -> dict[str, Any]:
        name = self._model(value["model"], value.get("revision"), recipe.span(*place, "model"))
        used = Use(value["backend"]["use"], settings=_without(value["backend"], "use", "version"))
        changed: dict[str, Any] = {
            "model": name,
            "revision": None,
            "backend": plugin.unbind(self._backend(used, value["model"])),
        }
        if value.get("adapter"):
            span = recipe.span(*place, "adapter")
            found = self._adapter(value["adapter"]["model"], value["model"], name, span)
            changed["adapter"] = None if found is None else {"model": found, "revision": None}
        return changed

    def _backend(self, use: Use, model: str, dialogue: tuple[str, ...] = ()) -> Use:
        """Return what answers in place of a backend; embedded models answer for themselves."""
        if use.name != "transformers":
            told = f"the backend `{use.name}`: `transformers` ran in its place"
            self._staged.unchecked.append(told)
        if _is_embedded(model):
            return use if use.name == "transformers" else Use("transformers")
        return plugin.bound_use("backends", {"use": "stand_in", "dialogue": list(dialogue)})

    def _note_layout(self, name: str, layout: str) -> None:
        if layout != "huggingface":
            told = f"the conversion of `{name}` from the layout `{layout}`: its stage is left out"
            self._staged.unchecked.append(told)

    def _model(self, name: str, revision: str | None, span: Span | None) -> str:
        """Return the folder of the stand-in of a model; embedded models stand for themselves."""
        if _is_embedded(name):
            if name not in self._staged.models:
                models.bring(name)
                self._staged.models[name] = ITSELF
            return name
        known = self._finder.find(name, revision)
        if known is None or not known.config:
            what = "no config of it is on this machine, nor in the catalogue"
            hint = "rehearse with a model whose config.json is here, or a known one"
            message = f"nothing can stand in for the model `{name}`: {what}"
            self.mistakes.append(Diagnostic("no-stand-in", message, span, hint))
            return name
        if (name, revision) not in self._made:
            self._made[name, revision] = self._stand_in(name, known)
            self._staged.models[name] = f"a small {known.kind} of random weights"
        return self._made[name, revision]

    def _stand_in(self, name: str, known: KnownModel) -> str:
        has_template = _talks(name, known)
        facts = [_VERSION, known.kind, known.config, known.processor, has_template]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        folder = self._folder / "models" / f"{name.strip('./~').replace('/', '--')}-{digest}"
        models.put(known, folder, has_template=has_template)
        return str(folder)

    def _adapter(self, adapter: str, model: str, stand_in: str, span: Span | None) -> str | None:
        """Return the stand-in of an adapter, or None where nothing is known of it."""
        if not adapter.startswith(_LOCAL):
            told = f"the adapter `{adapter}`: it is on the hub, and is left out"
            self._staged.unchecked.append(told)
            return None
        known = self._finder.find(model)
        here = self._wishes.folder / Path(adapter).expanduser()
        if _is_embedded(model) or known is None:
            return str(here.resolve())
        why = adapters.mistake(known, here)
        folder = Path(stand_in).with_name(f"{Path(stand_in).name}+{here.name}")
        if why is None:
            why = adapters.write(Path(stand_in), known.kind, here, folder)
        if why is not None:
            message = f"the adapter `{adapter}` does not load on `{model}`: {why}"
            hint = "name the folder that a LoRA training of this model wrote"
            self.mistakes.append(Diagnostic("unfit-adapter", message, span, hint))
            return None
        return str(folder)

    def _source(self, recipe: Recipe, place: Path_) -> Use:
        use = _at(recipe, place)
        made = _MAKERS.get(_task(use), rows.pairs)
        return self._rows(use, ".".join(map(str, place)), recipe, place, made)

    def _questions(self, recipe: Recipe, name: str, spec: BenchmarkSpec) -> Use:
        def made(params: RowParams) -> list[rows.Row]:
            return rows.questions(params, spec)

        lists = ((p, n) for p in ("domain", "general") for n in _names(recipe, p) if n == name)
        panel = next(lists)[0]
        place = ("benchmarks", panel, _names(recipe, panel).index(name))
        return self._rows(spec.source, f"benchmark {name}", recipe, place, made)

    def _rows(
        self,
        use: Use,
        told: str,
        recipe: Recipe,
        place: Path_,
        made: Callable[[RowParams], list[rows.Row]],
    ) -> Use:
        """Return a source of a few rows: the first real ones where they can be had."""
        wishes, sources = self._wishes, self._staged.sources
        num_rows = wishes.num_items if place[0] == "benchmarks" else wishes.num_rows
        if use.name == "pocket":
            few = min(int(use.settings.get("num_rows") or num_rows), num_rows)
            sources[told] = f"the first {few} pictures of the rendered `{_described(use)}`"
            return replace(use, settings={**use.settings, "num_rows": few})
        missing = self._missing(use)
        is_far = use.name == "hub" and not str(use.settings["dataset"]).startswith(_LOCAL)
        if wishes.fetches if is_far else not missing:
            sources[told] = f"the first {num_rows} rows of {_described(use)}"
            settings = {"source": plugin.unbind(use), "num_rows": num_rows}
            inner = {**settings, "source": _without(settings["source"], "version")}
            return plugin.bound_use("sources", {"use": "first", **inner})
        if missing:
            message = f"`{missing}` is not on this machine: made-up rows stood in for it"
            hint = "a run would stop here; rehearse again where the data is"
            span = recipe.span(*place)
            self._staged.warnings.append(Diagnostic("data-not-here", message, span, hint))
        sources[told] = f"made-up rows in the shape of {_described(use)}"
        params = plugin.settings_of("sources", use)
        columns = params if isinstance(params, RowParams) else RowParams(task=_task(use))
        digest = hashlib.sha256(repr((told, use)).encode()).hexdigest()[:12]
        return formats.write(use, made(columns), self._folder / "rows" / digest)

    def _missing(self, use: Use) -> str | None:
        """Return the first path of a source that is not on this machine."""
        names = [use.settings.get(name) for name in _PLACES]
        if use.name == "image_folder":
            names = [use.settings["path"]]  # its `captions` is no path
        if use.name == "hub" and str(use.settings["dataset"]).startswith(_LOCAL):
            names = [use.settings["dataset"]]
        there = self._wishes.folder
        wanted = [name for name in names if isinstance(name, str)]
        return next((n for n in wanted if not (there / Path(n).expanduser()).exists()), None)


_MAKERS: Mapping[str, Callable[[RowParams], list[rows.Row]]] = {
    "pairs": rows.pairs,
    "chat": rows.chats,
    "seeds": rows.seeds,
}


def _task(use: Use) -> Any:
    return "seeds" if use.name == "vision_flan" else use.settings.get("task", "pairs")


def _names(recipe: Recipe, panel: str) -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(recipe.benchmarks, panel)
    return found


def _at(recipe: Recipe, place: Path_) -> Any:
    value: Any = recipe
    for name in place:
        value = getattr(value, str(name))
    return value


def _without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _is_embedded(name: str) -> bool:
    return name.startswith("pocket/")


def _shortened(training: TrainSpec) -> TrainSpec:
    return replace(
        training,
        max_steps=NUM_STEPS,
        global_batch_size=min(training.global_batch_size, BATCH_ROWS),
        per_device_train_batch_size=None,
        precision="auto",
    )


def _talks(name: str, known: KnownModel) -> bool:
    """Tell whether a model has a chat template: all that see, and text models that say so."""
    if family_of(known.kind).has_vision:
        return True
    return any(part in name.casefold() for part in _CHATS)


def _described(use: Use) -> str:
    settings = use.settings
    named = settings.get("dataset") or settings.get("path") or settings.get("world") or use.name
    config = settings.get("config")
    return f"{named} ({config})" if config else str(named)
