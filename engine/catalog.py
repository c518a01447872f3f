"""What is installed: stages, prompt templates, embedded models; and what names stand for.

Digests of local files go through `digest_file`, so that the caller can remember them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import package_data, plugin
from engine.plan import keys
from engine.plan.stage import Stage
from engine.plugin import Use
from engine.stages import STAGES

POCKET = "pocket/"
_CONFIGS = ("config.json", "adapter_config.json")  # of a model, of a LoRA adapter
_CODE_FREE = (".json", ".jinja", ".safetensors", ".txt", ".model", ".bin")


def stage(name: str) -> Stage:
    """Return a stage by name; raise KeyError if there is none."""
    return {stage.name: stage for stage in STAGES}[name]


def prompt_text(name: str) -> str:
    """Return the text of a template `name@version`. Raise FileNotFoundError if there is none."""
    task, _, version = name.partition("@")
    path = package_data.folder("prompt_templates") / task / f"v{version}.j2"
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class LocalPins:
    """Pins from what is on this machine: file digests, source fingerprints, template texts."""

    folder: Path  # relative paths of the recipe start here
    digest_file: Callable[[Path], str]

    def locate(self, name: str) -> Path:
        """Return where a path written in the recipe is."""
        return (self.folder / Path(name).expanduser()).resolve()

    def locate_model(self, name: str) -> str:
        """Return the folder of an embedded or local model, or the hub id as it is."""
        if name.startswith(POCKET):
            return str(package_data.pocket_model(name.removeprefix(POCKET)))
        return str(self.locate(name)) if name.startswith((".", "/", "~")) else name

    def model(self, name: str, revision: str | None) -> Any:
        """Return a hub revision, or the digests of a local model's files."""
        if not name.startswith((POCKET, ".", "/", "~")):
            return {"hub": name, "revision": revision}
        folder = Path(self.locate_model(name))
        if not any((folder / config).is_file() for config in _CONFIGS):
            raise FileNotFoundError(f"there is no model in `{name}`: it has no config.json")
        files = sorted(p for p in folder.iterdir() if p.suffix in _CODE_FREE)
        return keys.digest({path.name: self.digest_file(path) for path in files})

    def source(self, use: Use) -> Any:
        """Return a source's fingerprint."""
        source = plugin.load("sources", use.name)
        return source.fingerprint(plugin.settings_of("sources", use), self.locate, self.digest_file)

    def prompt(self, name: str) -> str:
        """Return the text of a template."""
        return prompt_text(name)
