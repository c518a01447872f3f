"""Image-caption pairs from a folder of pictures, walked in the order of their relative paths.

A caption is found, in this order, in a `metadata.jsonl` or `metadata.csv` (Hugging Face's
imagefolder: `file_name`, and `caption` or `text`), in a `captions.csv` with the same columns, and
in the first line of a `.txt` beside the picture; later lines are often translations. `captions`
narrows that to one way. Tables name files relative to their own folder.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from engine.plugin import Neutral
from engine.records import ImagePart, Kind, assistant, user
from engine.sources import DigestFile, Locate, Problem, Row, Source, SourceContext, _files
from engine.sources._files import RowError

UNSUPPORTED = (".svg", ".svgz", ".heic", ".heif", ".psd", ".eps", ".ai", ".dcm", ".nii")
METADATA = ("metadata.jsonl", "metadata.csv")
CAPTIONS = ("captions.csv",)
_ENDINGS = frozenset(suffix.removeprefix(".") for suffix in (*_files.PICTURES, *UNSUPPORTED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the source `image_folder`."""

    path: Annotated[
        str, Neutral(), "Folder of pictures, relative to the recipe; read with its subfolders."
    ]
    captions: Annotated[
        Literal["auto", "sidecar", "metadata", "csv"],
        "Where captions are: `.txt` beside each picture, metadata.jsonl, captions.csv, or any.",
    ] = "auto"
    licence: Annotated[str | None, "Licence of the pictures and captions, kept per row."] = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds."""

    root: Path
    pictures: tuple[Path, ...]  # readable or not; those that a table names without being there too
    captions: dict[Path, str]  # from tables
    problems: tuple[Problem, ...]  # rows of tables that name no picture
    has_sidecars: bool


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the pictures of the folder, each with its caption."""
    listing = _listing(params, context)
    if span is None or span.start == 0:
        yield from listing.problems
    chosen = slice(None) if span is None else slice(span.start, span.stop)
    for path in listing.pictures[chosen]:
        yield _row(path, listing, params.licence)


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of picture files, unsupported ones included."""
    return len(_listing(params, context).pictures)


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> dict[str, object]:
    """Return a digest over the relative paths and contents of pictures and captions."""
    root = _files.located_folder(params.path, locate)
    # No path for each file, nor a call: a million of them are planned with.
    parts = [(name, *name.rpartition(".")) for name in _files.names(root)]
    stems = {stem for _, stem, _, ending in parts if ending.lower() in _ENDINGS}
    if not stems:
        raise ValueError(f"the folder `{params.path}` has no pictures")
    matters = [
        (name, f"{root}/{name}")
        for name, stem, _, ending in parts
        if ending.lower() in _ENDINGS
        or (ending == "txt" and stem in stems)
        or name.rpartition("/")[2] in METADATA + CAPTIONS
    ]
    return _files.digest_of_names(matters, digest_file)


def _row(path: Path, listing: Listing, licence: str | None) -> Row | Problem:
    source_id = os.path.relpath(path, listing.root)
    try:
        if path.suffix.lower() in UNSUPPORTED:
            raise RowError("unsupported format", path.suffix.lower())
        caption = _caption(path, listing)
        turns = (user(ImagePart(0)), assistant(caption))
        return Row(source_id, (_files.read_picture(path),), turns, Kind.PAIR, licence)
    except RowError as error:
        return Problem(source_id, error.reason, error.detail)


def _caption(path: Path, listing: Listing) -> str:
    caption = listing.captions.get(path)
    if caption is None and listing.has_sidecars:
        caption = _first_line(path.with_suffix(".txt"))
    if not caption:
        raise RowError("no caption", "" if caption is None else "the caption is empty")
    return caption


def _first_line(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return lines.readline().strip()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise RowError("caption is not UTF-8", path.name) from error


@lru_cache(maxsize=2)
def _listing(params: Params, context: SourceContext) -> Listing:
    root = _files.located_folder(params.path, context.locate)
    wanted = {"auto": METADATA + CAPTIONS, "metadata": METADATA, "csv": CAPTIONS, "sidecar": ()}
    files = list(_files.walk(root))
    entries = [
        entry for path in files if path.name in wanted[params.captions] for entry in _table(path)
    ]
    captions = dict(entry for entry in entries if not isinstance(entry, Problem))
    pictures = {path for path in files if _is_picture(path)} | captions.keys()
    return Listing(
        root,
        tuple(sorted(pictures, key=lambda path: path.parts)),
        captions,
        tuple(entry for entry in entries if isinstance(entry, Problem)),
        has_sidecars=params.captions in ("auto", "sidecar"),
    )


def _table(path: Path) -> Iterator[tuple[Path, str] | Problem]:
    """Yield picture and caption of each row of a table; "" where the row has no caption."""
    for number, row in enumerate(_table_rows(path), start=1):
        if isinstance(row, dict) and isinstance(row.get("file_name"), str):
            caption = row.get("caption", row.get("text"))
            yield Path(os.path.normpath(path.parent / row["file_name"])), str(caption or "").strip()
        else:
            yield Problem(f"{path.name} row {number}", "no `file_name`", str(row)[:80])


def _table_rows(path: Path) -> Iterator[Any]:
    """Yield rows of a table; a line that cannot be read as it is."""
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as lines:
        if path.suffix == ".csv":
            yield from csv.DictReader(lines)
            return
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                yield line


def _is_picture(path: Path) -> bool:
    return path.suffix.lower().removeprefix(".") in _ENDINGS


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows)
