"""`adapt diff`: what differs between two experiments, by meaning, and what that costs."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from engine.cli import locked, outlays, settings, sides, tables
from engine.cli.scales import Scales
from engine.cli.sides import Compiler, Side
from engine.diagnostics import Diagnostic, ExitCode, RequestError
from engine.forecast import Fleet
from engine.plan import compare
from engine.plan.compare import PlanChanges
from engine.plan.diff import Change
from engine.plan.stage import Node, Plan
from engine.recipe import changes as recipe_changes
from engine.runtime.store import Store

FORMATS = ("text", "markdown", "json", "html")
ABSENT = "(not there)"
SCORES = "evaluate.scores"
MAX_EFFECTS = 40  # changes whose effect is looked up one by one: each is compiled on its own


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "diff",
        help="show what differs between two experiments, and what would run again",
        description="Compares by meaning: comments, key order, spellings of a number and values "
        "that moved into a parent are no difference. A side is a recipe, git:REVISION:PATH, a run, "
        "a saved plan, or the name of a shipped recipe.",
        allow_abbrev=False,
    )
    parser.add_argument("old", metavar="A", help="the old side; alone: a recipe against git HEAD")
    parser.add_argument("new", metavar="B", nargs="?", help="the new side")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the output [text]")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument(
        "--exit-code", action="store_true", help="end with 1 when anything differs in meaning"
    )
    outlays.add_flags(parser)
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Compare two sides and print what differs."""
    store = settings.open_store(args, os.environ)
    names = _names(args)
    with ExitStack() as stack:
        if all(name.endswith(locked.SUFFIX) for name in names):
            found = locked_facts(*names)
        else:
            old, new = (sides.side(name, store, stack) for name in names)
            found = document(old, new, store, outlays.fleet_of(args))
    print(_printed(found, "json" if args.json else args.format))
    differs = any(found[part] for part in ("changes", "outside", "reruns", "removed"))
    return int(ExitCode.REQUEST_WRONG if differs and args.exit_code else ExitCode.DONE)


def document(old: Side, new: Side, store: Store, fleet: Fleet | None = None) -> dict[str, Any]:
    """Return the comparison as JSON (schemas/diff.schema.json)."""
    scales = Scales(store, fleet, new.compiled_with.folder if new.compiled_with else Path())
    nodes = compare.compare(old.plan, new.plan)
    told = _recipe_changes(old, new, scales)
    effects = [change["effect"] for change in told]
    explained = {name for effect in effects for name in effect["runs"]}
    if not all(effect["known"] for effect in effects):  # what they explain is not known either
        explained = {node.id for node in nodes.nodes}
    return {
        "diff": 1,
        "old": {"name": old.name, "kind": old.kind},
        "new": {"name": new.name, "kind": new.kind},
        "recipes_compared": old.raw is not None and new.raw is not None,
        "changes": told,
        "outside": _outside(nodes, explained),
        "keeps_training_rows": _keeps_training_rows(nodes),
        "num_kept": len(nodes.of(compare.UNCHANGED)),
        "reruns": [_rerun(node, store) for node in nodes.reruns],
        "removed": [node.id for node in nodes.of(compare.REMOVED)],
        "neutral": _neutral(old.plan, new.plan),
        "cost": scales.cost(new.plan, nodes),
        "scores": _scores(old.plan, new.plan, store),
    }


def locked_facts(old: str, new: str) -> dict[str, Any]:
    """Return the comparison of two locks, fact by fact, in the form of every other one."""
    before, after = (_facts(name) for name in (old, new))
    facts = [
        {"kind": "locked fact", "path": fact, "old": a, "new": b, "nodes": [], "text": None}
        for fact in sorted(before.keys() | after.keys())
        if (a := before.get(fact, ABSENT)) != (b := after.get(fact, ABSENT))
    ]
    parts = ("changes", "reruns", "removed", "neutral", "scores")
    empty: dict[str, Any] = {part: [] for part in parts}
    cost: dict[str, Any] = {"num_to_run": 0, "num_known": 0, "basis": []}
    return {
        **empty,
        "diff": 1,
        "old": {"name": old, "kind": "lock"},
        "new": {"name": new, "kind": "lock"},
        "recipes_compared": False,
        "outside": facts,
        "keeps_training_rows": False,
        "num_kept": len(before.keys() | after.keys()) - len(facts),
        "cost": {**cost, "wall_h": None, "cost": None},
    }


def _facts(name: str) -> Mapping[str, Any]:
    found = locked.read(Path(name))
    if found is None:
        message = f"there is no lock `{name}`"
        hint = "`adapt lock RECIPE` writes one"
        raise RequestError(Diagnostic("file-not-found", message, hint=hint))
    return found


def _keeps_training_rows(nodes: PlanChanges) -> bool:
    """Tell whether every mix of the new side was there before."""
    mixes = [node for node in nodes.nodes if node.node.stage == "mix"]
    return bool(mixes) and all(node.state == compare.UNCHANGED for node in mixes)


def _names(args: argparse.Namespace) -> tuple[str, str]:
    if args.new is not None:
        return args.old, args.new
    if Path(args.old).suffix in (".yaml", ".yml") and sides.is_in_repository(Path(args.old)):
        return sides.head_of(args.old), args.old
    message = "there is one side only, and it is no recipe that git keeps"
    raise RequestError(Diagnostic("nothing-to-compare", message, hint="adapt diff A B"))


def _printed(found: Mapping[str, Any], form: str) -> str:
    if form == "json":
        return json.dumps(found, indent=1, ensure_ascii=False)
    from engine.rendering import comparison

    printed = comparison.FORMS[form](found)
    return "\n".join(map(tables.visible, printed.split("\n"))) if form == "text" else printed


def _recipe_changes(old: Side, new: Side, scales: Scales) -> list[dict[str, Any]]:
    if old.raw is None or new.raw is None:
        return []
    found = recipe_changes.changes(old.raw, new.raw)
    worlds = [] if len(found) > MAX_EFFECTS else _worlds(old, new)
    return [
        {
            "path": change.path,
            "kind": change.kind,
            "old": change.old,
            "new": change.new,
            "old_place": old.place(change.old_place),
            "new_place": new.place(change.new_place),
            "effect": _effect(recipe_changes.applied(old.raw, change), worlds, scales),
        }
        for change in found
    ]


def _worlds(old: Side, new: Side) -> list[tuple[Compiler, Plan]]:
    """Return the old plan as compiled in the folder of each side: data may be in one alone."""
    assert old.raw is not None
    compilers = [side.compiled_with for side in (old, new) if side.compiled_with is not None]
    plans = [(compiler, _compiled(compiler, old.raw)) for compiler in compilers]
    return [(compiler, plan) for compiler, plan in plans if plan is not None]


def _effect(
    changed: Mapping[str, Any], worlds: list[tuple[Compiler, Plan]], scales: Scales
) -> dict[str, Any]:
    """Return which nodes one change alone would run again, by compiling just that."""
    plans = ((base, _compiled(compiler, changed)) for compiler, base in worlds)
    base, alone = next(((b, a) for b, a in plans if a is not None), (None, None))
    if base is None or alone is None:
        empty: dict[str, Any] = {"runs": [], "adds": [], "drops": [], "num_downstream": 0}
        return {"known": False, **empty, "neutral": False, "takes": None}
    moved = compare.compare(base, alone)
    states = {"runs": compare.OWN, "adds": compare.ADDED, "drops": compare.REMOVED}
    return {
        "known": True,
        **{word: [node.id for node in moved.of(state)] for word, state in states.items()},
        "num_downstream": len(moved.of(compare.UPSTREAM)),
        "neutral": not moved.reruns and not moved.of(compare.REMOVED),
        "takes": scales.difference(base, alone, moved) if moved.reruns else None,
    }


def _compiled(compiler: Compiler, raw: Mapping[str, Any]) -> Plan | None:
    """Compile a recipe; None when it cannot be: a change may be valid only together with others."""
    try:
        return compiler.what_if(raw)
    except RequestError:
        return None


def _outside(nodes: PlanChanges, explained: set[str]) -> list[dict[str, Any]]:
    """Return what moved though no recipe says so: stages, prompts, weights, data, benchmarks."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for node in nodes.of(compare.OWN):
        for change in node.changes:
            if f"{change.path.removesuffix('.version')}.use" in {c.path for c in node.changes}:
                continue  # another plug-in altogether, which the recipe says
            kind = _kind_outside(change, node.id in explained)
            if kind is None:
                continue
            known = found.setdefault(
                (kind, change.path, str(change.new)),
                {
                    "kind": kind,
                    "path": change.path,
                    "old": change.old,
                    "new": change.new,
                    "nodes": [],
                    "text": _prompt_diff(node, change),
                },
            )
            known["nodes"].append(node.id)
    return list(found.values())


def _kind_outside(change: Change, is_explained: bool) -> str | None:
    """Return what kind of thing moved, or None when the recipe says it."""
    head = change.path.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]
    kinds = {"version": "stage version", "prompts": "prompt", "pins": "pin"}
    if head in kinds:
        return None if is_explained and head != "version" else kinds[head]
    if change.path.endswith(".version"):
        return "plug-in version"
    return None if is_explained or head == "seed" else "benchmark or packaged file"


def _prompt_diff(node: compare.NodeChange, change: Change) -> str | None:
    if not change.path.startswith("prompts.") or node.old is None:
        return None
    import difflib

    name = change.path.removeprefix("prompts.")
    old, new = node.old.prompts.get(name, ""), node.node.prompts.get(name, "")
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, lineterm="", n=1)
    return "\n".join(lines)


def _rerun(node: compare.NodeChange, store: Store) -> dict[str, Any]:
    return {
        "id": node.id,
        "state": node.state,
        "changes": [str(change) for change in node.changes],
        "roots": list(node.roots),
        "cached": store.get(node.node.key) is not None,
    }


def _neutral(old: Plan, new: Plan) -> list[dict[str, Any]]:
    found = compare.neutral_changes(old, new)
    return [{"id": name, "changes": [str(c) for c in changes]} for name, changes in found.items()]


def _scores(old: Plan, new: Plan, store: Store) -> list[dict[str, Any]]:
    """Return how the scores differ wherever both sides have been scored."""
    from engine.cli import scored

    before = [node for node in old.nodes if node.stage == SCORES]
    pairs = [(_same_score(node, before), node) for node in new.nodes if node.stage == SCORES]
    return [
        scored.compared(a, b, first, second)
        for a, b in pairs
        if a is not None
        and (first := store.get(a.key)) is not None
        and (second := store.get(b.key)) is not None
    ]


def _same_score(node: Node, before: list[Node]) -> Node | None:
    """Return the old node that scored the same: of its id, or the only one of its benchmark."""
    same = [old for old in before if old.params["benchmark"] == node.params["benchmark"]]
    return next((old for old in same if old.id == node.id), same[0] if len(same) == 1 else None)
