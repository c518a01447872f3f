"""What sources that read table files share: where the files and their pictures are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from engine.plugin import Neutral
from engine.sources import DigestFile, Locate, _columns, _files
from engine.sources._columns import RowParams


@dataclass(frozen=True, slots=True, kw_only=True)
class FileParams(RowParams):
    """Settings of a source that reads a table file, or a folder of them in name order."""

    path: Annotated[str, Neutral(), "The file, or a folder of such files, relative to the recipe."]
    image_root: Annotated[
        str | None, Neutral(), "Folder that image paths start at; the file's folder if not set."
    ] = None


def image_root(params: FileParams, table: Path, locate: Locate) -> Path:
    """Return the folder that the image paths of a table start at."""
    if params.image_root is None:
        return table.parent
    return _files.located_folder(params.image_root, locate)


def fingerprint(
    params: FileParams, suffixes: tuple[str, ...], locate: Locate, digest_file: DigestFile
) -> dict[str, object]:
    """Return a digest over the tables and all pictures under their image folders."""
    _columns.check_names(params)
    tables = _files.located_files(params.path, locate, suffixes)
    return _files.digest_of(_named(params, tables, locate), digest_file)


def _named(params: FileParams, tables: list[Path], locate: Locate) -> Iterator[tuple[str, Path]]:
    yield from ((table.name, table) for table in tables)
    for root in dict.fromkeys(image_root(params, table, locate) for table in tables):
        pictures = (path for path in _files.walk(root) if _files.is_picture(path))
        yield from _files.relative(pictures, root)
