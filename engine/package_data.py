"""Where the files that travel with the engine are: recipes, schemas, prompt templates.

In a checkout they stand beside `engine/`; in a wheel they are inside it, under `_data/`.
"""

from __future__ import annotations

from pathlib import Path

_ENGINE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Return the folder `recipes`, `schemas` or `prompt_templates` of this installation."""
    checkout = _ENGINE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    return _ENGINE / "_data" / name


def pocket_model(name: str) -> Path:
    """Return the folder of an embedded model."""
    return _ENGINE / "pocket" / name
