"""How many rows go from node to node, and how many tokens they are.

What the store holds is counted. What ran before gives shares. What neither knows is taken from the
recipe or from the published run (arXiv 2411.19930), and said so; what nobody knows stays unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.forecast.datasets import PUBLISHED
from engine.plan.estimate import Figure, Measurement, Past, Stored
from engine.plan.stage import Node

STORED = "counted: in the store"
AT_MOST = "at most "
ASSUMED = "assumed "
PUBLISHED_KEEP_SHARE = 0.3  # of pairs: 150K of 470K, 144K of 510K, 32K of 130K, 15K of 40K
CAPTION_TOKENS, TASK_TOKENS, TURN_TOKENS = 120, 130, 12
WRITTEN_TASK_TOKENS, WRITTEN_ANSWER_TOKENS = 150, 16
_ASSUMED_TEXT = (
    f"assumed: {CAPTION_TOKENS} tokens a caption, {TASK_TOKENS} a task with its two answers"
)
_SLICE = r"\[(\d*):(\d*)\]$"
_PER_SCENE = {"cell_questions": 4, "shape_questions": 3}
Rows = Mapping[str, Figure]  # row set -> how many
CountSource = Callable[[Mapping[str, Any]], Figure | None]


class Known(NamedTuple):
    """What the rows are judged by."""

    recipe: str
    past: Past
    stored: Mapping[str, Stored]
    count_source: CountSource


class Made(NamedTuple):
    """What a node writes: rows by row set, images, and tokens of text in a row."""

    rows: Rows
    images: Figure | None = None
    row_tokens: Figure | None = None
    node: str = ""  # who writes them

    def get(self, name: str) -> Figure | None:
        """Return the rows of a row set as its readers see them: they name the node, not its why."""
        found = self.rows.get(name)
        if found is None:
            return None
        bound = AT_MOST if found.basis.startswith(AT_MOST) else ""
        bound = ASSUMED if ASSUMED in found.basis else bound
        return Figure(found.value, f"{bound}{found.value:,.0f} {name} of `{self.node}`")


NOTHING = Made({})
Inputs = Mapping[str, Made]  # port -> what is read there, of several the first


def made_by(node: Node, inputs: Inputs, known: Known) -> Made:
    """Return what a node will write."""
    rule = _RULES.get(node.stage)
    made = rule(node, inputs, known) if rule is not None else NOTHING
    stored = known.stored.get(node.key)
    if stored is None:
        return Made(made.rows, made.images, made.row_tokens, node.id)
    names = _ROW_SETS.get(node.stage, ())
    counted = {name: Figure(stored.counts[name], STORED) for name in names if name in stored.counts}
    return Made({**made.rows, **counted}, made.images, made.row_tokens, node.id)


_ROW_SETS = {
    "collect": ("rows",),
    "curate": ("pairs", "holdout"),
    "seeds": ("rows", "held_out"),
    "generate": ("tasks",),
    "filter": ("kept", "dropped"),
    "repair": ("tasks",),
    "mix": ("train", "captions", "instructions"),
    "evaluate.answers": ("answers",),
    "evaluate.scores": ("items",),
}


def _collect(node: Node, inputs: Inputs, known: Known) -> Made:
    source = node.params["source"]
    rows = _rows_of_source(source, known)
    if rows is None:
        return NOTHING
    return Made({"rows": rows}, _images_of_source(source, rows))


def _rows_of_source(source: Mapping[str, Any], known: Known) -> Figure | None:
    use = source.get("use")
    if use == "pocket":
        per_scene = _PER_SCENE.get(source["world"], 1)
        times = f" scenes, {per_scene} questions each" if per_scene > 1 else ""
        return Figure(source["num_rows"] * per_scene, f"recipe: num_rows{times}")
    if use == "hub":
        sliced = re.search(_SLICE, source["split"])
        if sliced is not None and sliced[2]:
            split = source["split"]
            return Figure(int(sliced[2]) - int(sliced[1] or 0), f"recipe: split {split}")
        published = _published(source)
        if published is not None:
            return Figure(published[0], "published size of the dataset")
    return known.count_source(source)


def _published(source: Mapping[str, Any]) -> tuple[int, int | None] | None:
    return PUBLISHED.get((source["dataset"], source.get("config") or "", source["split"]))


def _images_of_source(source: Mapping[str, Any], rows: Figure) -> Figure:
    if source.get("use") == "pocket":
        is_text = source["world"].startswith("judge")
        return Figure(0 if is_text else source["num_rows"], "recipe: num_rows")
    published = _published(source) if source.get("use") == "hub" else None
    if published is not None and published[1] is not None:
        return Figure(published[1], "published size of the dataset")
    return Figure(rows.value, f"one a row; {rows.basis}")


def _curate(node: Node, inputs: Inputs, known: Known) -> Made:
    source = inputs.get("pairs", NOTHING)
    rows = source.get("rows")
    if rows is None:
        return NOTHING
    kept, basis = rows.value, rows.basis
    past = known.past.own(node, known.recipe)
    seen = _total(past, "pairs", "holdout", "quarantine")
    if past is not None and seen:
        share = 1 - past.counts.get("quarantine", 0) / seen
        kept, basis = kept * share, f"{share:.0%} of {basis}, as {_run(past)} kept"
    elif node.params["filters"]:
        names = ", ".join(use["use"] for use in node.params["filters"])
        basis = f"{AT_MOST}the {_plain(basis)}, less what {names} drop"
    held_out = min(kept * node.params["holdout_share"], node.params["holdout_max_items"])
    share_basis = "recipe: benchmarks.holdout"
    rows_by_set = {"pairs": Figure(round(kept - held_out), basis)}
    if held_out:
        rows_by_set["holdout"] = Figure(round(held_out), share_basis)
    return Made(rows_by_set, source.images)


def _seeds(node: Node, inputs: Inputs, known: Known) -> Made:
    source = inputs.get("seed_tasks", NOTHING)
    rows = source.get("rows")
    if rows is None:
        return NOTHING
    held_out = round(rows.value * node.params["held_out_share"])
    share = Figure(held_out, "recipe: generator.tune.held_out_share")
    basis = f"{AT_MOST}the {_plain(rows.basis)}, less what is held out"
    left = {"rows": Figure(rows.value - held_out, basis), "held_out": share}
    return Made(left, source.images)


def _generate(node: Node, inputs: Inputs, known: Known) -> Made:
    pairs = inputs.get("pairs", NOTHING).get(node.params["row_set"])
    if pairs is None:
        return NOTHING
    past = known.past.own(node, known.recipe)
    if past is not None and past.counts.get("num_pairs"):
        share = past.counts.get("tasks", 0) / past.counts["num_pairs"]
        basis = f"{share:.0%} of {pairs.basis}, as {_run(past)} wrote"
        return Made({"tasks": Figure(round(pairs.value * share), basis)}, pairs)
    each = node.params["num_tasks"]
    basis = f"{AT_MOST}{'one' if each == 1 else each} for each of {_plain(pairs.basis)}"
    return Made({"tasks": Figure(each * pairs.value, basis)}, pairs)


def _filter(node: Node, inputs: Inputs, known: Known) -> Made:
    tasks = inputs.get("tasks", NOTHING).get("tasks")
    if tasks is None:
        return NOTHING
    past = known.past.own(node, known.recipe)
    seen = _total(past, "kept", "dropped")
    if past is not None and seen:
        share, basis = past.counts.get("kept", 0) / seen, f"as {_run(past)} kept"
    elif any(use["use"] == "consistency" for use in node.params["filters"]):
        share, basis = PUBLISHED_KEEP_SHARE, "assumed from arXiv 2411.19930 D"
    else:
        return Made({"kept": Figure(tasks.value, f"{AT_MOST}the {_plain(tasks.basis)}")})
    told = f"{share:.0%} of {tasks.basis}, {basis}"
    kept = round(tasks.value * share)
    rest = f"{1 - share:.0%} of {tasks.basis}, {basis}"
    dropped = Figure(tasks.value - kept, rest)
    return Made({"kept": Figure(kept, told), "dropped": dropped})


def _repair(node: Node, inputs: Inputs, known: Known) -> Made:
    dropped = inputs.get("tasks", NOTHING).get("dropped")
    if dropped is None:
        return NOTHING
    basis = f"{AT_MOST}the {_plain(dropped.basis)} that a judge labelled"
    return Made({"tasks": Figure(dropped.value, basis)})


def _mix(node: Node, inputs: Inputs, known: Known) -> Made:
    parts = node.params["parts"]
    pairs = inputs.get("pairs", NOTHING).get("pairs")
    tasks = inputs.get("tasks", NOTHING).get("kept")
    replay = inputs.get("replay", NOTHING).get("rows")
    needed = [("captions", pairs, "pairs"), ("synthetic", tasks, "tasks")]
    needed.append(("replay", replay, "replay"))
    if any(parts[part] > 0 and port in node.inputs and n is None for part, n, port in needed):
        return NOTHING  # a part of unknown size
    num_pairs = pairs.value if pairs else 0.0
    num_tasks = tasks.value if tasks else 0.0
    if node.params["tasks_per_pair"] is not None:
        num_tasks = min(num_tasks, num_pairs * node.params["tasks_per_pair"])
    num_with_task = min(num_tasks, num_pairs)
    basis = " + ".join(found.basis for found in (pairs, tasks, replay) if found)
    basis = f"recipe: mix.parts, of {basis}" if basis else "recipe: mix.parts"
    captions, synthetic = num_pairs * parts["captions"], num_tasks * parts["synthetic"]
    repeats = (replay.value if replay else 0.0) * parts["replay"]
    texts = captions * (CAPTION_TOKENS + TURN_TOKENS) + synthetic * (TASK_TOKENS + TURN_TOKENS)
    if node.params["pipeline"] == "two_stage":
        rows = {"captions": captions, "instructions": synthetic + repeats}
    else:
        joined = num_with_task * max(parts["captions"], parts["synthetic"])
        rows = {"train": (num_pairs - num_with_task) * parts["captions"] + joined + repeats}
    total = sum(rows.values())
    texts += repeats * (TASK_TOKENS + TURN_TOKENS)
    per_row = Figure(texts / total, _ASSUMED_TEXT) if total else None
    figures = {name: Figure(round(number), basis) for name, number in rows.items()}
    return Made(figures, Figure(round(total), basis), per_row)


def _answers(node: Node, inputs: Inputs, known: Known) -> Made:
    params = node.params
    items = inputs.get("items", NOTHING)
    found = items.get(params["row_set"])
    if found is None:
        return NOTHING
    number, basis = found.value, found.basis
    tasks = inputs.get("tasks", NOTHING).get("kept")
    if params["row_set"] == "holdout" and tasks is not None:
        number, basis = number + tasks.value, f"{basis} + {tasks.basis}"
    if params["max_items"] is not None and params["max_items"] < number:
        number, basis = params["max_items"], "recipe: benchmarks.max_items"
    return Made({"answers": Figure(number, basis)}, Figure(number, basis))


def _scores(node: Node, inputs: Inputs, known: Known) -> Made:
    answers = inputs.get("base", NOTHING).get("answers")
    return Made({"items": answers}) if answers else NOTHING


def _train(node: Node, inputs: Inputs, known: Known) -> Made:
    """Return the rows that are read in all epochs: what a training writes is a model."""
    row_set = node.params.get("row_set", "rows")
    port = "seed_tasks" if node.stage == "synthesizer" else "rows"
    read = inputs.get(port, NOTHING)
    rows, spec = read.get(row_set), node.params["training"]
    steps, size = spec["max_steps"], spec["global_batch_size"]
    if steps is not None and (rows is None or steps * size < rows.value * spec["num_train_epochs"]):
        return Made({"read": Figure(steps * size, "recipe: max_steps")}, None, read.row_tokens)
    if rows is None:
        return NOTHING
    epochs = spec["num_train_epochs"]
    seen = math.ceil(rows.value * epochs)
    times = f"{epochs:g} x " if epochs != 1 else ""
    text = read.row_tokens
    if node.stage == "synthesizer":
        text = Figure(CAPTION_TOKENS + TASK_TOKENS + 3 * TURN_TOKENS, _ASSUMED_TEXT)
    return Made({"read": Figure(seen, f"{times}{rows.basis}")}, rows, text)


_RULES: dict[str, Callable[[Node, Inputs, Known], Made]] = {
    "collect": _collect,
    "curate": _curate,
    "seeds": _seeds,
    "generate": _generate,
    "filter": _filter,
    "repair": _repair,
    "mix": _mix,
    "train": _train,
    "synthesizer": _train,
    "evaluate.answers": _answers,
    "evaluate.scores": _scores,
}


def _plain(basis: str) -> str:
    return basis.removeprefix(AT_MOST).removeprefix(ASSUMED)


def _total(past: Measurement | None, *names: str) -> float:
    return sum(past.counts.get(name, 0) for name in names) if past is not None else 0.0


def _run(past: Measurement) -> str:
    return f"run {past.run}" if past.run else "an earlier run"
