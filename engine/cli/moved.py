"""A recipe's text for another folder: relative paths in it lead where they led before."""

from __future__ import annotations

import os
from pathlib import Path

_PATH_KEYS = ("path", "image_root", "dataset", "extends", "model")


def moved(text: str, old: Path, new: Path) -> str:
    """Return the text with paths that exist from `old` rewritten to be relative to `new`."""
    from engine.recipe.source import places, read

    if old.absolute() == new.absolute():
        return text
    root = read(text, "")
    lines = text.splitlines(keepends=True)
    found = [
        (located.value, value)
        for place, located in places(root).items()
        if place and place[-1] in _PATH_KEYS and (value := _value_at(root.plain(), place))
    ]
    for span, value in sorted(found, key=lambda item: item[0], reverse=True):
        if isinstance(value, str) and (old / value).exists():
            line = lines[span.line - 1]
            at = line.find(value, span.column - 1)
            if at >= 0:
                lines[span.line - 1] = line[:at] + _from(new, old / value) + line[at + len(value) :]
    return "".join(lines)


def _from(folder: Path, path: Path) -> str:
    relative = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    return relative if relative.startswith(".") else f"./{relative}"


def _value_at(plain: object, place: tuple[str | int, ...]) -> object:
    for step in place:
        plain = plain[step]  # type: ignore[index]
    return plain
