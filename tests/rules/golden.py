"""The reviewed facts that rules compare with; `python -m tests.rules.golden` rewrites them."""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import cli, package_data
from engine.catalog import LocalPins
from engine.diagnostics import RequestError
from engine.pipeline import compile_plan
from engine.plan import keys
from engine.recipe.load import load_experiment
from engine.stages import STAGES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLANS = HERE / "golden_plans.json"
STAGE_CODE = HERE / "golden_stage_code.json"
PROMPTS = HERE / "golden_prompts.json"
SURFACE = HERE / "golden_surface.json"


def recipe_paths() -> list[Path]:
    """Return every recipe that can be compiled anywhere.

    Neither parents nor benchmarks, and not `stamps`, whose pictures `make stamps` fetches.
    """
    folder = package_data.folder("recipes")
    found = {*folder.glob("*.yaml"), *folder.glob("pocket/*.yaml")}
    return sorted(found - {folder / "stamps.yaml"})


def plans() -> dict[str, Any]:
    """Return each recipe's nodes and what they read; a source that is not here gives its error."""
    return {str(p.relative_to(package_data.folder("recipes"))): _plan(p) for p in recipe_paths()}


def stage_code() -> dict[str, Any]:
    """Return each stage's version and a fingerprint of its code without comments and docstrings."""
    files = {stage.name: stage.name.split(".")[0] for stage in STAGES}
    return {
        stage.name: {"version": stage.version, "code": _code_of(_stage_file(files[stage.name]))}
        for stage in STAGES
    }


def surface() -> dict[str, list[str]]:
    """Return what each verb of the command takes: its arguments, then its options."""
    return {verb: list(_arguments(verb)) for verb in cli.VERBS}


def _arguments(verb: str) -> Iterator[str]:
    module = importlib.import_module(f"engine.cli.{verb}")
    subparsers = argparse.ArgumentParser().add_subparsers()
    module.add_parser(subparsers)
    yield from _taken(subparsers.choices[verb])


def _taken(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, nested in action.choices.items():
                yield from _taken(nested, f"{name} ")
            continue
        name = " ".join(action.option_strings) or str(action.metavar or action.dest)
        choices = f" {{{','.join(map(str, action.choices))}}}" if action.choices else ""
        if name != "-h --help":
            yield prefix + name + choices + (" ..." if action.nargs in ("*", "+", "?") else "")


def prompts() -> dict[str, str]:
    """Return the digest of every prompt template."""
    folder = package_data.folder("prompt_templates")
    return {
        f"{p.parent.name}@{p.stem.removeprefix('v')}": keys.text_digest(p.read_text("utf-8"))
        for p in sorted(folder.rglob("*.j2"))
    }


def _code_of(stage_file: Path) -> str:
    """Return one fingerprint of a stage's file and of the private halves that it imports."""
    seen, to_read = set(), {stage_file}
    while to_read - seen:
        path = (to_read - seen).pop()
        seen.add(path)
        to_read |= {p for p in stage_file.parent.glob("_*.py") if _names(path, p.stem)}
    prints = [fingerprint(path) for path in sorted(seen)]
    return hashlib.sha256("".join(prints).encode()).hexdigest()[:16]


def _names(path: Path, module: str) -> bool:
    """Tell whether a file imports a private half of the stages."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return any(
        node.module == f"engine.stages.{module}"
        or (node.module == "engine.stages" and module in {alias.name for alias in node.names})
        for node in nodes
    )


def fingerprint(path: Path) -> str:
    """Return a digest of a module's syntax tree without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _stage_file(name: str) -> Path:
    return ROOT / "engine" / "stages" / f"{name}.py"


def _plan(path: Path) -> Any:
    try:
        experiment = load_experiment(path)
        plan = compile_plan(experiment, LocalPins(path.parent, _file_digest))
    except RequestError as error:
        return {"error": [d.code for d in error.diagnostics]}
    return {
        node.id: {"stage": node.stage, "arms": list(node.arms), "inputs": dict(node.inputs)}
        for node in plan.nodes
        if node.id != "report"
    }


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write() -> None:
    """Rewrite every golden file."""
    facts = {PLANS: plans(), STAGE_CODE: stage_code(), PROMPTS: prompts(), SURFACE: surface()}
    for path, value in facts.items():
        path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
