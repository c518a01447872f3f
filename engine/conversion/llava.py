"""Original LLaVA-NeXT to the Hugging Face layout: config, tokenizer, processor, weights.

Names are those of the models released on the hub (`vision_tower.vision_model.`,
`language_model.model.`): transformers reads them as well as its own newer ones, vLLM 0.32 reads
them alone. Tensors keep their dtype and their bits. New rows of the embeddings, for the image token
and to fill up, are the mean of all rows: the logit of such a token is the mean logit, so that it is
never the likeliest. Nobody reads the row of the image token, since an image takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.conversion import settings, tensors
from engine.conversion.settings import Tower
from engine.conversion.tensors import SHARD_BYTES, Tensors
from engine.diagnostics import StageError
from engine.models import _llava_original as config_file
from engine.models import family_of
from engine.models._llava_original import Original

_TOWER = "vision_tower."
_EMBEDDINGS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
_RENAMES = (  # the first that fits
    (
        r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?(.+)",
        r"vision_tower.vision_model.\1",
    ),
    (r"model\.mm_projector\.0\.(.+)", r"multi_modal_projector.linear_1.\1"),
    (r"model\.mm_projector\.2\.(.+)", r"multi_modal_projector.linear_2.\1"),
    (r"model\.image_newline", r"image_newline"),
    (r"(model\.(?:embed_tokens|layers|norm)\..+)", r"language_model.\1"),
    (r"(lm_head\..+)", r"language_model.\1"),
)
_OF_A_TOWER = r"(?:vision_model\.)?((?:embeddings|encoder|pre_layrnorm|post_layernorm)\..+)"
_DERIVED = ("rotary_emb.inv_freq", "embeddings.position_ids")  # computed, not learnt
_SHOWN = 4  # names in an error


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    num_bytes: int
    has_own_tower: bool  # the tower's weights came from the checkpoint
    num_new_rows: int  # of each embedding


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the tensors of the converted checkpoint come from, by their new name."""

    name_in: Mapping[str, tuple[Tensors, str]]
    has_own_tower: bool

    def read(self, name: str) -> Any:
        found, old = self.name_in[name]
        return found.read(old)

    def place(self, name: str) -> tuple[bool, str, str]:
        """Return what to sort names by: file by file, and alike on every machine."""
        found, old = self.name_in[name]
        return name.startswith(_TOWER), found.file_of[old], name


def convert(
    folder: Path,
    tower: Tower,
    into: Path,
    report: Callable[[int, int], None] = lambda done, total: None,
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """Write the checkpoint in `folder` to `into`, with its vision tower.

    Raise StageError for a checkpoint that is not whole or not of this kind.
    """
    original = config_file.read(settings.read_json(folder / "config.json"))
    vision = settings.vision_config(tower)
    tokenizer = settings.tokenizer(folder, original)
    source = _source(folder, tower, original)
    num_rows = _first_dimension(source, _EMBEDDINGS[0])
    config = settings.config(original, vision, tokenizer, num_rows)
    shapes = _expected(config)
    _refuse_wrong_names(source, shapes)
    into.mkdir(parents=True, exist_ok=True)
    num_bytes = tensors.write(into, _converted(source, shapes, report), shard_bytes)
    config.save_pretrained(into)
    settings.processor(tower, config, tokenizer).save_pretrained(into)
    settings.generation_config(folder, original).save_pretrained(into)
    return Written(num_bytes, source.has_own_tower, config.text_config.vocab_size - num_rows)


def has_own_tower(folder: Path) -> bool:
    """Tell whether a checkpoint holds the weights of its vision tower."""
    return any(
        (_renamed(name) or "").startswith(_TOWER) for name in tensors.open_tensors(folder).file_of
    )


def _source(folder: Path, tower: Tower, original: Original) -> _Source:
    """Find every tensor; those of the tower are in the checkpoint only if it was tuned."""
    own = tensors.open_tensors(folder)
    if any("lora_" in name for name in own.file_of):
        raise StageError(
            "the checkpoint holds low-rank adapters",
            hint="merge them into their base with the code that trained them, then convert that",
        )
    found, unknown = {}, []
    for name in own.file_of:
        if name.endswith(_DERIVED):
            continue
        new = _renamed(name)
        if new is None:
            unknown.append(name)
        else:
            found[new] = (own, name)
    if unknown:
        raise StageError(f"the checkpoint holds tensors that no LLaVA-NeXT has: {_listed(unknown)}")
    has_own_tower = any(name.startswith(_TOWER) for name in found)
    return _Source(found if has_own_tower else found | _of_tower(tower, original), has_own_tower)


def _of_tower(tower: Tower, original: Original) -> dict[str, tuple[Tensors, str]]:
    """Return the tensors of the tower that the checkpoint was trained with, and of no other."""
    wanted = original.vision_tower
    if config_file.tower_name(wanted) != config_file.tower_name(tower.name):
        raise StageError(
            f"the checkpoint sees with `{wanted}`, and the recipe names `{tower.name}`",
            hint=f"its own weights are not in the checkpoint: set `vision_tower.model: {wanted}`",
        )
    held = tensors.open_tensors(tower.folder)
    matched = [(name, re.fullmatch(_OF_A_TOWER, name)) for name in held.file_of]
    return {
        f"{_TOWER}vision_model.{match[1]}": (held, name)
        for name, match in matched
        if match and not name.endswith(_DERIVED)
    }


def _renamed(name: str) -> str | None:
    for pattern, new in _RENAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, new, name)
    return None


def _expected(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the stored name and the shape of each tensor of a model, without making it."""
    import torch
    import transformers

    family = family_of("llava_next")
    with torch.device("meta"):
        model = transformers.LlavaNextForConditionalGeneration(config)
    shapes = {
        family.stored_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    if config.tie_word_embeddings:
        del shapes[_EMBEDDINGS[1]]
    return shapes


def _refuse_wrong_names(source: _Source, shapes: Mapping[str, Any]) -> None:
    missing = sorted(shapes.keys() - source.name_in.keys())
    projector = [name for name in missing if "projector" in name or name == "image_newline"]
    if projector:
        raise StageError(
            f"the checkpoint has no projector: {_listed(projector)} is missing",
            hint="a projector of its own (mm_projector.bin) must be joined with its decoder first",
        )
    if missing:
        raise StageError(f"the checkpoint is not whole: {_listed(missing)} is missing")
    extra = sorted(source.name_in.keys() - shapes.keys() - {_EMBEDDINGS[1]})
    if extra:
        raise StageError(f"the checkpoint holds more than its config says: {_listed(extra)}")


def _converted(
    source: _Source, shapes: Mapping[str, tuple[int, ...]], report: Callable[[int, int], None]
) -> Iterator[tuple[str, Any]]:
    """Yield each tensor under its new name. Raise StageError if one has another shape."""
    for number, name in enumerate(sorted(shapes, key=source.place), start=1):
        tensor, shape = source.read(name), shapes[name]
        if name in _EMBEDDINGS:
            tensor = _with_rows(tensor, shape[0])
        if tuple(tensor.shape) != shape:
            raise StageError(
                f"`{name}` is {_size(tensor.shape)} in the checkpoint, and {_size(shape)} by its "
                "config and its vision tower"
            )
        yield name, tensor
        report(number, len(shapes))


def _with_rows(tensor: Any, num_rows: int) -> Any:
    """Return embeddings with as many rows, new ones being the mean of all."""
    import torch

    num_new = num_rows - tensor.shape[0]
    if num_new <= 0:
        return tensor
    mean = tensor.mean(dim=0, keepdim=True, dtype=torch.float32).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(num_new, -1)])


def _first_dimension(source: _Source, name: str) -> int:
    if name not in source.name_in:
        raise StageError("the checkpoint holds no decoder: it has no token embeddings")
    return int(source.read(name).shape[0])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + more


def _size(shape: Any) -> str:
    return " x ".join(map(str, shape))
