"""Tensors of a checkpoint in a folder, read one at a time, and written in shards.

Safetensors files are mapped into memory. `.bin` files are pickles: they are read with torch's
`weights_only`, which builds tensors and runs nothing else.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.diagnostics import StageError

KINDS = (  # in the order in which they are looked for
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
SHARD_BYTES = 2**30  # as much is in memory at once


@dataclass(slots=True)
class Tensors:
    """The tensors of a checkpoint by name; files are opened when they are first needed."""

    folder: Path
    file_of: Mapping[str, str]
    _open: dict[str, Any] = field(default_factory=dict)

    def read(self, name: str) -> Any:
        """Return a tensor. Raise StageError if its file is broken."""
        try:
            return self._opened(self.file_of[name])(name)
        except Exception as error:  # safetensors and torch raise what they like
            raise _broken(self.folder / self.file_of[name], error) from error

    def close(self) -> None:
        """Let go of the files."""
        self._open.clear()

    def _opened(self, file: str) -> Any:
        if file not in self._open:
            self._open.clear()  # one at a time
            self._open[file] = _reader(self.folder / file)
        return self._open[file]


def open_tensors(folder: Path) -> Tensors:
    """Return the tensors of a folder. Raise StageError if there are none, or a file is missing."""
    for index, single in KINDS:
        if (folder / index).is_file():
            files = files_of_index(folder / index)
            for file in sorted(set(files.values())):
                if not (folder / file).is_file():
                    raise StageError(f"the checkpoint has no file `{file}`, which its index names")
            return Tensors(folder, files)
        if (folder / single).is_file():
            return Tensors(folder, dict.fromkeys(_names(folder / single), single))
    wanted = " nor ".join(f"`{single}`" for _, single in KINDS)
    raise StageError(f"the checkpoint holds no weights: neither {wanted}")


def files_of_index(path: Path) -> dict[str, str]:
    """Return the file of each tensor. Raise StageError if an index is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): str(file) for name, file in found.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise StageError(f"`{path.name}` is no index of weights") from error
    for file in files.values():
        if Path(file).name != file:
            raise StageError(f"`{path.name}` names a file outside of the checkpoint: `{file}`")
    return files


def write(folder: Path, tensors: Iterable[tuple[str, Any]], shard_bytes: int = SHARD_BYTES) -> int:
    """Write tensors as `model-00001-of-...safetensors` with their index; return their bytes."""
    from safetensors.torch import save_file

    parts: list[list[str]] = []
    total = 0
    for shard in _shards(tensors, shard_bytes):
        total += sum(tensor.nbytes for tensor in shard.values())
        save_file(shard, folder / f"part-{len(parts)}", metadata={"format": "pt"})
        parts.append(list(shard))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(parts):
        file = f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors"
        (folder / f"part-{number}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return total


def _shards(tensors: Iterable[tuple[str, Any]], shard_bytes: int) -> Iterator[dict[str, Any]]:
    shard: dict[str, Any] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = _alone(tensor)
        size += tensor.nbytes
    if shard:
        yield shard


def _alone(tensor: Any) -> Any:
    """Return a tensor that owns all of its storage; views of one storage are refused otherwise."""
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _names(path: Path) -> list[str]:
    try:
        if path.suffix == ".bin":
            return list(_unpickled(path))
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except Exception as error:
        raise _broken(path, error) from error


def _reader(path: Path) -> Any:
    if path.suffix == ".bin":
        return _unpickled(path).__getitem__
    from safetensors import safe_open

    return safe_open(path, framework="pt").get_tensor


def _unpickled(path: Path) -> dict[str, Any]:
    """Return the tensors of a `.bin` file; mapped, unless it is older than torch 1.6."""
    import torch

    can_map = zipfile.is_zipfile(path)
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=can_map)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _broken(path: Path, error: Exception) -> StageError:
    first = str(error).strip().partition("\n")[0][:200]
    return StageError(
        f"`{path.name}` of the checkpoint cannot be read: {first}",
        hint="is the file whole? A `.bin` file may hold tensors alone: code in it is not run",
    )
