"""The recipe as values: what a user asked for, defaults filled in, references resolved.

Names, bounds, defaults and prose of these fields have one home, `schemas/recipe.schema.json`; the
dataclasses therefore carry no defaults, and a parity test keeps both in step. Spans take no part in
equality: two texts that mean the same give equal recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from engine.diagnostics import Span
from engine.plugin import AdapterUse, Family, ModelUse, Neutral, Use

Path_ = tuple[str | int, ...]  # where a value stands in a recipe: ("filters", "tasks", 0, "judge")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """How a model is trained; Hugging Face names. Rates are per optimizer step."""

    learning_rate: float
    vision_learning_rate: float | None  # None: the same as learning_rate
    num_train_epochs: float
    max_steps: int | None  # None: from epochs; a number ends training earlier
    global_batch_size: int
    per_device_train_batch_size: Annotated[int | None, Neutral()]  # None: as many as fit
    max_length: int  # tokens; longer rows are cut at a turn border or quarantined
    lr_scheduler_type: str
    warmup_ratio: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    max_grad_norm: float
    precision: str  # auto, float32, bfloat16
    gradient_checkpointing: Annotated[bool, Neutral()]
    save_steps: Annotated[int, Neutral()]  # optimizer steps between checkpoints
    logging_steps: Annotated[int, Neutral()]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """Low-rank adapters (Hu et al. 2021); used when `base.method` is lora."""

    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSpec:
    """The vision tower that an original LLaVA checkpoint sees with."""

    model: str
    revision: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSpec:
    """The MLLM to adapt, and which of its parts learn."""

    model: str
    revision: str | None
    trust_remote_code: bool
    layout: str  # huggingface, or llava: written anew by the stage `convert` first
    vision_tower: TowerSpec | None  # of the layout llava alone
    weights: str  # pretrained, or random: start from the config alone
    method: str  # full or lora
    train: tuple[str, ...]  # of vision, projector, language
    lora: LoraSpec
    backend: Annotated[Use, Family("backends")]  # what answers the benchmarks


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSpec:
    """Fine-tunes the synthesizer on seed tasks first (METHOD: seed data, blank images)."""

    seed_tasks: Annotated[Use, Family("sources")]
    exclude_tasks: tuple[str, ...]  # of the seed set, beside those of this recipe's benchmarks
    filters: tuple[Annotated[Use, Family("filters")], ...]  # of seed rows
    held_out_share: float  # of each task's pictures; never trained on, their loss is told
    blank_ratio: float  # share of rows whose image is replaced by a blank one
    train: tuple[str, ...]
    training: TrainSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """The synthesizer that writes tasks from image-caption pairs."""

    model: str
    revision: str | None
    trust_remote_code: bool
    layout: str  # as of the base
    vision_tower: TowerSpec | None
    adapter: AdapterUse | None
    backend: Annotated[Use, Family("backends")]
    prompt: str
    max_new_tokens: int
    temperature: float  # 0: greedy
    top_p: float
    answer_temperature: float | None  # None: answers are drawn together with their question
    num_tasks: int  # most tasks of a pair
    num_samples: int  # most outputs of a pair, until it has its tasks
    task_types: Mapping[str, float]  # type -> weight; empty: the model chooses
    repair_prompt: str | None  # how answers that a judge turned down are written again
    tune: TuneSpec | None

    def use(self) -> ModelUse:
        """Return model and backend as one value."""
        return ModelUse(
            model=self.model,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            adapter=self.adapter,
            backend=self.backend,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FiltersSpec:
    """Filters of pairs (before generation) and of tasks (after it), applied in order."""

    pairs: tuple[Annotated[Use, Family("filters")], ...]
    tasks: tuple[Annotated[Use, Family("filters")], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsSpec:
    """How much of each part enters the mix: 1.0 all of it once, 0.5 half of it, 2.0 twice."""

    synthetic: float
    captions: float
    replay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MixSpec:
    """The training rows: which parts, joined how, in which order."""

    pipeline: str  # single_stage or two_stage
    parts: PartsSpec
    order: str  # random or sequential
    answers: str  # combined (informative then precise), informative, precise
    joining: str  # template, or markers: as the paper's code glues the two answers
    tasks_per_pair: int | None  # at most so many of one pair, the surest; None: all
    paper_code_compat: bool  # as the paper's code: a pair without a task loses its caption too
    caption_prompt: str
    combine_prompt: str
    replay: Annotated[Use, Family("sources")] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutSpec:
    """The held-out share of the pairs, used by the benchmark `holdout`."""

    share: float
    max_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSpec:
    """One benchmark file (`recipes/benchmarks/<name>.yaml`)."""

    name: str
    description: str
    source: Annotated[Use, Family("sources")]
    prompt: str  # template that makes the user turn of a question
    metric: str  # metric for all questions, unless metric_by_type names theirs
    metric_by_type: Mapping[str, str]  # answer_type of a question -> metric
    options: str  # question: its own; answers: every answer of the benchmark is a class
    expected_items: Mapping[str, int] | None  # `total` or an answer type -> number of items
    max_new_tokens: int
    licence: str
    paper: str
    seed_tasks: tuple[str, ...]  # what it is called in seed sets that hold it


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarksSpec:
    """What both models are scored on; `holdout` names the held-out share of the pairs."""

    domain: tuple[str, ...]
    general: tuple[str, ...]
    scorer: str
    prompt: str | None  # asks every benchmark in these words; None: in its own
    max_items: int | None  # a smoke run on the first items of each; never a result
    holdout: HoldoutSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One experiment. `spans` maps where a value stands to its place in the text."""

    name: str
    description: str
    seed: int
    source: Annotated[Use, Family("sources")] | None
    generator: GeneratorSpec | None
    filters: FiltersSpec
    mix: MixSpec
    base: BaseSpec
    training: TrainSpec
    benchmarks: BenchmarksSpec
    benchmark_specs: Mapping[str, BenchmarkSpec]  # every named benchmark but holdout
    folder: str = field(compare=False)  # relative paths in the recipe start here
    spans: Mapping[Path_, Span] = field(compare=False, repr=False)

    def span(self, *path: str | int) -> Span | None:
        """Return the place of a value, or of the nearest section around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.spans:
                return self.spans[path[:length]]
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A loaded recipe with its matrix arms; without a matrix there is one arm, `main`."""

    recipe: Recipe
    arms: Mapping[str, Recipe]
    raw: Mapping[str, Any]  # the resolved recipe as plain JSON, for `show`
