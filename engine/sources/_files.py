"""Finds the files of a source, and reads the pictures that its rows name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.sources import DigestFile, Locate

PICTURES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".avif", ".jp2", ".tga"),
)


class RowError(ValueError):
    """A row cannot be read: a short constant reason, and what was seen."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def located_folder(path: str, locate: Locate) -> Path:
    """Return a folder named in the recipe; raise FileNotFoundError if there is none."""
    folder = locate(path)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"the folder `{path}` {what}")
    return folder


def located_files(path: str, locate: Locate, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the file at `path`, or those with these suffixes in the folder, in name order.

    Raise FileNotFoundError if there is nothing at `path`, ValueError if a folder has no such file.
    """
    place = locate(path)
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise FileNotFoundError(f"the file or folder `{path}` does not exist")
    found = [p for p in walk(place) if p.name.lower().endswith(suffixes)]
    if not found:
        raise ValueError(f"the folder `{path}` has no {' or '.join(suffixes)} file")
    return found


def walk(folder: Path) -> Iterator[Path]:
    """Yield all files under a folder in the order of their relative paths; hidden ones are not."""
    return (folder / name for name in names(folder))


def names(folder: Path | str, prefix: str = "") -> Iterator[str]:
    """Yield what `walk` does as relative names: a path for each of a million files takes long."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from names(entry.path, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name


def digest_of(files: Iterable[tuple[str, Path]], digest_file: DigestFile) -> dict[str, object]:
    """Return what identifies named files: one digest over their names and contents."""
    named = [(name, str(path)) for name, path in files]
    return digest_of_names(named, digest_file)


def digest_of_names(named: Sequence[tuple[str, str]], digest_file: DigestFile) -> dict[str, object]:
    """Return what `digest_of` does; a `digest_file` that takes many files at once gets them so."""
    many = getattr(digest_file, "many", None)
    paths = [path for _, path in named]
    digests = many(paths) if many is not None else [digest_file(Path(path)) for path in paths]
    lines = [f"{name}\0{digest}\n" for (name, _), digest in zip(named, digests, strict=True)]
    return {
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "num_files": len(named),
    }


def relative(files: Iterable[Path], root: Path) -> Iterator[tuple[str, Path]]:
    """Name files by their paths relative to a folder."""
    return ((path.relative_to(root).as_posix(), path) for path in files)


def is_picture(path: Path) -> bool:
    """Tell whether a file looks like one that can be decoded."""
    return path.suffix.lower() in PICTURES


def read_picture(path: Path) -> bytes:
    """Return the bytes of a picture file; raise `RowError` if there are none."""
    try:
        encoded = path.read_bytes()
    except FileNotFoundError as error:
        raise RowError("image file not found", path.name) from error
    except OSError as error:
        raise RowError("unreadable file", str(error.strerror)) from error
    if not encoded:
        raise RowError("empty file", path.name)
    return encoded


def read_under(root: Path, name: str) -> bytes:
    """Return the bytes of the picture `name` under `root`; raise `RowError` when that fails."""
    if name.startswith(("http://", "https://", "data:")):
        raise RowError("image is not a file", name[:60])
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(os.path.normpath(root)):
        raise RowError("image path leaves the image folder", name)
    return read_picture(path)
