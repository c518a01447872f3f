"""What changed between two pre-images, field by field: the answer to "why does this run again?"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ABSENT = object()
_FEW = 6


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; a side that lacks the field holds None and says so in `kind`."""

    path: str  # "params.training.learning_rate"
    kind: str  # added, removed, changed
    old: Any
    new: Any

    @property
    def is_input(self) -> bool:
        """Tell whether the change came from another node."""
        return self.path.startswith("inputs.")

    def __str__(self) -> str:
        if self.kind == "changed":
            return f"{self.path}: {_short(self.old)} -> {_short(self.new)}"
        return (
            f"{self.path}: {self.kind} {_short(self.old if self.kind == 'removed' else self.new)}"
        )


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return every leaf that differs between two JSON documents, sorted by path."""
    return sorted(_walk("", old, new), key=lambda change: change.path)


def nearest(
    new: Mapping[str, Any], stored: Iterable[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Return the stored pre-image of the same stage with the fewest differences, or None.

    A differing parameter weighs more than a differing input: inputs differ because of other nodes.
    One that differs in many and in most values is of another experiment and says nothing.
    """
    same = [old for old in stored if old.get("stage") == new.get("stage")]
    found = min(same, key=lambda old: _distance(old, new), default=None)
    if found is None:
        return None
    num_changed, _ = _distance(found, new)
    is_other = num_changed > max(_FEW, _num_values(new.get("params")) / 2)
    return None if is_other else found


def _distance(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many fields but inputs differ, and how many at all.

    Sections that are equal are not walked: most of them are, and there are many pre-images.
    """
    sections = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    all_ = sum(_num_changes(old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in sections)
    is_moved = "inputs" in sections
    inputs = _num_changes(old.get("inputs", _ABSENT), new.get("inputs", _ABSENT)) * is_moved
    return all_ - inputs, all_


def _num_changes(old: Any, new: Any) -> int:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
        return sum(_num_changes(old.get(n, _ABSENT), new.get(n, _ABSENT)) for n in names)
    return sum(1 for _ in _walk("", old, new))


def _num_values(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_num_values(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_num_values(item) for item in value)
    return 1


def _walk(path: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in old.keys() | new.keys():
            yield from _walk(_join(path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        for index in range(max(len(old), len(new))):
            yield from _walk(f"{path}[{index}]", _item(old, index), _item(new, index))
    elif old is _ABSENT:
        yield Change(path, "added", None, new)
    elif new is _ABSENT:
        yield Change(path, "removed", old, None)
    elif old != new or isinstance(old, bool) is not isinstance(new, bool):
        yield Change(path, "changed", old, new)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _item(values: list[Any] | tuple[Any, ...], index: int) -> Any:
    return values[index] if index < len(values) else _ABSENT


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
