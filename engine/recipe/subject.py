"""What is checked, as diagnostics speak of it: the names and places of its values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.diagnostics import Span
from engine.recipe.source import Located, Place


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked: its places, where it stands in the file, and what to call it."""

    places: Mapping[Place, Located]
    at: Place = ()
    whole: str = "a recipe"  # "a recipe", "filter `consistency`"

    @property
    def is_recipe(self) -> bool:
        """Tell whether this is a recipe, not a benchmark file or the settings of a plug-in."""
        return not self.at and self.whole == "a recipe"

    def value(self, *place: str | int) -> Span:
        """Return the place of a value, or of the nearest section around it."""
        return self._nearest(place).value

    def key(self, *place: str | int) -> Span:
        """Return the place of a key; of the value where there is no key."""
        found = self._nearest(place)
        return found.key or found.value

    def raw(self, *place: str | int) -> str:
        """Return a scalar as it is written; nothing where nobody wrote it."""
        found = self.places.get((*self.at, *place))
        return found.raw if found else ""

    def raw_key(self, *place: str | int) -> str:
        """Return a key as it is written; nothing where nobody wrote it."""
        found = self.places.get((*self.at, *place))
        return found.raw_key if found else ""

    def is_section(self, place: Place) -> bool:
        """Tell whether a section or a list stands at a place."""
        return not self._nearest(place).is_scalar

    def name(self, place: Place) -> str:
        """Return what a person calls a place: `filters.tasks[0].judge`."""
        return dotted((*self.at, *place))

    def section(self, place: Place) -> str:
        """Return what a person calls the section at a place."""
        return f"`{self.name(place)}`" if place else self.whole

    def _nearest(self, place: Place) -> Located:
        full = (*self.at, *place)
        for length in range(len(full), -1, -1):
            if full[:length] in self.places:
                return self.places[full[:length]]
        raise AssertionError("the root has a place")


def dotted(place: Place) -> str:
    """Return a place as people write it: `filters.tasks[0].judge`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """Return a value as it would stand in a recipe, shortened."""
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list):
        return "a list"
    return shortened(json.dumps(value, ensure_ascii=False))


def shortened(text: str) -> str:
    """Return a text on one line that fits into a sentence."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
