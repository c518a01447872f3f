"""One tree out of several texts: a parent, overrides, references.

Merging works on trees and not in OmegaConf, so that every value keeps the place it came from;
OmegaConf resolves `${a.b}` references and is imported only when there is one (it takes 90 ms).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine import package_data
from engine.diagnostics import Diagnostic, Note, RequestError, Span, nearest
from engine.recipe.source import Entry, Node, Place, read, read_file
from engine.recipe.subject import dotted, shortened

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_DOTTED = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*")
_REFERENCE = re.compile(r"\$\{[\w.\[\]-]+\}")


@dataclass(frozen=True, slots=True)
class Family:
    """A recipe merged over its parents, and where each parent was asked for."""

    tree: Node
    links: Mapping[str, Span]  # file of a parent -> the `extends` of its child

    def told(self, item: Diagnostic) -> Diagnostic:
        """Return a diagnostic that says how the file it points into came in."""
        return with_links(item, self.links)


def with_links(item: Diagnostic, links: Mapping[str, Span]) -> Diagnostic:
    """Add, to a mistake of a parent, the line that extends it, and so on up to the recipe."""
    notes = list(item.notes)
    file = item.span.file if item.span else None
    while file is not None and file in links:
        link = links[file]
        notes.append(Note(f"extends `{file}`", link))
        file = link.file
    return replace(item, notes=tuple(notes))


def read_with_parents(path: Path, shown_as: str, text: str | None = None) -> Family:
    """Read a recipe and merge it over its chain of parents. Raise RequestError."""
    chain: list[Path] = []
    links: dict[str, Span] = {}
    tree: Node | None = None
    try:
        while True:
            chain.append(path.resolve())
            node = read_file(path, shown_as) if text is None else read(text, shown_as)
            text = None  # a parent is always a file
            tree = node if tree is None else merged(node, tree)
            link = node.entries().get("extends")
            if link is None:
                return Family(_without(tree, "extends"), links)
            path, shown_as = _parent(link.node, path, chain)
            links[shown_as] = link.node.span
    except RequestError as error:
        raise RequestError(*(with_links(item, links) for item in error.diagnostics)) from None


def merged(parent: Node, child: Node) -> Node:
    """Merge mappings key by key; lists, scalars and sections with another `use` replace."""
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict):
        return child
    chosen = child.text("use")
    if chosen is not None and chosen != parent.text("use"):
        return child
    entries = dict(parent.value)
    for name, entry in child.value.items():
        known = entries.get(name)
        entries[name] = Entry(entry.key, merged(known.node, entry.node)) if known else entry
    return Node(entries, child.span)


def overridden(tree: Node, overrides: Sequence[str], mistakes: list[Diagnostic]) -> Node:
    """Apply `a.b=c` overrides of the command line; note the wrong ones and leave them out."""
    for text in overrides:
        path, equals, value = text.partition("=")
        origin = Span(f"--set {path}", 0, 0)
        try:
            if not equals:
                raise _refused(origin, f"`{text}` sets nothing", "write --set section.key=value")
            tree = with_value(tree, path, _placed(_parsed(value, origin), origin), origin)
        except RequestError as error:
            mistakes += error.diagnostics
    return tree


def with_changes(tree: Node, changes: Node, mistakes: list[Diagnostic]) -> Node:
    """Apply the dotted changes of a matrix arm; note the wrong ones and leave them out."""
    for path, entry in changes.entries().items():
        try:
            tree = with_value(tree, path, entry.node, entry.key)
        except RequestError as error:
            mistakes += error.diagnostics
    return tree


def with_value(tree: Node, path: str, value: Node, origin: Span) -> Node:
    """Return the tree with one value set; sections on the way are made. Raise RequestError."""
    if not _DOTTED.fullmatch(path):
        raise _refused(origin, f"`{path}` is not a path", "write section.key or section.list[0]")
    steps: list[str | int] = []
    for word, index in _STEP.findall(path):
        steps.append(int(index) if index else word)
    return _set(tree, tuple(steps), value, origin, ())


def with_references(tree: Node, mistakes: list[Diagnostic]) -> Node:
    """Replace `${a.b}` by the value that stands there; note the wrong ones and leave them.

    What a matrix arm changes is left alone: it is resolved where the change was made.
    """
    found = {place: node for place, node in _texts(_without(tree, "matrix"), ()) if _refers(node)}
    if not found:
        return tree
    refused = {p: n for p, n in found.items() if "${" in _REFERENCE.sub("", str(n.value))}
    mistakes += [_not_plain(node) for node in refused.values()]
    from omegaconf import OmegaConf

    harmless = _replaced(tree, (), dict.fromkeys(refused))
    whole = OmegaConf.create(harmless.plain())
    values: dict[Place, Any] = {}
    for place in found.keys() - refused.keys():
        try:
            values[place] = _resolve(whole, place, found[place])
        except RequestError as error:
            mistakes += error.diagnostics
    return _replaced(tree, (), values)


def unresolved(tree: Node) -> set[Span]:
    """Return the places of texts that still hold a reference."""
    return {node.span for _, node in _texts(tree, ()) if _refers(node)}


def _refers(node: Node) -> bool:
    return "${" in str(node.value)


def _parent(link: Node, child: Path, chain: Sequence[Path]) -> tuple[Path, str]:
    """Return the file that `extends` names, and what to call it."""
    name = link.value
    if not isinstance(name, str):
        raise RequestError(
            Diagnostic("wrong-type", "`extends` must be a text: one file name", link.span)
        )
    for folder in (child.parent, package_data.folder("recipes")):
        path = folder / name
        if path.is_file():
            if path.resolve() in chain:
                raise _refused(link.span, f"`{name}` extends itself", None, "cycle")
            return path, shown_path(path)
    known = _recipes_in(child.parent) | _recipes_in(package_data.folder("recipes"))
    close = nearest(name, known)
    raise _refused(
        link.span,
        f"there is no parent recipe `{shortened(name)}`",
        f"did you mean `{close}`?" if close else "known parents: " + ", ".join(sorted(known)),
        "unknown-parent",
    )


def _recipes_in(folder: Path) -> set[str]:
    files = [*folder.glob("*.yaml"), *folder.glob("base/*.yaml")]
    return {path.relative_to(folder).as_posix() for path in files}


def shown_path(path: Path) -> str:
    """Return a path for people: as short as the working directory allows."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def _set(node: Node, steps: Place, value: Node, origin: Span, done: Place) -> Node:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        return _set_item(node, step, rest, value, origin, done)
    if node.value is None:
        node = Node({}, origin)
    if not isinstance(node.value, dict):
        raise _refused(
            origin, f"`{dotted(done)}` is not a section: it has no key `{step}`", None, "no-section"
        )
    known = node.value.get(step)
    inner = known.node if known else Node(None, origin)
    changed = _set(inner, rest, value, origin, (*done, step))
    key = known.key if known and rest else origin
    return Node({**node.value, step: Entry(key, changed)}, node.span)


def _set_item(node: Node, index: int, rest: Place, value: Node, origin: Span, done: Place) -> Node:
    items = node.value
    if not isinstance(items, tuple):
        raise _refused(origin, f"`{dotted(done)}` is not a list", None, "no-list")
    if index >= len(items):
        message = f"`{dotted(done)}` has no item {index}"
        raise _refused(origin, message, f"it has {len(items)}, counted from 0", "no-item")
    changed = _set(items[index], rest, value, origin, (*done, index))
    return Node((*items[:index], changed, *items[index + 1 :]), node.span)


def _parsed(text: str, origin: Span) -> Node:
    try:
        return read(text, origin.file) if text.strip() else Node(None, origin)
    except RequestError as error:
        wrong = [Diagnostic(d.code, d.message, origin, d.hint) for d in error.diagnostics]
        raise RequestError(*wrong) from None


def _placed(node: Node, span: Span) -> Node:
    """Return a tree whose every place is `span`."""
    if isinstance(node.value, dict):
        return Node({k: Entry(span, _placed(e.node, span)) for k, e in node.value.items()}, span)
    if isinstance(node.value, tuple):
        return Node(tuple(_placed(item, span) for item in node.value), span)
    return Node(node.value, span)


def _without(node: Node, name: str) -> Node:
    if not isinstance(node.value, dict):
        return node
    return Node({k: e for k, e in node.value.items() if k != name}, node.span)


def _texts(node: Node, place: Place) -> Iterator[tuple[Place, Node]]:
    if isinstance(node.value, str):
        yield place, node
    elif isinstance(node.value, dict):
        for name, entry in node.value.items():
            yield from _texts(entry.node, (*place, name))
    elif isinstance(node.value, tuple):
        for index, item in enumerate(node.value):
            yield from _texts(item, (*place, index))


def _not_plain(node: Node) -> Diagnostic:
    """Return the diagnostic for a text with `${` that is not a plain reference.

    Anything else could call a resolver: OmegaConf reads `${${x}:HOME}` as one, too.
    """
    if ":" in str(node.value):
        message = f"`{node.value}` calls a resolver; a recipe refers to its own values only"
        hint = "facts of the machine come from flags or ADAPT_* variables"
        return Diagnostic("resolver", message, node.span, hint)
    message = f"`{node.value}` is not a reference"
    return Diagnostic("reference", message, node.span, "a reference is written `${section.key}`")


def _resolve(whole: Any, place: Place, node: Node) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    found = whole
    try:
        for step in place:
            found = found[step]
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    except (OmegaConfBaseException, RecursionError) as error:
        raise _refused(node.span, _why(node, error), None, "reference") from None


def _why(node: Node, error: Exception) -> str:
    if isinstance(error, RecursionError) or "ecursive" in str(error):
        return f"`{node.value}` refers to itself"
    return f"`{node.value}` refers to nothing that the recipe or its parents write"


def _replaced(node: Node, place: Place, values: Mapping[Place, Any]) -> Node:
    if place in values:
        return from_plain(values[place], node.span)
    if isinstance(node.value, dict):
        entries = {
            name: Entry(entry.key, _replaced(entry.node, (*place, name), values))
            for name, entry in node.value.items()
        }
        return Node(entries, node.span)
    if isinstance(node.value, tuple):
        items = (_replaced(item, (*place, i), values) for i, item in enumerate(node.value))
        return Node(tuple(items), node.span)
    return node


def from_plain(value: Any, span: Span) -> Node:
    """Return plain JSON as a tree in which every value stands at one place."""
    if isinstance(value, Mapping):
        return Node({k: Entry(span, from_plain(v, span)) for k, v in value.items()}, span)
    if isinstance(value, list):
        return Node(tuple(from_plain(item, span) for item in value), span)
    return Node(value, span)


def _refused(
    span: Span, message: str, hint: str | None = None, code: str = "override"
) -> RequestError:
    return RequestError(Diagnostic(code, message, span, hint))
