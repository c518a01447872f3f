"""Builds pictures, and reads sources as `collect` does."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from engine import plugin
from engine.sources import Problem, Row, SourceContext


def picture(shade: int = 0, *, side_px: int = 32, image_format: str = "PNG") -> bytes:
    """Return an encoded picture with a texture of its own for each shade."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(shade).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise).resize((side_px, side_px)), image_format)


def encoded(image: Any, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format)
    return buffer.getvalue()


def context(folder: Path) -> SourceContext:
    return SourceContext(locate=lambda name: folder / name, is_offline=True, seed=0)


def read(
    name: str, folder: Path, span: range | None = None, **settings: Any
) -> list[Row | Problem]:
    source = plugin.load("sources", name)
    params = plugin.bind(source.params, settings)
    return list(source.rows(params, context(folder), span))


def num_rows(name: str, folder: Path, **settings: Any) -> int:
    source = plugin.load("sources", name)
    return int(source.num_rows(plugin.bind(source.params, settings), context(folder)))


def fingerprint(name: str, folder: Path, **settings: Any) -> Any:
    source = plugin.load("sources", name)
    params = plugin.bind(source.params, settings)
    return source.fingerprint(params, lambda path: folder / path, sha256)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def captions(items: list[Row | Problem]) -> list[tuple[str, str]]:
    """Return source id and caption, or source id and reason, of each item."""
    return [
        (item.source_id, item.reason if isinstance(item, Problem) else item.turns[1].text)
        for item in items
    ]
