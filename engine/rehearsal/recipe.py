"""A recipe with stand-ins: all of it is the recipe's own but models, rows and how long it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import plugin, prompts
from engine.diagnostics import Diagnostic, RequestError
from engine.models import family_of
from engine.models._known import KnownModel, ModelFinder
from engine.plugin import Use
from engine.recipe.model import (
    BaseSpec,
    Experiment,
    FiltersSpec,
    GeneratorSpec,
    Recipe,
    TrainSpec,
    TuneSpec,
)
from engine.recipe.prompts import variables
from engine.rehearsal import models, rows
from engine.sources._columns import RowParams

NUM_STEPS = 2
BATCH_ROWS = 4
_OWN = ("pocket/", ".", "/", "~")  # models that are on every machine, or on this one
_CHATS = ("instruct", "chat", "-it")  # parts of the names of text models that were tuned to talk
_QUESTION = "What lies beside mark {n}?"
_INFORMATIVE = "Mark {n} has a bright field at its left side."
_PRECISE = "A bright field."


@dataclass(slots=True)
class Staged:
    """A recipe ready for rehearsal, and what stands in for what."""

    experiment: Experiment
    models: dict[str, str] = field(default_factory=dict)  # name -> model_type
    sources: dict[str, str] = field(default_factory=dict)  # place -> data set
    unchecked: list[str] = field(default_factory=list)  # sentences


def stage(experiment: Experiment, folder: Path, finder: ModelFinder, texts: Any) -> Staged:
    """Write stand-ins under a folder, and return the recipe that names them.

    `texts` gives the text of a prompt template. Raise RequestError for models of which no config
    is known: nothing could stand in for them.
    """
    maker = _Maker(folder, finder, texts)
    staged = Staged(experiment)
    main = maker.recipe(experiment.recipe)
    arms = {
        name: main if arm is experiment.recipe else maker.recipe(arm)
        for name, arm in experiment.arms.items()
    }
    if maker.mistakes:
        raise RequestError(*dict.fromkeys(maker.mistakes))
    staged.experiment = replace(experiment, recipe=main, arms=arms)
    staged.models, staged.sources = maker.models, maker.sources
    staged.unchecked = list(dict.fromkeys(maker.unchecked))
    return staged


class _Maker:
    """Makes each stand-in once."""

    def __init__(self, folder: Path, finder: ModelFinder, texts: Any) -> None:
        self._folder = folder
        self._finder = finder
        self._texts = texts
        self.models: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.unchecked: list[str] = []
        self.mistakes: list[Diagnostic] = []

    def recipe(self, recipe: Recipe) -> Recipe:
        specs = {
            name: replace(spec, source=self._questions(name, spec))
            for name, spec in recipe.benchmark_specs.items()
        }
        mix = recipe.mix
        if mix.replay is not None:
            mix = replace(mix, replay=self._source("mix.replay", mix.replay))
        return replace(
            recipe,
            source=None if recipe.source is None else self._source("source", recipe.source),
            generator=None if recipe.generator is None else self._generator(recipe),
            filters=FiltersSpec(
                pairs=tuple(map(self._filter, recipe.filters.pairs)),
                tasks=tuple(map(self._filter, recipe.filters.tasks)),
            ),
            mix=mix,
            base=self._base(recipe),
            training=_shortened(recipe.training),
            benchmark_specs=specs,
        )

    def _base(self, recipe: Recipe) -> BaseSpec:
        base = recipe.base
        name = self._model(base.model, base.revision, recipe, ("base", "model"))
        self._note_layout(base.model, base.layout)
        return replace(
            base,
            model=name,
            revision=None if name != base.model else base.revision,
            layout="huggingface",
            vision_tower=None,
            backend=self._backend(base.backend),
        )

    def _generator(self, recipe: Recipe) -> GeneratorSpec:
        spec = recipe.generator
        assert spec is not None, "asked for a recipe with a generator"
        name = self._model(spec.model, spec.revision, recipe, ("generator", "model"))
        self._note_layout(spec.model, spec.layout)
        if spec.adapter is not None:
            self.unchecked.append(f"the adapter `{spec.adapter.model}`: it is left out")
        return replace(
            spec,
            model=name,
            revision=None if name != spec.model else spec.revision,
            layout="huggingface",
            vision_tower=None,
            adapter=None,
            backend=self._backend(spec.backend, self._dialogue(spec.prompt)),
            tune=None if spec.tune is None else self._tune(spec.tune),
        )

    def _tune(self, tune: TuneSpec) -> TuneSpec:
        licence = tune.seed_tasks.settings.get("licence")
        place = "generator.tune.seed_tasks"
        self.sources[place] = _described(tune.seed_tasks)
        seeds = rows.seeds(licence, self._folder / "rows" / place)
        return replace(tune, seed_tasks=seeds, training=_shortened(tune.training))

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

    def _filter(self, use: Use) -> Use:
        return replace(use, settings=self._settings(use.settings))

    def _settings(self, value: Any) -> Any:
        """Return settings of a filter with stand-ins for the models in them."""
        if isinstance(value, Mapping):
            inner = {key: self._settings(item) for key, item in value.items()}
            if not {"model", "backend"} <= value.keys() or not isinstance(value["model"], str):
                return inner
            name = self._model(value["model"], value.get("revision"), None, ())
            if value.get("adapter"):
                self.unchecked.append(f"the adapter of the judge `{value['model']}`: left out")
            backend = self._backend(Use(value["backend"]["use"]))
            used = plugin.unbind(backend)
            return {**inner, "model": name, "revision": None, "adapter": None, "backend": used}
        if isinstance(value, list | tuple):
            return [self._settings(item) for item in value]
        return value

    def _backend(self, use: Use, dialogue: tuple[str, ...] = ()) -> Use:
        if use.name != "transformers":
            self.unchecked.append(f"the backend `{use.name}`: everything ran in `transformers`")
        return plugin.bound_use("backends", {"use": "stand_in", "dialogue": list(dialogue)})

    def _note_layout(self, name: str, layout: str) -> None:
        if layout != "huggingface":
            self.unchecked.append(f"the conversion of `{name}` from the layout `{layout}`")

    def _model(
        self, name: str, revision: str | None, recipe: Recipe | None, place: tuple[str, ...]
    ) -> str:
        """Return the folder of the stand-in of a model; embedded models stand for themselves."""
        if name.startswith("pocket/"):
            return name
        known = self._finder.find(name, revision)
        if known is None or not known.config:
            what = "no config of it is on this machine, nor in the catalogue"
            hint = "rehearse with a model whose config.json is here, or a known one"
            span = recipe.span(*place) if recipe is not None else None
            message = f"nothing can stand in for the model `{name}`: {what}"
            self.mistakes.append(Diagnostic("unknown-model", message, span, hint))
            return name
        folder = self._folder / "models" / name.strip("./~").replace("/", "--")
        if name not in self.models:
            models.write(known, folder, has_template=_talks(name, known))
            self.models[name] = known.kind
        return str(folder)

    def _source(self, place: str, use: Use) -> Use:
        if use.name == "pocket":
            return use
        params = plugin.settings_of("sources", use)
        folder = self._folder / "rows" / place
        self.sources[place] = _described(use)
        columns = params if isinstance(params, RowParams) else RowParams()
        if columns.task == "chat":
            return rows.chats(columns, folder)
        if columns.task == "seeds":
            return rows.seeds(columns.licence, folder)
        return rows.pairs(columns, folder)

    def _questions(self, name: str, spec: Any) -> Use:
        use: Use = spec.source
        if use.name == "pocket":
            return use
        params = plugin.settings_of("sources", use)
        self.sources[f"benchmark {name}"] = _described(use)
        return rows.questions(params, spec, self._folder / "rows" / "benchmarks" / name)


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
    named = use.settings.get("dataset") or use.settings.get("path")
    config = use.settings.get("config")
    return f"{named} ({config})" if config else str(named or use.name)
