"""Looks at a file or folder of image-caption pairs and says which source reads it, and how.

Only a sample is read, and it is read by the source itself, so that what is proposed is what a run
will see. Listing a folder's names is the one thing that grows with the data.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.diagnostics import Diagnostic, RequestError, nearest
from engine.sources import Problem, Row, _files, _guess, _peek, image_folder
from engine.sources._guess import Column
from engine.sources._sampling import sample, unusable

TABLES_OF_A_FOLDER = (*image_folder.METADATA, *image_folder.CAPTIONS)
_SPLIT = re.compile(r"^(train|validation|valid|val|dev|test)(?=[-_.]|$)")
_RAW_ROWS = 50


@dataclass(frozen=True, slots=True)
class Look:
    """What was found: the source that reads it, its settings, and a sample of its rows."""

    use: str
    settings: Mapping[str, Any]  # `path` (or `dataset`) is absolute here
    num_rows: int | None  # None where counting would read everything
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    columns: tuple[Column, ...] = ()
    caption_choices: tuple[str, ...] = ()  # two or more: a person must choose
    passed_over: tuple[str, ...] = ()  # other tables of the folder
    splits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """The file names of a folder, by what they are."""

    pictures: tuple[Path, ...]
    tables: tuple[Path, ...]
    metadata: tuple[Path, ...]
    sidecars: tuple[Path, ...]
    suffixes: Counter[str] = field(default_factory=Counter)


def look(path: Path, most: int, caption: str | None = None) -> Look:
    """Return what is at `path`; `caption` names the caption column. Raise RequestError if unusable.

    At most `most` rows are read.
    """
    try:
        if path.is_file():
            return _look_at_file(path, most, caption)
        if path.is_dir():
            return _look_into(path, most, caption)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise unusable(f"`{error.filename or path}` cannot be read: {reason}", None) from None
    raise RequestError(
        Diagnostic(
            "file-not-found", f"there is no file or folder `{path}`", hint=_parent_hint(path)
        )
    )


def _parent_hint(path: Path) -> str | None:
    parent = path.parent
    if not parent.is_dir():
        return f"`{parent}` is not there either"
    close = nearest(path.name, (entry.name for entry in os.scandir(parent)))
    return f"did you mean `{parent / close}`?" if close else None


def _look_at_file(path: Path, most: int, caption: str | None) -> Look:
    use = _peek.kind_of(path.name)
    if use is not None:
        if path.name in TABLES_OF_A_FOLDER and _sidecar_table_fits(path):
            return _look_into(path.parent, most, caption)
        return _look_at_table(use, path, [path], most, caption)
    if _files.is_picture(path):
        raise unusable(f"`{path}` is one picture", "name the folder that it is in")
    hint = (
        "unpack it and name the folder"
        if path.suffix.lower() in (".zip", ".rar", ".7z")
        else (
            "a folder of pictures, or a "
            + ", ".join(s for ends in _peek.SUFFIXES.values() for s in ends)
        )
    )
    raise unusable(f"no source reads `{path.name}`", hint)


def _sidecar_table_fits(path: Path) -> bool:
    """Tell whether a metadata.jsonl or captions.csv is one that `image_folder` reads."""
    use = _peek.kind_of(path.name)
    try:
        first = _peek.raw_rows(str(use), path, 1)[0]
    except _peek.NotATableError:
        return False
    return "file_name" in first and bool({"caption", "text"} & set(first))


def _look_into(folder: Path, most: int, caption: str | None) -> Look:
    found = _listed(folder)
    if found.pictures and (found.sidecars or any(map(_sidecar_table_fits, found.metadata))):
        return _look_at_pictures(folder, most)
    tables = [*found.tables, *found.metadata]
    if tables:
        return _look_at_tables(folder, tables, most, caption)
    raise _nothing_usable(folder, found)


def _listed(folder: Path) -> _Found:
    files = list(_files.walk(folder))
    pictures = tuple(path for path in files if _files.is_picture(path))
    stems = {path.with_suffix("") for path in pictures}
    sidecars = (p for p in files if p.suffix == ".txt" and p.with_suffix("") in stems)
    tables = [path for path in files if _peek.kind_of(path.name)]
    return _Found(
        pictures,
        tuple(path for path in tables if path.name not in TABLES_OF_A_FOLDER),
        tuple(path for path in tables if path.name in TABLES_OF_A_FOLDER),
        tuple(sidecars),
        Counter(path.suffix.lower() or "no suffix" for path in files),
    )


def _look_at_pictures(folder: Path, most: int) -> Look:
    rows = sample("image_folder", {"path": str(folder)}, most)
    return _with_pairs(Look("image_folder", {"path": str(folder)}, *rows), folder)


def _look_at_tables(folder: Path, tables: Sequence[Path], most: int, caption: str | None) -> Look:
    """Look at the tables of one kind; where kinds are mixed, at those that there are most of."""
    kinds = [str(_peek.kind_of(table.name)) for table in tables]
    use = max(dict.fromkeys(kinds), key=kinds.count)
    chosen = [table for table, kind in zip(tables, kinds, strict=True) if kind == use]
    others = [table for table in tables if table not in chosen]
    by_split = _by_split(chosen)
    if use == "parquet" and len(by_split) > 1:
        train = next((name for name in by_split if name == "train"), next(iter(by_split)))
        found = _look_at_table(use, by_split[train][0], by_split[train], most, caption)
        settings = {k: v for k, v in found.settings.items() if k not in ("path", "image_root")}
        hub = {"dataset": str(folder), "split": train, **settings}
        num_rows = sum(_num_parquet_rows(table) for table in by_split[train])
        return replace(found, use="hub", settings=hub, num_rows=num_rows, splits=tuple(by_split))
    if use in ("csv_file", "json_file") and len(chosen) > 1:
        largest = max(chosen, key=lambda table: (table.stat().st_size, table.name))
        others += [table for table in chosen if table != largest]
        chosen = [largest]
    place = chosen[0] if len(chosen) == 1 else folder
    found = _look_at_table(use, place, chosen, most, caption)
    return replace(found, passed_over=tuple(str(p.relative_to(folder)) for p in sorted(others)))


def _by_split(tables: Iterable[Path]) -> dict[str, list[Path]]:
    """Return tables by the split that their names begin with, as `datasets` names them."""
    result: dict[str, list[Path]] = {}
    for table in tables:
        named = _SPLIT.match(table.name)
        result.setdefault(named[1] if named else "train", []).append(table)
    return result


def _num_parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _look_at_table(
    use: str, place: Path, tables: Sequence[Path], most: int, caption: str | None
) -> Look:
    table = tables[0]
    try:
        raw = _peek.raw_rows(use, table, _RAW_ROWS)
    except _peek.NotATableError as error:
        raise unusable(f"`{table}` cannot be read: {error}", "repair the file") from None
    columns = _guess.columns_of(raw)
    settings, choices = _settings(columns, table, caption)
    if use != "webdataset":
        root = _image_root(raw, columns, settings, table)
        settings |= {} if root is None else {"image_root": str(root)}
    rows = sample(use, {"path": str(place), **settings}, most)
    found = Look(use, {"path": str(place), **settings}, *rows, columns, choices)
    return _with_pairs(found, table)


def _settings(
    columns: Sequence[Column], table: Path, caption: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return `columns` as the recipe needs it, and the columns that may be the caption."""
    images = _guess.candidates("image", columns)
    captions = _guess.candidates("caption", columns)
    chat = _guess.conversation_column(columns)
    names = [column.name for column in columns]
    if caption is not None and caption not in names:
        raise _no_column(caption, table, names)
    if not images:
        raise unusable(f"`{table.name}` has no column of pictures", _columns_hint(columns))
    if not captions and chat is None:
        raise unusable(f"`{table.name}` has no column of captions", _columns_hint(columns))
    mapping = {} if images[0] in ("image", "images") else {"image": images[0]}
    if caption is None and chat is not None and "caption" not in names:
        mapping |= {} if chat in ("conversations", "messages") else {"conversations": chat}
        return ({"columns": mapping} if mapping else {}), ()
    chosen = caption or captions[0]
    mapping |= {} if chosen == "caption" else {"caption": chosen}
    is_certain = caption is not None or chosen == "caption" or len(captions) == 1
    return ({"columns": mapping} if mapping else {}), () if is_certain else captions


def _image_root(
    raw: Sequence[_guess.Raw], columns: Sequence[Column], settings: Mapping[str, Any], table: Path
) -> Path | None:
    """Return the folder that image paths start at, or None if that is the table's own."""
    name = settings.get("columns", {}).get("image", "image")
    name = name if any(column.name == name for column in columns) else "images"
    values = [row.get(name) for row in raw]
    paths = [value[0] if isinstance(value, list) and value else value for value in values]
    named = [path for path in paths if isinstance(path, str)]
    if not named or any((table.parent / path).is_file() for path in named):
        return None
    around = (table.parent, table.parent.parent)
    folders = (entry for parent in around for entry in sorted(_folders(parent)))
    roots = (*around[1:], *folders)
    return next((r for r in roots if any((r / path).is_file() for path in named)), None)


def _folders(parent: Path) -> list[Path]:
    with os.scandir(parent) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()][:200]


def _with_pairs(found: Look, table: Path) -> Look:
    """Return what was found if at least one row of the sample is a pair; else raise."""
    if found.rows:
        return found
    reasons = Counter(problem.reason for problem in found.problems)
    first = next(iter(found.problems), None)
    said = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    detail = f"; first: `{first.source_id}` {first.detail}".rstrip() if first else ""
    hint = {
        "more than one exchange": "such chats can be replay: `mix.replay` with `task: chat`",
        "image file not found": "image paths start at the table's folder; are the pictures there?",
    }.get(first.reason if first else "")
    raise unusable(f"no row of `{table}` is a pair: {said or 'it has no row'}{detail}", hint)


def _nothing_usable(folder: Path, found: _Found) -> RequestError:
    counts = ", ".join(f"{count} {suffix}" for suffix, count in found.suffixes.most_common(6))
    if found.pictures:
        number = len(found.pictures)
        return unusable(
            f"`{folder}` has {number} pictures and no caption (files: {counts})",
            "a caption is the first line of `x.txt` beside `x.png`, or a row of a metadata.jsonl "
            "(`file_name`, `caption`) or captions.csv",
        )
    if ".arrow" in found.suffixes:
        return unusable(
            f"`{folder}` holds Arrow files, as `save_to_disk` writes them",
            "write them as Parquet: `load_from_disk(...).to_parquet('pairs.parquet')`",
        )
    return unusable(f"`{folder}` has no pictures and no table (files: {counts or 'none'})", None)


def _no_column(name: str, table: Path, names: Sequence[str]) -> RequestError:
    close = nearest(name, names)
    hint = f"did you mean `{close}`?" if close else "it has " + ", ".join(f"`{n}`" for n in names)
    return unusable(f"`{table.name}` has no column `{name}`", hint)


def _columns_hint(columns: Sequence[Column]) -> str:
    return "it has " + ", ".join(f"`{c.name}` ({c.holds}: {c.example})" for c in columns)
