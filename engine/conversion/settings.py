"""What stands beside the weights of a converted checkpoint: config, tokenizer, processor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.conversion import chats
from engine.diagnostics import StageError
from engine.models._llava_original import IMAGE_TOKEN, Original, padded_rows


@dataclass(frozen=True, slots=True)
class Tower:
    """The vision tower that the recipe names."""

    name: str  # hub id or folder, as the recipe writes it
    folder: Path


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file. Raise StageError if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"`{path.name}` of `{path.parent.name}` cannot be read") from error
    if not isinstance(found, dict):
        raise StageError(f"`{path.name}` of `{path.parent.name}` holds no settings")
    return found


def vision_config(tower: Tower) -> Any:
    """Return the config of a tower. Raise StageError if it is no CLIP."""
    import transformers

    config = read_json(tower.folder / "config.json")
    kind = config.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise StageError(
            f"the vision tower `{tower.name}` is of the type `{kind}`, not CLIP",
            hint="the original LLaVA-NeXT sees with openai/clip-vit-large-patch14-336",
        )
    fields = config.get("vision_config") or config
    return transformers.CLIPVisionConfig(**{k: v for k, v in fields.items() if k != "model_type"})


def tokenizer(folder: Path, original: Original) -> Any:
    """Return the tokenizer with an image token, and with one to fill batches."""
    import transformers

    text = _text_config(original)
    if not (folder / "tokenizer.json").is_file() and (folder / "tokenizer.model").is_file():
        _need_sentencepiece()
    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, config=text)
    except (OSError, ValueError, ImportError) as error:
        raise StageError(f"the tokenizer of the checkpoint cannot be opened: {error}") from error
    token = transformers.AddedToken(IMAGE_TOKEN, special=True, normalized=False)
    found.add_tokens([token], special_tokens=True)
    if found.pad_token is None:
        found.add_special_tokens({"pad_token": "<pad>"})
    found.chat_template = chats.template_of(str(original.text["model_type"]), found)
    return found


def _need_sentencepiece() -> None:
    """Raise StageError without the package that reads a `tokenizer.model`."""
    if find_spec("sentencepiece") is None:
        raise StageError(
            "the tokenizer of the checkpoint is a `tokenizer.model`, which sentencepiece reads",
            hint="install it beside adapt: pip install sentencepiece",
        )


def config(original: Original, vision: Any, tokenizer: Any, num_rows: int) -> Any:
    """Return the config of the whole; `num_rows` are those that the embeddings have so far."""
    import transformers

    _refuse_cut_tiles(original, vision.image_size)
    text = _text_config(original)
    text.vocab_size = padded_rows(max(num_rows, len(tokenizer)))
    text.tie_word_embeddings = original.is_tied
    patches = (vision.image_size // vision.patch_size) ** 2
    return transformers.LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_layer=original.feature_layer,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        image_grid_pinpoints=[list(grid) for grid in original.grids],
        image_seq_length=patches,
        tie_word_embeddings=original.is_tied,
        architectures=["LlavaNextForConditionalGeneration"],
        dtype=original.dtype,
    )


def _refuse_cut_tiles(original: Original, side_px: int) -> None:
    for height, width in original.grids:
        if height % side_px or width % side_px:
            raise StageError(
                f"the grid {width} x {height} of the checkpoint is not made of tiles of {side_px} "
                f"x {side_px}, which its vision tower sees"
            )


def processor(tower: Tower, config: Any, tokenizer: Any) -> Any:
    """Return what cuts images into tiles, and counts their tokens."""
    import transformers
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    written = read_json(tower.folder / "preprocessor_config.json")
    side = config.vision_config.image_size
    kept = {name: written[name] for name in ("image_mean", "image_std") if name in written}
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=config.image_grid_pinpoints,
        **kept,
    )
    return transformers.LlavaNextProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=1,  # the class token, which "default" takes away again
    )


def generation_config(folder: Path, original: Original) -> Any:
    """Return the tokens that begin and end a text; how to sample is a matter of the recipe."""
    import transformers

    path = folder / "generation_config.json"
    given = {**original.text, **(read_json(path) if path.is_file() else {})}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return transformers.GenerationConfig(**{name: given.get(name) for name in names})


def _text_config(original: Original) -> Any:
    import transformers

    fields = dict(original.text)
    return transformers.CONFIG_MAPPING[fields.pop("model_type")](**fields)
