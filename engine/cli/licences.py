"""Licences whose terms limit what may be done with what a recipe makes of the data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from engine import package_data
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic

# Share-alike terms and the GPL let derived data be shared, so they are not among these.
_LIMITS = (
    ("no commercial use", re.compile(r"\bnc\b|non-?\s?commercial", re.I)),
    ("no derivatives", re.compile(r"\bnd\b|no-?\s?deriv", re.I)),
    ("research alone", re.compile(r"\bresearch\b|\bacademic\b|\beducational\b", re.I)),
    ("by agreement", re.compile(r"\bon request\b|\bagreement\b|\b(by|access) form\b", re.I)),
)
_WRITTEN = re.compile(r"^licence:\s*(.+?)\s*(?:\s#.*)?$", re.M)
_HEAD = "collect/"


def limits(text: str) -> list[str]:
    """Return what a licence forbids or restricts, as far as its name says."""
    return [words for words, pattern in _LIMITS if pattern.search(text)]


def warning(planned: Planned) -> Diagnostic | None:
    """Return one sentence that names every licence with such terms; None without any."""
    found = {
        name: f"{licence} ({', '.join(limits(licence))})"
        for name, licence in _licences(planned)
        if limits(licence)
    }
    if not found:
        return None
    named = "; ".join(f"`{name}`: {terms}" for name, terms in found.items())
    message = f"licences that limit the sharing of what is made of the data: {named}"
    return Diagnostic("licence-terms", message, hint="read them before you publish data or weights")


def _licences(planned: Planned) -> Iterator[tuple[str, str]]:
    for node in planned.plan.nodes:
        if node.stage != "collect":
            continue
        name = node.id.partition("@")[0].removeprefix(_HEAD)
        name = "source" if name == "collect" else name
        told = node.params["source"].get("licence") or _of_benchmark(name, planned.folder)
        if told:
            yield name, str(told)


def _of_benchmark(name: str, recipe_folder: Path) -> str | None:
    """Return the licence in a benchmark's file; a plan, which is often compiled, has it not."""
    for folder in (recipe_folder, package_data.folder("recipes")):
        path = folder / "benchmarks" / f"{name}.yaml"
        if path.is_file():
            found = _WRITTEN.search(path.read_text(encoding="utf-8", errors="replace"))
            return found.group(1).strip("'\"") if found else None
    return None
