"""What differs between two resolved recipes, in the words of a recipe.

Defaults are filled in and references resolved before, so a comment, the order of keys, another
spelling of a number or a value that moved into a parent is no difference. Plug-ins in a list are
matched by their `use`: one filter more does not make all those behind it "changed".
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.recipe.source import Place
from engine.recipe.subject import dotted

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class RecipeChange:
    """One value that differs. `old_place` and `new_place` are where it stands; None: nowhere."""

    path: str  # "filters.tasks[consistency].judge.model"
    kind: str  # added, removed, changed, moved
    old: Any
    new: Any
    old_place: Place | None
    new_place: Place | None


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[RecipeChange]:
    """Return every value that differs between two resolved recipes, in the order of the keys."""
    return list(_walk("", (), (), old, new))


def applied(raw: Mapping[str, Any], change: RecipeChange) -> dict[str, Any]:
    """Return a copy of the old recipe in which one change is made."""
    whole: dict[str, Any] = copy.deepcopy(dict(raw))
    if change.kind == "moved" and change.old_place and change.new_place:
        section = _at(whole, change.old_place[:-1])
        section.insert(change.new_place[-1], section.pop(change.old_place[-1]))
    elif change.new_place is None:
        assert change.old_place is not None
        _remove(_at(whole, change.old_place[:-1]), change.old_place[-1])
    elif change.old_place is None:
        _add(whole, change.new_place, change.new)
    else:
        _at(whole, change.old_place[:-1])[change.old_place[-1]] = change.new
    return whole


def _walk(path: str, a: Place, b: Place, old: Any, new: Any) -> Iterator[RecipeChange]:
    if isinstance(old, Mapping) and isinstance(new, Mapping) and _chosen(old) == _chosen(new):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from _walk(inner, (*a, key), (*b, key), _get(old, key), _get(new, key))
    elif _are_plugins(old) and _are_plugins(new):
        yield from _walk_plugins(path, a, b, old, new)
    elif old is _ABSENT:
        yield RecipeChange(path, "added", None, new, None, b)
    elif new is _ABSENT:
        yield RecipeChange(path, "removed", old, None, a, None)
    elif old != new or isinstance(old, bool) is not isinstance(new, bool):
        yield RecipeChange(path, "changed", old, new, a, b)


def _walk_plugins(
    path: str, a: Place, b: Place, old: Sequence[Any], new: Sequence[Any]
) -> Iterator[RecipeChange]:
    """Match plug-ins by name; a second one of the same name by its number."""
    before, after = _by_name(old), _by_name(new)
    for name in [*before, *(name for name in after if name not in before)]:
        here = f"{path}[{name}]"
        if name not in after:
            index = before[name]
            yield RecipeChange(here, "removed", old[index], None, (*a, index), None)
        elif name not in before:
            index = after[name]
            yield RecipeChange(here, "added", None, new[index], None, (*b, index))
        else:
            i, j = before[name], after[name]
            yield from _walk(here, (*a, i), (*b, j), old[i], new[j])
    yield from _moved(path, a, b, before, after)


def _moved(
    path: str, a: Place, b: Place, before: Mapping[str, int], after: Mapping[str, int]
) -> Iterator[RecipeChange]:
    """Yield the first plug-in that stands elsewhere among those that both lists have."""
    kept = [name for name in before if name in after]
    order = sorted(kept, key=lambda name: after[name])
    for old_name, new_name in zip(kept, order, strict=True):
        if old_name != new_name:
            i, j = before[new_name], after[new_name]
            yield RecipeChange(f"{path}[{new_name}]", "moved", i, j, (*a, i), (*b, j))
            return


def _by_name(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    seen: Counter[str] = Counter()
    found = {}
    for index, item in enumerate(items):
        name = str(item["use"])
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} {seen[name]}"] = index
    return found


def _are_plugins(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(item, Mapping) and "use" in item for item in value
    )


def _chosen(value: Mapping[str, Any]) -> Any:
    return value.get("use")


def _get(value: Mapping[str, Any], key: str) -> Any:
    return value.get(key, _ABSENT)


def _at(value: Any, place: Place) -> Any:
    for step in place:
        value = value[step]
    return value


def _remove(section: Any, step: str | int) -> None:
    del section[step]


def _add(whole: Any, place: Place, value: Any) -> None:
    section, step = _at(whole, place[:-1]), place[-1]
    if isinstance(section, list):
        section.insert(int(step), value)
    else:
        section[step] = value


def named(place: Place) -> str:
    """Return a place as it is written in a recipe: `filters.tasks[0].judge`."""
    return dotted(place)
