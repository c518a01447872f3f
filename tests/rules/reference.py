"""Writes schemas/README.md, the reference of everything that may stand in a recipe.

`python -m tests.rules.reference` rewrites it after a change of a schema or a plug-in.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import plugin
from engine.cli.scaffold import _blocks, scalar
from engine.recipe import describe, params, schema
from engine.recipe.bundle import DESCRIBED_FAMILIES
from engine.recipe.describe import Key
from engine.recipe.source import read
from engine.sources._columns import NAMES, NEEDED

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "schemas" / "README.md"
RECIPES = sorted((ROOT / "recipes").glob("**/*.yaml"))
# Where each section is shown at work.
SHOWN = {
    "source": "biomed",
    "generator": "quickstart",
    "filters": "biomed",
    "mix": "stamps",
    "base": "base/qwen2_vl_2b",
    "training": "base/qwen2_vl_2b",
    "benchmarks": "stamps",
    "matrix": "pocket_ablation",
}
# Plug-ins that no shipped recipe uses.
EXAMPLES = {
    "sources/first": {"source": {"use": "image_folder", "path": "./pictures"}, "num_rows": 16},
    "backends/stand_in": {},
    "sources/csv_file": {"path": "pairs.csv", "columns": {"caption": "text"}},
    "sources/image_folder": {"path": "pictures", "licence": "CC-BY-4.0"},
    "sources/json_file": {"path": "llava.json", "image_root": "images"},
    "sources/parquet": {"path": "pairs.parquet", "columns": {"caption": "sentence"}},
    "sources/webdataset": {"path": "shards"},
    "filters/repetition": {"max_ratio": 0.15},
    "backends/openai": {"max_concurrency": 64, "max_cost": 20.0, "price_in": 0.4, "price_out": 1.6},
    "filters/answer_in_question": {},
    "filters/task_length": {"max_instruction_words": 60},
    "filters/refusal": {},
    "filters/duplicate_instruction": {"scope": "pair", "max_similarity": 0.8},
    "filters/language": {"languages": ["en"]},
    "filters/grounded": {"judge": {"model": "meta-llama/Meta-Llama-3-8B"}, "unsure": "keep"},
    "filters/votes": {
        "judges": [
            {"judge": {"model": "meta-llama/Meta-Llama-3-8B"}},
            {"judge": {"model": "Qwen/Qwen2.5-VL-7B-Instruct"}, "as_chat": True},
        ],
        "min_agreement": 0.5,
    },
    "filters/needs_image": {
        "model": {"model": "meta-llama/Meta-Llama-3-8B-Instruct"},
        "action": "weigh",
    },
    "filters/difficulty": {"model": {"model": "Qwen/Qwen2-VL-2B-Instruct"}, "max_right": 0.75},
}
FAMILIES = {
    "sources": "Where rows come from: pairs of a domain, seed tasks, replay, benchmark questions.\n"
    "`use` names one; the other keys are its settings.",
    "filters": "What is dropped, in the order of the list; every drop is counted with its reason.",
    "backends": "What runs a model: the synthesizer, the judge, the models that are scored.",
}
INTRO = """\
# Reference

Everything that may stand in a recipe, and in the files that `adapt` writes for machines. How to
write a recipe, step by step, is in [recipes/README.md](../recipes/README.md).

`adapt schema training.learning_rate` prints any entry of this page in a terminal, and
`adapt schema --list` their names. Your editor shows the same while you type: `adapt init` writes
the schema beside the recipe and names it on the first line. This page is made from the schemas and
the plug-ins by `make golden`.
"""
ROWS = """\
A source that reads tables makes rows for a `task`. `columns` maps our name of a column to the data
set's, as in `columns: {caption: text}`; a name that is not mapped stands for itself.

| task | columns that must be there | columns that may be there |
| --- | --- | --- |
"""


def page() -> str:
    """Return the reference as Markdown."""
    body = list(_body())
    return "\n".join([INTRO, *_contents(body), *body]).rstrip() + "\n"


def examples() -> dict[str, dict[str, Any]]:
    """Return one use of each plug-in, from a shipped recipe where one has it."""
    found: dict[str, dict[str, Any]] = {}
    for path in RECIPES:
        for family, use in _uses(read(path.read_text("utf-8"), path.name).plain()):
            found.setdefault(f"{family}/{use['use']}", use)
    own = {name: {"use": name.partition("/")[2], **settings} for name, settings in EXAMPLES.items()}
    return own | found


def _uses(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, Mapping):
        for family in DESCRIBED_FAMILIES:
            if value.get("use") in plugin.names(family):
                yield family, dict(value)
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list):
        for item in inner:
            yield from _uses(item)


def _contents(body: list[str]) -> Iterator[str]:
    for line in body:
        level, _, title = line.partition(" ")
        if level in ("##", "###"):
            yield f"{'  ' * (len(level) - 2)}- [{title.strip()}](#{anchor(title)})"
    yield ""


def anchor(title: str) -> str:
    """Return the anchor that a heading gets on a rendered page."""
    return re.sub(r"[^a-z0-9 _-]", "", title.strip().lower()).replace(" ", "-")


def _body() -> Iterator[str]:
    yield from _recipe()
    for family in DESCRIBED_FAMILIES:
        yield from _family(family)
    yield from _file("benchmark", "## Benchmark files")
    yield f"```yaml\n{(ROOT / 'recipes/benchmarks/slake.yaml').read_text('utf-8').strip()}\n```\n"
    yield "## Files for machines\n"
    yield "What `adapt` writes and other programs read; `adapt schema NAME` prints all of it.\n"
    others = {path.name.partition(".")[0] for path in (ROOT / "schemas").glob("*.json")}
    for name in sorted(others - {"recipe", "benchmark", "bundle"}):
        yield from _file(name, f"### {name}")


def _recipe() -> Iterator[str]:
    root = schema.load("recipe")
    yield "## Recipe\n"
    yield f"{root['description']}\n"
    yield from _table(describe.keys_of(root, root))
    for name, item in root["properties"].items():
        part = schema.resolved(item, root)
        if name in SHOWN:
            yield f"### {name}\n"
            yield f"{part['description']}\n"
            yield from _table(describe.keys_of(item, root)) if "x-family" not in part else ()
            places = list(describe.sections_of(item, root, (name,)))
            for place in places if name != "matrix" else ():
                if len(place) > 1 and place[-1] in SHOWN:
                    continue  # a section of its own: generator.tune.training
                inner = describe.part_at(place, root)
                yield f"#### {'.'.join(place)}\n"
                yield f"{schema.resolved(inner, root)['description']}\n"
                yield from _table(describe.keys_of(inner, root))
            yield from _at_work(name)


def _at_work(name: str) -> Iterator[str]:
    path = ROOT / "recipes" / f"{SHOWN[name]}.yaml"
    yield f"From `recipes/{SHOWN[name]}.yaml`:\n"
    yield f"```yaml\n{_blocks(path.read_text('utf-8'))[name].strip()}\n```\n"


def _family(family: str) -> Iterator[str]:
    yield f"## {_title(family)}\n"
    yield f"{FAMILIES[family]}\n"
    yield from _tasks() if family == "sources" else ()
    known = examples()
    for name in plugin.names(family):
        module = importlib.import_module(f"engine.{family}.{name}")
        part = params.fragment(family, name)
        yield f"### {name}\n"
        yield f"{_paragraphs(module.__doc__ or '')}\n"
        yield from _table(describe.keys_of(part, part))
        yield from _nested(part)
        yield f"```yaml\n{scalar(known[f'{family}/{name}'])}\n```\n"


def _title(family: str) -> str:
    return f"{family.removesuffix('s').capitalize()} plug-ins"


def _tasks() -> Iterator[str]:
    """Yield what the rows of each task have, as the sources themselves check it."""
    yield ROWS.rstrip()
    for task, needed in NEEDED.items():
        must = [" or ".join(f"`{name}`" for name in choices) for choices in needed]
        named = {name for choices in needed for name in choices}
        may = [f"`{name}`" for name in NAMES[task] if name not in named]
        yield f"| `{task}` | {', '.join(must)} | {', '.join(may)} |"
    yield ""


def _nested(part: Any) -> Iterator[str]:
    for place in describe.sections_of(part, part):
        inner = describe.part_at(place, part)
        yield f"`{'.'.join(place)}` has these keys:\n"
        yield from _table(describe.keys_of(inner, part))


def _file(name: str, heading: str) -> Iterator[str]:
    root = schema.load(name)
    yield f"{heading}\n"
    yield f"{root['description']}\n"
    yield from _table(describe.keys_of(root, root))


def _table(keys: list[Key]) -> Iterator[str]:
    if not keys:
        return
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for key in keys:
        default = "required" if key.is_required else _default(key)
        cells = (f"`{key.name}`", _typed(key), default, key.about)
        yield (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )
    yield ""


def _default(key: Key) -> str:
    """Return the default; an empty mapping says no more than the keys that fill it."""
    return f"`{key.default}`" if key.default not in ("", "{}", '""') else ""


def _typed(key: Key) -> str:
    """Return the type; sections and plug-ins are links to where they are explained."""
    if key.family in FAMILIES:
        word = key.family.removesuffix("s")
        return re.sub(
            rf"\b{word}(s?)\b", rf"[{word}\1](#{anchor(_title(key.family))})", key.typed, count=1
        )
    if key.name in SHOWN and key.kind.startswith("mapping"):
        return f"[{key.typed}](#{key.name})"
    return key.typed


def _paragraphs(text: str) -> str:
    """Return a docstring's paragraphs, each on one line: Markdown wraps them as it likes."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(block.split()) for block in blocks)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
