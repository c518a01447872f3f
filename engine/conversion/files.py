"""Brings the files of a checkpoint to this machine: of a hub, only those that are read."""

from __future__ import annotations

from pathlib import Path

from engine.conversion import tensors
from engine.diagnostics import StageError

_SETTINGS = ("*.json", "*.model", "*.txt", "*.jinja")
_TOWER_SETTINGS = ("config.json", "preprocessor_config.json", "*.index.json")


def checkpoint(path: str, revision: str | None) -> Path:
    """Return the folder of a checkpoint with its settings, tokenizer and weights."""
    return _with_weights(path, _settings(path, revision, _SETTINGS))


def tower(path: str, revision: str | None, *, needs_weights: bool) -> Path:
    """Return the folder of a vision tower; its weights are large and often not needed."""
    folder = _settings(path, revision, _TOWER_SETTINGS)
    return _with_weights(path, folder) if needs_weights else folder


def _settings(path: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Return a local folder as it is, or download the small files of a hub's model."""
    if Path(path).is_dir():
        return Path(path)
    import httpx2
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise _unavailable(path, error) from error


def _with_weights(path: str, folder: Path) -> Path:
    """Download weights of the best kind there is: safetensors before pickles."""
    if folder == Path(path):
        return folder
    for index, single in tensors.KINDS:
        if (folder / index).is_file():
            files = sorted(set(tensors.files_of_index(folder / index).values()))
            if all(_has(path, folder, file) for file in files):
                return folder
        elif _has(path, folder, single):
            return folder
    return folder  # what is missing is told when it is opened


def _has(path: str, folder: Path, file: str) -> bool:
    """Download one file at the commit of a snapshot; tell whether there is such a file."""
    import httpx2
    from huggingface_hub import constants, errors, hf_hub_download

    try:
        hf_hub_download(path, file, revision=folder.name)
    except errors.LocalEntryNotFoundError as error:  # it is not here, and the hub did not give it
        if constants.HF_HUB_OFFLINE:
            return False
        raise _unavailable(path, error) from error
    except errors.EntryNotFoundError:
        return False
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise _unavailable(path, error) from error
    return True


def _unavailable(path: str, error: BaseException) -> StageError:
    while error.__cause__ is not None:  # half a download ends as a missing file otherwise
        error = error.__cause__
    return StageError(f"the model `{path}` cannot be had: {error}")
