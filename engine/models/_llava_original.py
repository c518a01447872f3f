"""Reads the config.json of the original LLaVA code, and says what it is in Hugging Face terms.

The original code (Liu et al. 2023, 2024; Open-LLaVA-NeXT writes the same) puts the decoder's fields
and its own (`mm_...`, `image_...`) into one flat config, and names the vision tower instead of
describing it. Pure, so that a plan has numbers for such a checkpoint as well.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.diagnostics import StageError

Config = Mapping[str, Any]
TEXT_KINDS = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral"}
IMAGE_TOKEN = "<image>"  # noqa: S105  # of a text, not a secret
ROWS = 64  # embeddings grow to a multiple of it, as in the conversions on the hub
_OWN = ("mm_", "image_", "tune_mm_", "freeze_mm_", "unfreeze_mm_", "use_mm_", "tokenizer_", "s2")
_OWN_NAMES = ("architectures", "auto_map", "model_type", "transformers_version", "_name_or_path")
_ANYRES = (
    "only LLaVA-NeXT is converted: tiles of any resolution (`image_aspect_ratio: anyres`, "
    "`mm_patch_merge_type: spatial_unpad`)"
)


@dataclass(frozen=True, slots=True)
class Original:
    """What the config of an original checkpoint says."""

    text: Mapping[str, Any]  # the decoder's config, with its own model_type
    vision_tower: str  # as the training named it: a hub id, or a path on that machine
    feature_layer: int  # of the tower, counted from its end
    grids: tuple[
        tuple[int, int], ...
    ]  # (height, width) in pixels; the original writes the width first
    is_tied: bool
    dtype: str


def is_original(config: Config) -> bool:
    """Tell whether a config.json is one of the original code."""
    return config.get("model_type") in TEXT_KINDS and "text_config" not in config


def read(config: Config) -> Original:
    """Return what a config says. Raise StageError for what cannot be converted."""
    kind = str(config.get("model_type", ""))
    if not is_original(config):
        raise StageError(
            f"the checkpoint is no original LLaVA: its type is `{kind}`",
            hint="a model in the Hugging Face layout needs no `layout`",
        )
    _refuse_others(config)
    text = {name: value for name, value in config.items() if not _is_own(name)}
    return Original(
        text={**text, "model_type": TEXT_KINDS[kind]},
        vision_tower=_tower(config),
        feature_layer=int(config.get("mm_vision_select_layer", -2)),
        grids=_grids(config.get("image_grid_pinpoints")),
        is_tied=bool(config.get("tie_word_embeddings", False)),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )


def padded_rows(num_tokens: int) -> int:
    """Return how many rows the embeddings of a converted checkpoint have."""
    return -(-num_tokens // ROWS) * ROWS


def as_hugging_face(config: Config, towers: Mapping[str, Config]) -> Config | None:
    """Return the fields that decide sizes as a converted config has them; `towers` are known ones.

    None for a tower of unknown sizes. Raise StageError for what cannot be converted.
    """
    original = read(config)
    vision = towers.get(tower_name(original.vision_tower))
    if vision is None:
        return None
    rows = padded_rows(int(original.text.get("vocab_size", 32000)) + 1)
    return {
        "model_type": "llava_next",
        "dtype": original.dtype,
        "tie_word_embeddings": original.is_tied,
        "vision_config": vision,
        "text_config": {**original.text, "vocab_size": rows},
        "vision_feature_layer": original.feature_layer,
        "image_grid_pinpoints": [list(grid) for grid in original.grids],
    }


def tower_name(name: str) -> str:
    """Return the last part of a tower's name: training machines name their own copies."""
    return name.rstrip("/").rpartition("/")[2]


def _is_own(name: str) -> bool:
    return name.startswith(_OWN) or name in _OWN_NAMES


def _refuse_others(config: Config) -> None:
    """Raise StageError for settings that the Hugging Face class cannot express."""
    shape = config.get("image_aspect_ratio")
    if shape != "anyres":
        what = "a LLaVA-1.5" if shape in (None, "pad", "square") else "another kind of LLaVA"
        raise StageError(f"the checkpoint is {what} (`image_aspect_ratio: {shape}`)", hint=_ANYRES)
    merge = config.get("mm_patch_merge_type", "flat")
    if merge != "spatial_unpad":
        raise StageError(f"the checkpoint joins tiles by `{merge}`", hint=_ANYRES)
    kind = config.get("mm_projector_type", "linear")
    if kind != "mlp2x_gelu":
        raise StageError(
            f"the projector of the checkpoint is of the type `{kind}`",
            hint="the Hugging Face class has two layers with a GELU between them: `mlp2x_gelu`",
        )
    feature = config.get("mm_vision_select_feature", "patch")
    if feature != "patch":
        raise StageError(f"the checkpoint reads `{feature}` of its tower, not its patches alone")
    if config.get("mm_use_im_start_end") or config.get("s2"):
        which = "mm_use_im_start_end" if config.get("mm_use_im_start_end") else "s2"
        raise StageError(f"the checkpoint was trained with `{which}`, which is not converted")


def _tower(config: Config) -> str:
    name = config.get("mm_vision_tower") or config.get("vision_tower")
    if not isinstance(name, str):
        raise StageError("the checkpoint names no vision tower (`mm_vision_tower`)")
    return name


def _grids(written: Any) -> tuple[tuple[int, int], ...]:
    """Return the grids as (height, width). Raise StageError if they are not pairs of numbers.

    Older checkpoints hold them as text: "[(336, 672), (672, 336)]".
    """
    try:
        pairs = ast.literal_eval(written) if isinstance(written, str) else written
        grids = tuple((int(height), int(width)) for width, height in pairs)
    except (SyntaxError, TypeError, ValueError) as error:
        raise StageError(
            f"the grids of the checkpoint are not pairs: `image_grid_pinpoints: {written}`",
            hint=_ANYRES,
        ) from error
    if not grids:
        raise StageError("the checkpoint names no grids (`image_grid_pinpoints`)", hint=_ANYRES)
    return grids
