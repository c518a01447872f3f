"""What a lock holds: facts that a result depends on and that a recipe does not say itself.

A fact is a name and a text, such as `model a/b revision` and a commit. This file is pure: it reads
plans and recipes as values, and never a disk, a hub or the environment.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.plan import keys
from engine.plan.stage import Plan

Facts = Mapping[str, str | None]
FORMAT = 1
KINDS = ("model", "dataset")
_LOCAL = {"model": ("pocket/", ".", "/", "~"), "dataset": (".", "/", "~")}
_REPORT = "report"  # its params repeat the recipe as text


@dataclass(frozen=True, slots=True)
class Reference:
    """A model or dataset of a hub, as a recipe or a node names it."""

    kind: str  # model or dataset
    name: str
    revision: str | None

    @property
    def subject(self) -> str:
        """Return how facts name it: with the revision that was asked for, if there was one."""
        asked = "" if self.revision is None or self.is_exact else f"@{self.revision}"
        return f"{self.kind} {self.name}{asked}"

    @property
    def is_exact(self) -> bool:
        """Tell whether a commit was asked for, not a branch or a tag, which may move."""
        return is_commit(self.revision)

    @property
    def fact(self) -> str:
        """Return the name of the fact that holds its commit."""
        return f"{self.subject} revision"


@dataclass(frozen=True, slots=True)
class Drift:
    """A fact that is not what the lock says; None where there is no such fact, or no value."""

    fact: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"{self.fact}: {_shown(self.old)} -> {_shown(self.new)}"


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision is a full commit, which never moves."""
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def of_plan(plan: Plan) -> dict[str, str | None]:
    """Return the facts that a plan says: stages, plug-ins, prompts, local models and sources."""
    found: dict[str, str | None] = {}
    for node in plan.nodes:
        found[f"stage {node.stage}"] = str(node.preimage["version"])
        found |= {f"prompt {name}": keys.text_digest(text) for name, text in node.prompts.items()}
        found |= dict(_of_pins(node.id, node.preimage["pins"]))
        if node.stage != _REPORT:
            for use in mappings_in(node.params):
                found |= dict(_of_plugin(use))
    return found


def references(plan: Plan) -> dict[Reference, str]:
    """Return what a plan takes from a hub, each with the first node that does."""
    found: dict[Reference, str] = {}
    for node in plan.nodes:
        for value in mappings_in(node.params) if node.stage != _REPORT else ():
            for reference in references_in(value):
                found.setdefault(reference, node.id)
    return found


def uses(plan: Plan, name: str) -> bool:
    """Tell whether a plan chooses a plug-in of that name."""
    return any(f"plug-in {name}" == fact for fact in of_plan(plan))


def asked(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Reference, Any]]:
    """Yield what a recipe takes from a hub, with the path of its name; equal ones again."""
    fields = _fields(value)
    inner = path[:-1] if path[-1:] == ("settings",) else path  # a plug-in's settings lie flat
    for reference in references_in(fields):
        yield reference, (*inner, reference.kind)
    for name, item in fields.items():
        yield from asked(item, (*inner, name))
    for number, item in enumerate(value if isinstance(value, list | tuple) else ()):
        yield from asked(item, (*path, number))


def pinned(value: Any, facts: Facts) -> Any:
    """Return a recipe with the locked commit for every revision that it leaves open.

    A branch or a tag that was asked for and locked becomes its commit as well. What is shared by
    matrix arms stays shared, so that their nodes are still known by identity.
    """
    known: dict[int, tuple[Any, Any]] = {}

    def pin(item: Any) -> Any:
        if isinstance(item, str | int | float | None):
            return item
        if id(item) not in known:
            known[id(item)] = (item, _pinned(item, facts, pin))
        return known[id(item)][1]

    return pin(value)


def drifts(locked: Facts, now: Facts, used: Mapping[Reference, Any]) -> list[Drift]:
    """Return every fact that moved; what a hub says is compared for what the plan takes from it."""
    own = {fact: value for fact, value in locked.items() if not _is_of_hub(fact)}
    found = [
        Drift(fact, own.get(fact), now.get(fact))
        for fact in sorted(own.keys() | now.keys())
        if own.get(fact) != now.get(fact) or (fact in own) != (fact in now)
    ]
    for reference in used:
        held = commits(locked, reference.kind, reference.name)
        if held and reference.revision not in (None, *held.values()):
            fact, commit = next(iter(held.items()))
            found.append(Drift(fact, commit, reference.revision))
    names = {f"{reference.kind} {reference.name}" for reference in used}
    for fact, old in locked.items():
        if is_commit_of_hub(fact) and _bare(fact) not in names:
            found.append(Drift(fact, old, None))
    return sorted(found, key=str)


def missing(locked: Facts, used: Mapping[Reference, Any]) -> list[Reference]:
    """Return what a plan takes from a hub at no locked commit."""
    return sorted(
        (
            reference
            for reference in used
            if reference.revision is None or not commits(locked, reference.kind, reference.name)
        ),
        key=lambda reference: reference.subject,
    )


def commits(locked: Facts, kind: str, name: str) -> dict[str, str]:
    """Return the facts that hold a commit of one model or dataset."""
    return {
        fact: value
        for fact, value in locked.items()
        if is_commit_of_hub(fact) and _bare(fact) == f"{kind} {name}" and value is not None
    }


def names(locked: Facts, kind: str) -> list[str]:
    """Return the models or datasets of a hub that a lock knows."""
    heads = (_bare(fact).split(" ") for fact in locked if is_commit_of_hub(fact))
    return [name for found, name in heads if found == kind]


def model_files(locked: Facts) -> Iterator[tuple[str, str, str, str]]:
    """Yield each fact of a file of a hub model: the fact, the model, its commit, the file."""
    for fact in locked:
        head, is_file, file = fact.partition(" file ")
        commit = locked.get(f"{head} revision")
        if is_file and commit is not None and head.startswith("model "):
            yield fact, _bare(fact).removeprefix("model "), commit, file


def is_commit_of_hub(fact: str) -> bool:
    """Tell whether a fact holds the commit of a model or dataset."""
    return fact.startswith(KINDS) and fact.endswith(" revision")


def _is_of_hub(fact: str) -> bool:
    """Tell whether only a hub knows a fact."""
    return is_commit_of_hub(fact) or (fact.startswith(KINDS) and " file " in fact)


def _bare(fact: str) -> str:
    """Return kind and name that a fact is about, without the revision that was asked for."""
    kind, subject = fact.split(" ")[:2]
    return f"{kind} {subject.partition('@')[0]}"


def _shown(value: str | None) -> str:
    return "none" if value is None else value


def _of_pins(node: str, pins: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, pin in pins.items():
        if name == "source" and pin is not None and "hub" not in pin:
            yield f"source {node}", keys.digest(pin)
        elif isinstance(pin, str):
            yield f"model {name} digest", pin


def _of_plugin(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("use", "scorer"):
        version = value.get("version" if name == "use" else f"{name}_version")
        if isinstance(value.get(name), str) and version is not None:
            yield f"plug-in {value[name]}", str(version)


def references_in(fields: Mapping[str, Any]) -> Iterator[Reference]:
    """Yield what a mapping names directly: `model` or `dataset` next to a `revision`."""
    for kind in KINDS:
        name = fields.get(kind)
        if isinstance(name, str) and "revision" in fields and not name.startswith(_LOCAL[kind]):
            yield Reference(kind, name, fields["revision"])


def _pinned(value: Any, facts: Facts, pin: Callable[[Any], Any]) -> Any:
    """Return a value with its own revision and those inside of it pinned."""
    if isinstance(value, list | tuple):
        items = [pin(item) for item in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else type(value)(items)
    before = _fields(value)
    after = {name: pin(item) for name, item in before.items()}
    for reference in references_in(before):
        if not reference.is_exact:
            after["revision"] = facts.get(reference.fact) or reference.revision
    changed = {name: item for name, item in after.items() if item is not before[name]}
    if not changed:
        return value
    if isinstance(value, Mapping):
        return {**value, **changed}
    return dataclasses.replace(value, **changed)


def _fields(value: Any) -> Mapping[str, Any]:
    """Return what a mapping or dataclass holds; not spans, which take no part in equality."""
    if isinstance(value, Mapping):
        return value
    if not dataclasses.is_dataclass(value):
        return {}
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.compare}


def mappings_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping inside a JSON value."""
    if isinstance(value, Mapping):
        yield value
        value = tuple(value.values())
    for item in value if isinstance(value, list | tuple) else ():
        yield from mappings_in(item)
