"""Finds the config of a model without a network: a folder, the local hub cache, the catalogue.

Reads two small JSON files and imports nothing heavy. Which of them spoke is part of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from engine import package_data
from engine.diagnostics import StageError
from engine.models import _facts, _image_tokens, _llava_original
from engine.models._facts import Architecture
from engine.models._image_tokens import ImageTokens

_POCKET = "pocket/"
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


class KnownModel:
    """A model whose config could be read; no architecture when no formula fits its type."""

    def __init__(
        self,
        kind: str,  # model_type as written
        architecture: Architecture | None,
        processor: Mapping[str, Any],
        basis: str,  # where the config was found
        config: Mapping[str, Any],  # as written; of an original LLaVA, once it is converted
        layout: str = "huggingface",  # as in a recipe
        flaw: str | None = None,  # why it cannot be converted from another layout
    ) -> None:
        self.kind = kind
        self.architecture = architecture
        self.processor = processor
        self.basis = basis
        self.config = config
        self.layout = layout
        self.flaw = flaw

    def image(self, width_px: int, height_px: int) -> ImageTokens:
        """Return what an image of this size takes; nothing where that is not known."""
        if self.architecture is None:
            return ImageTokens(0, 0)
        return _image_tokens.of_image(self.architecture, self.processor, width_px, height_px)

    @cached_property
    def fewest_image_tokens(self) -> int:
        """Return the tokens of the cheapest image of a common shape."""
        if self.architecture is None:
            return 0
        return _image_tokens.fewest(self.architecture, self.processor)

    @cached_property
    def largest_image(self) -> ImageTokens:
        """Return what the most expensive image of a common shape takes."""
        if self.architecture is None:
            return ImageTokens(0, 0)
        return _image_tokens.most(self.architecture, self.processor)

    @property
    def has_fixed_images(self) -> bool:
        """Tell whether images of all common shapes take the same."""
        return self.fewest_image_tokens == self.largest_image.tokens


def _no_folder(name: str) -> Path | None:
    return None


class ModelFinder:
    """Looks models up, each once. `locate` says where a local folder of the recipe is."""

    def __init__(
        self, locate: Callable[[str], Path | None] = _no_folder, hub_cache: Path | None = None
    ) -> None:
        self.locate = locate
        self.hub_cache = hub_cache
        self._found: dict[tuple[str, str | None], KnownModel | None] = {}

    def find(self, name: str, revision: str | None = None) -> KnownModel | None:
        """Return what is known of a model, or None."""
        place = (name, revision)
        if place not in self._found:
            self._found[place] = self._look(name, revision)
        return self._found[place]

    def is_here(self, name: str, revision: str | None = None) -> bool:
        """Tell whether the weights of a model are on this machine."""
        if name.startswith(_POCKET):
            return True
        is_local = name.startswith((".", "/", "~"))
        folder = self.locate(name) if is_local else self._snapshot(name, revision)
        return folder is not None and any(folder.glob("*.safetensors"))

    def _look(self, name: str, revision: str | None) -> KnownModel | None:
        if name.startswith(_POCKET):
            folder = package_data.pocket_model(name.removeprefix(_POCKET))
            return _read(folder, "its config.json")
        if name.startswith((".", "/", "~")):
            found = self.locate(name)
            return _read(found, "its config.json") if found is not None else None
        cached = self._snapshot(name, revision)
        if cached is not None:
            return _read(cached, "its config.json in the local hub cache")
        return _from_catalogue(name)

    def _snapshot(self, name: str, revision: str | None) -> Path | None:
        if self.hub_cache is None:
            return None
        folder = self.hub_cache / f"models--{name.replace('/', '--')}"
        if not folder.is_dir():
            return None
        commit = revision or "main"
        named = folder / "refs" / commit
        if named.is_file():
            commit = named.read_text(encoding="utf-8").strip()
        snapshot = folder / "snapshots" / commit
        return snapshot if (snapshot / "config.json").is_file() else None


def finder_of(folder: Path, environ: Mapping[str, str]) -> ModelFinder:
    """Return what finds the models of a recipe in `folder` on this machine."""
    return ModelFinder(lambda name: folder / Path(name).expanduser(), hub_cache(environ))


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Return where huggingface_hub keeps what it downloaded, by its own rules."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    home = environ.get("HF_HOME") or str(
        Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    )
    return Path(home).expanduser() / "hub"


def _read(folder: Path, basis: str) -> KnownModel | None:
    config = _json(folder / "config.json")
    if config is None:
        return None
    processor: dict[str, Any] = {}
    for name in _PROCESSOR_FILES:
        written = _json(folder / name) or {}
        processor |= written.get("image_processor", written)
    return _known(config, processor, basis)


def _from_catalogue(name: str) -> KnownModel | None:
    from engine.models import _catalogue

    config = _catalogue.CONFIGS.get(name)
    if config is None:
        return None
    found = _known(config, _catalogue.PROCESSORS.get(name, {}), "its published config")
    found.layout = "llava" if name in _catalogue.ORIGINALS else found.layout
    return found


def _known(config: Mapping[str, Any], processor: Mapping[str, Any], basis: str) -> KnownModel:
    if _llava_original.is_original(config):
        return _original(config, processor, basis)
    kind = str(config.get("model_type", ""))
    try:
        found = _facts.architecture(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        found = None  # a config that says something else than its type should
    if found is not None and found.kind == "llava_next" and "image_grid_pinpoints" in config:
        processor = {"image_grid_pinpoints": config["image_grid_pinpoints"], **processor}
    return KnownModel(kind, found, processor, basis, config)


def _original(config: Mapping[str, Any], processor: Mapping[str, Any], basis: str) -> KnownModel:
    """Return what an original LLaVA is once it is converted."""
    from engine.models import _catalogue

    try:
        converted, flaw = _llava_original.as_hugging_face(config, _catalogue.TOWERS), None
    except StageError as error:
        converted, flaw = None, str(error)
    found = _known(converted, processor, basis) if converted else None
    architecture = found.architecture if found else None
    used = found.processor if found else processor
    shape = converted or {}
    return KnownModel("llava_next", architecture, used, basis, shape, "llava", flaw)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
