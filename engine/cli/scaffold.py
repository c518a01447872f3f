"""Writes the recipe that `adapt init --data` proposes: a known recipe with sections for the data.

Sections that the data says nothing about stay as the chosen recipe has them. Every number that was
derived stands beside its reason, and what only a person can know stands in a line with DECIDE.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import proposals

if TYPE_CHECKING:
    from engine.cli.survey import Survey
    from engine.sources._look import Look

_PLAIN = re.compile(r"[A-Za-z_./][\w./@-]*")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for, beside the data."""

    name: str
    recipe_folder: Path
    command: str  # as typed, for the first line
    benchmark: str = "holdout"
    base_model: str | None = None


def scaffold(template: str, found: Look, facts: Survey, wishes: Wishes) -> str:
    """Return the text of a recipe for the data that was found."""
    blocks = _blocks(template)
    plain = _plain(template)
    written = {
        "recipe": "recipe: 1\n",
        "name": f"name: {scalar(wishes.name)}\n",
        "description": _description(plain, wishes),
        "source": _source(found, facts, wishes),
        "filters": _filters(blocks.get("filters", ""), plain, facts),
        "mix": _mix(blocks.get("mix", "mix: {}\n"), plain),
        "base": _base(blocks.get("base", ""), plain, wishes),
        "benchmarks": _benchmarks(plain, found, facts, wishes),
    }
    order = list(dict.fromkeys([*_ORDER, *blocks]))
    parts = [written.get(key, blocks.get(key, "")).strip("\n") for key in order]
    first = _ORDER.index("source")  # what stands before it needs no blank lines between
    sections = ["\n".join(filter(None, parts[:first])), *filter(None, parts[first:])]
    return _header(facts, found, wishes) + "\n\n".join(sections) + "\n"


_ORDER = (
    *("recipe", "name", "description", "extends", "seed"),
    *("source", "generator", "filters", "mix", "base", "training", "benchmarks"),
)


def scalar(value: Any) -> str:
    """Return a value as YAML on one line; texts are quoted where YAML would misread them."""
    from engine.recipe.source import read

    if isinstance(value, str) and _PLAIN.fullmatch(value) and read(value, "").value == value:
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(k)}: {scalar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(scalar, value)) + "]"
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())


def _comment(text: str) -> str:
    """Return a comment line; what the data holds may not be printable, or end the line."""
    return "# " + "".join(char if char.isprintable() else " " for char in text)


def _blocks(text: str) -> dict[str, str]:
    """Return the lines of each section of a recipe, the comments right above it included."""
    from engine.recipe.source import read

    lines = text.splitlines(keepends=True)
    starts: dict[str, int] = {}
    for key, entry in read(text, "").entries().items():
        start = entry.key.line - 1
        while start > 0 and lines[start - 1].startswith("#"):
            start -= 1
        # The comments at the top describe the recipe that was copied, not its first key.
        starts[key] = start if starts else entry.key.line - 1
    ends = [*list(starts.values())[1:], len(lines)]
    return {
        key: "".join(lines[at:end]) for (key, at), end in zip(starts.items(), ends, strict=True)
    }


def _plain(text: str) -> dict[str, Any]:
    from engine.recipe.source import read

    result: dict[str, Any] = read(text, "").plain()
    return result


def _header(facts: Survey, found: Look, wishes: Wishes) -> str:
    of = f" of {found.num_rows:,}" if found.num_rows is not None else ""
    return (
        _comment(f"Written by `{wishes.command}`") + "\n"
        f"# after a look at {facts.num_sampled:,}{of} rows. Lines with DECIDE are questions\n"
        "# that only you can answer; delete each when it is answered.\n"
    )


def _description(plain: Mapping[str, Any], wishes: Wishes) -> str:
    model = wishes.base_model or (plain.get("base") or {}).get("model", "the base MLLM")
    text = f"Adapt {model} to {wishes.name.replace('_', ' ')}."
    return f"description: {scalar(text)}  # DECIDE: one sentence on what is adapted to what\n"


def _source(found: Look, facts: Survey, wishes: Wishes) -> str:
    from engine.cli.survey import lines

    settings = dict(found.settings)
    for key in ("path", "image_root", "dataset"):
        if key in settings:
            settings[key] = _relative(settings[key], wishes.recipe_folder, is_id=key == "dataset")
    text = ["# What was found:", *(_comment(f"  {line}") for line in lines(found, facts))]
    text += _questions_of(found, facts)
    text += ["source:", f"  use: {found.use}"]
    text += [f"  {key}: {scalar(value)}" for key, value in settings.items()]
    text += [
        "  licence: null  # DECIDE: of pictures and captions, for example CC-BY-4.0; kept per row"
    ]
    return "\n".join(text) + "\n"


def _relative(path: str, folder: Path, *, is_id: bool) -> str:
    """Return a path as the recipe names it; a folder in place of a dataset id begins with `./`."""
    found = Path(os.path.relpath(path, folder)).as_posix()
    return f"./{found}" if is_id and not found.startswith(".") else found


def _questions_of(found: Look, facts: Survey) -> list[str]:
    result = []
    if found.caption_choices:
        names = ", ".join(f"`{name}`" for name in found.caption_choices)
        result.append(_comment(f"DECIDE: which column is the caption? These are texts: {names}."))
    if found.splits:
        others = ", ".join(f"`{name}`" for name in found.splits)
        result.append(f"# DECIDE: the split; there are {others}. Another one can be a benchmark.")
    if found.passed_over:
        result.append("# DECIDE: are the files that were not read part of the data?")
    if facts.share_english < 0.5:
        result.append(
            "# DECIDE: few captions look English, but the packaged prompts and models are."
        )
    return result


def _filters(block: str, plain: Mapping[str, Any], facts: Survey) -> str:
    pairs = (plain.get("filters") or {}).get("pairs") or []
    text = ["filters:", "  pairs:"]
    near = proposals.near_duplicate(facts)
    for proposal in (proposals.image_size(facts), proposals.caption_length(facts), near):
        text += [f"    # {proposal.why}", f"    - {scalar(proposal.settings)}"]
    for item in pairs:
        if item.get("use") == "decontaminate":
            as_near = {**item, "max_distance_bits": near.settings["max_distance_bits"]}
            text += [
                "    # Pictures of the benchmarks; as near as above.",
                f"    - {scalar(as_near)}",
            ]
    tasks = _tasks(block, plain)
    return "\n".join(text) + "\n" + tasks


def _tasks(block: str, plain: Mapping[str, Any]) -> str:
    """Return `filters.tasks` as the template writes it."""
    tasks = (plain.get("filters") or {}).get("tasks")
    if not tasks:
        return ""
    found = re.search(r"^  tasks:\n(?:(?:    .*|\s*)\n)*", block, flags=re.M)
    return found[0].rstrip("\n") + "\n" if found else f"  tasks: {scalar(tasks)}\n"


def _mix(block: str, plain: Mapping[str, Any]) -> str:
    if (plain.get("mix") or {}).get("replay"):
        return block
    question = (
        "# DECIDE: replay. Training on one domain alone costs general skills; general rows keep\n"
        "# them: `parts: {..., replay: 0.2}`, `replay: {use: json_file, path: ..., task: chat}`.\n"
    )
    return question + block.lstrip("\n")


def _base(block: str, plain: Mapping[str, Any], wishes: Wishes) -> str:
    model = (plain.get("base") or {}).get("model")
    if wishes.base_model is not None and wishes.base_model != model:
        settings = {**(plain.get("base") or {}), "model": wishes.base_model}
        return f"base: {scalar(settings)}\n"
    if model is None or not str(model).startswith("pocket/"):
        return block
    question = (
        "# DECIDE: the base MLLM. The pocket base shows in minutes that the recipe works; it is\n"
        "# far too small for a result. For one: `model: Qwen/Qwen2-VL-2B-Instruct` here, with the\n"
        "# published settings of `training`, synthesizer and judge, all of which\n"
        "# `adapt init NAME --from biomed --data PATH` writes.\n"
    )
    return question + block.lstrip("\n")


def _benchmarks(plain: Mapping[str, Any], found: Look, facts: Survey, wishes: Wishes) -> str:
    given = plain.get("benchmarks") or {}
    general, scorer = given.get("general", []), given.get("scorer", "strict")
    text = ["benchmarks:"]
    if wishes.benchmark != "holdout":
        text += [f"  domain: [{scalar(wishes.benchmark)}]"]
    else:
        share, max_items, why = proposals.holdout(found.num_rows, facts)
        text = [f"# DECIDE: the held-out share. {why}", *text, "  domain: [holdout]"]
    text += [f"  general: {scalar(general)}  # what adaptation costs in general skills"]
    text += [f"  scorer: {scalar(scorer)}"]
    if wishes.benchmark == "holdout":
        text += [f"  holdout: {{share: {share}, max_items: {max_items}}}"]
    return "\n".join(text) + "\n"
