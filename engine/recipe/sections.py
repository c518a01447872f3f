"""A recipe's tree in its top-level sections, each looked at once however many arms share it.

An arm of a matrix shares every section that it leaves alone with the recipe, as the same object.
Six hundred arms over a seed would otherwise walk, check and bind six hundred whole trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.diagnostics import Span
from engine.recipe import compose
from engine.recipe.source import Entry, Located, Node, Place, places
from engine.recipe.subject import Subject


@dataclass(frozen=True, slots=True)
class Section:
    """One top-level section: its values, and where they stand below it."""

    entry: Entry
    instance: Any
    places: Mapping[Place, Located]
    refers: bool  # holds a `${a.b}` reference


class Sections:
    """Looks at sections once; equal ones of several arms are the same object."""

    def __init__(self) -> None:
        self._known: dict[int, Section] = {}  # by identity: the entry is kept, so no id comes twice

    def of(self, tree: Node) -> dict[str, Section]:
        """Return the sections of a tree; none when it is no mapping."""
        return {name: self._section(entry) for name, entry in tree.entries().items()}

    def _section(self, entry: Entry) -> Section:
        found = self._known.get(id(entry))
        if found is None:
            node = entry.node
            refers = bool(compose.unresolved(node))
            found = Section(entry, node.plain(), _placed(entry), refers)
            self._known[id(entry)] = found
        return found


class Places(Mapping[Place, Located]):
    """Where the values of a tree stand, joined from its sections without copying them."""

    def __init__(self, tree: Node, sections: Mapping[str, Section]) -> None:
        self._root = Located(None, tree.span, not isinstance(tree.value, dict | tuple))
        self._sections = sections

    def __getitem__(self, place: Place) -> Located:
        if not place:
            return self._root
        return self._sections[str(place[0])].places[place[1:]]

    def __iter__(self) -> Iterator[Place]:
        yield ()
        for name, section in self._sections.items():
            for place in section.places:
                yield (name, *place)

    def __len__(self) -> int:
        return 1 + sum(len(section.places) for section in self._sections.values())


class Spans(Mapping[Place, Span]):
    """The place to show for each value: a section is shown at its key."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def __getitem__(self, place: Place) -> Span:
        located = self._subject.places[place]
        return located.value if located.is_scalar else located.key or located.value

    def __iter__(self) -> Iterator[Place]:
        return iter(self._subject.places)

    def __len__(self) -> int:
        return len(self._subject.places)


def _placed(entry: Entry) -> dict[Place, Located]:
    """Return where the values below an entry stand; the entry itself under ()."""
    found = places(entry.node)
    found[()] = replace(found[()], key=entry.key, raw_key=entry.raw)
    return found
