from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from engine import cli
from engine.catalog import LocalPins
from engine.cli import explain
from engine.diagnostics import RequestError
from engine.forecast import fit
from engine.models._known import finder_of
from engine.pipeline import compile_plan
from engine.recipe.load import load_experiment
from tests.rules.golden import ROOT

CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
EXAMPLE = re.compile(r"\n## (Wrong|Right)\n\n```(yaml|sh)\n(.*?)\n```", re.S)
REST = {
    "recipe": "recipe: 1",
    "name": "name: example",
    "source": "source: {use: pocket, world: cells, num_rows: 8}",
    "base": "base: {model: pocket/base}",
}


def codes_of_the_engine() -> set[str]:
    """Return the constant text that each diagnostic of the engine's source has as its code."""
    found = set()
    for path in (ROOT / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                found |= set(_codes(node))
            elif isinstance(node, ast.FunctionDef):
                found |= _default_codes(node)
    return found


def _codes(call: ast.Call):
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name in ("Diagnostic", "_note"):
        yield from (t for t in texts[:1] if CODE.fullmatch(t))
    elif name == "StageError":
        named = [k.value for k in call.keywords if k.arg == "code"]
        yield from (k.value for k in named if isinstance(k, ast.Constant))
    elif name == "_refused":
        yield from (t for t in (*texts[:1], *texts[-1:]) if CODE.fullmatch(t))


def _default_codes(function: ast.FunctionDef) -> set[str]:
    names = [argument.arg for argument in function.args.args]
    defaults = dict(zip(reversed(names), reversed(function.args.defaults), strict=False))
    found = defaults.get("code")
    return {found.value} if isinstance(found, ast.Constant) else set()


def examples(code: str) -> dict[str, tuple[str, str]]:
    """Return kind and text of the two examples of a page, by their headings."""
    return {title: (kind, text) for title, kind, text in EXAMPLE.findall(explain.page(code))}


def told(text: str, folder: Path) -> set[str]:
    """Return the codes of what is wrong with a recipe, the missing sections filled in."""
    present = set(re.findall(r"^(\w+):", text, flags=re.M))
    rest = [line for key, line in REST.items() if key not in present]
    path = folder / "recipe.yaml"
    path.write_text("\n".join((*rest, text)) if _is_part(text) else text, encoding="utf-8")
    _lay_out(folder)
    try:
        experiment = load_experiment(path)
        fit.check(experiment, finder_of(folder, {"HOME": str(folder)}))
        compile_plan(experiment, LocalPins(folder, lambda file: str(file)))
    except RequestError as error:
        return {item.code for item in error.diagnostics}
    return set()


def _lay_out(folder: Path) -> None:
    """Make the folders that examples name: one without pictures, one with a foreign model."""
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "models" / "gpt2").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')


def _is_part(text: str) -> bool:
    """Tell whether an example shows a part of a recipe; a file of comments is a whole one."""
    return any(line and not line.startswith("#") for line in text.splitlines())


def test_every_code_of_the_engine_has_a_page():
    made_up = {"unknown-config", "unknown-split"}  # of sources/hub.py, from parts
    assert sorted((codes_of_the_engine() | made_up) - set(explain.codes())) == []


@pytest.mark.parametrize("code", explain.codes())
def test_a_page_is_of_the_form_that_readers_know(code: str):
    page = explain.page(code)

    assert page.startswith(f"# {code}\n\n")
    assert list(examples(code)) == ["Wrong", "Right"]
    assert len(explain.summary(code)) > 20


@pytest.mark.parametrize("code", [c for c in explain.codes() if "```yaml" in explain.page(c)])
def test_the_wrong_example_has_the_mistake_and_the_right_one_none(code: str, tmp_path: Path):
    shown = examples(code)

    assert code in told(shown["Wrong"][1], tmp_path)
    assert told(shown["Right"][1], tmp_path) == set()


def test_a_page_is_printed(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["explain", "unknown-key"]) == 0
    assert capsys.readouterr().out.startswith("# unknown-key\n")


def test_the_code_may_be_pasted_as_it_was_printed(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["explain", "error[unknown-key]:"]) == 0


def test_without_a_code_all_are_listed(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["explain"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == explain.codes()


def test_an_unknown_code_has_a_nearest_one(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["explain", "unknown-kye"]) == 1
    assert "did you mean `unknown-key`?" in capsys.readouterr().err
