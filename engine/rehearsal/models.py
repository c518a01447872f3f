"""Stand-in models: the architecture and image geometry of a real one, a few thousand weights.

What decides how many tokens an image takes (its size, patches, tiles, merging) is kept; width,
depth and vocabulary shrink. Context windows stay, so that a prompt that is too long is found.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.models import family_of
from engine.models._known import KnownModel
from engine.rehearsal import tokens

WIDTH, MLP_WIDTH, HEAD_DIM = 32, 64, 32
_SCALE = 0.02
_TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": MLP_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": HEAD_DIM,
    "initializer_range": _SCALE,
}
_SEEN = {
    "hidden_size": WIDTH,
    "intermediate_size": MLP_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
}
_QWEN_SEEN = {"depth": 2, "num_heads": 1}
_VISION: dict[str, dict[str, Any]] = {  # what shrinks in an encoder
    "llava_next": {**_SEEN, "num_hidden_layers": 3, "model_type": "clip_vision_model"},
    "idefics3": _SEEN,
    "smolvlm": _SEEN,
    "internvl": _SEEN,
    "gemma3": _SEEN,
    "paligemma": {**_SEEN, "projection_dim": WIDTH},
    "qwen2_vl": {**_QWEN_SEEN, "embed_dim": WIDTH, "hidden_size": WIDTH},
    "qwen2_5_vl": {
        **_QWEN_SEEN,
        "hidden_size": WIDTH,
        "intermediate_size": MLP_WIDTH,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1],
    },
    "qwen3_vl": {
        **_QWEN_SEEN,
        "hidden_size": WIDTH,
        "intermediate_size": MLP_WIDTH,
        "out_hidden_size": WIDTH,
        "deepstack_visual_indexes": [0],
    },
    "mllama": {
        "hidden_size": WIDTH,
        "intermediate_size": MLP_WIDTH,
        "num_hidden_layers": 1,  # each lets 6,404 places of a picture see one another
        "num_global_layers": 1,
        "attention_heads": 1,
        "intermediate_layers_indices": [0],
        "vision_output_dim": 2 * WIDTH,
    },
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_INNER: dict[str, dict[str, Any]] = {  # what shrinks in a decoder beside `_TEXT`
    "qwen2_vl": {"rope_parameters": {**_ROPE, "mrope_section": [4, 6, 6]}},
    "qwen2_5_vl": {"rope_parameters": {**_ROPE, "mrope_section": [4, 6, 6]}},
    "qwen3_vl": {
        "rope_parameters": {**_ROPE, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    },
    "mllama": {"cross_attention_layers": [1]},
    "gemma3": {"layer_types": None},
}
_KINDS_OF_TEXT = {
    "llava_next": "llama",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "mllama": "mllama_text_model",
    "internvl": "qwen2",
    "idefics3": "llama",
    "smolvlm": "llama",
    "gemma3": "gemma3_text",
    "paligemma": "gemma",
}


def put(known: KnownModel, folder: Path, *, has_template: bool) -> None:
    """Write a stand-in unless it is there, and open it, which imports all that its family needs."""
    from engine.models._loading import open_kit

    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    write(known, part, has_template=has_template)
    try:
        part.rename(folder)
    except OSError:  # it is there: keys name its content, which is the same each time
        shutil.rmtree(part)
    open_kit(str(folder))


def bring(name: str) -> None:
    """Import all that an embedded model needs."""
    from engine import package_data
    from engine.models._loading import open_kit

    kit = open_kit(str(package_data.pocket_model(name.partition("/")[2])))
    assert _model_class(kit.family.auto_class, kit.config)


def _model_class(auto_class: str, config: Any) -> Any:
    """Return the class of a model, which imports it."""
    import transformers

    return getattr(transformers, auto_class)._model_mapping[type(config)]


def write(known: KnownModel, folder: Path, *, has_template: bool, seed: int = 0) -> None:
    """Write a stand-in for a model of which the config is known. Raise StageError for no family."""
    import torch
    import transformers

    family = family_of(known.kind)
    words = tokens.tokenizer(known.kind, has_template=has_template)
    config = transformers.AutoConfig.for_model(**_config(known, words))
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family.auto_class).from_config(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if family.has_vision:
        _PROCESSORS[known.kind](known, folder)


def _config(known: KnownModel, words: Any) -> dict[str, Any]:
    """Return the config of the stand-in."""
    kind, given = known.kind, known.config
    ids = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    # mllama keeps 8 more rows for the image token than its vocabulary has.
    sizes = {**_TEXT, **_INNER.get(kind, {}), "vocab_size": len(words)}
    if kind not in _VISION:
        kept = _kept(given, ("model_type", "max_position_embeddings"))
        return {**kept, **sizes, **ids, "tie_word_embeddings": True}
    seen = {**dict(given.get("vision_config") or {}), **_VISION[kind]}
    text = dict(given.get("text_config") or given)
    inner = str(text.get("model_type") or "")
    inner = inner if "text_config" in given and inner else _KINDS_OF_TEXT[kind]
    limits = _kept(text, ("max_position_embeddings", "sliding_window"))
    marker_ids = {
        name: words.convert_tokens_to_ids(token) for name, token in _IDS.get(kind, {}).items()
    }
    kept = _kept(given, ("scale_factor", "mm_tokens_per_image", "downsample_ratio"))
    kept |= _kept(given, ("image_grid_pinpoints", "image_seq_length"))
    more = {"projection_dim": WIDTH, "hidden_size": WIDTH} if kind == "paligemma" else {}
    return {
        "model_type": kind,
        **kept,
        **more,
        **ids,
        **marker_ids,
        "vision_config": seen,
        "text_config": {**sizes, **limits, **ids, "model_type": inner},
        "tie_word_embeddings": kind not in ("mllama", "llava_next"),
    }


def _kept(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


_QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_IDS = {
    "qwen2_vl": _QWEN_IDS,
    "qwen2_5_vl": _QWEN_IDS,
    "qwen3_vl": _QWEN_IDS,
    "llava_next": {"image_token_index": "<image>"},
    "mllama": {"image_token_index": "<|image|>"},
    "internvl": {"image_token_id": "<IMG_CONTEXT>"},
    "idefics3": {"image_token_id": "<image>"},
    "smolvlm": {"image_token_id": "<image>"},
    "gemma3": {
        "boi_token_index": "<start_of_image>",
        "eoi_token_index": "<end_of_image>",
        "image_token_index": "<image_soft_token>",
    },
    "paligemma": {"image_token_index": "<image>"},
}


def _qwen2_vl(known: KnownModel, folder: Path) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )

    seen = known.config.get("vision_config") or {}
    default = 16 if known.kind == "qwen3_vl" else 14
    bounds = _kept(known.processor, ("min_pixels", "max_pixels", "size"))
    patch_px = int(seen.get("patch_size", default))
    Qwen2VLImageProcessorPil(patch_size=patch_px, merge_size=2, **bounds).save_pretrained(folder)


def _llava_next(known: KnownModel, folder: Path) -> None:
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    seen = known.config["vision_config"]
    side = int(seen["image_size"])
    grids = _kept(known.processor, ("image_grid_pinpoints",))
    LlavaNextImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **grids
    ).save_pretrained(folder)
    _settings(
        folder,
        "LlavaNextProcessor",
        patch_size=int(seen["patch_size"]),
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _mllama(known: KnownModel, folder: Path) -> None:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    seen = known.config["vision_config"]
    side = int(seen["image_size"])
    MllamaImageProcessorPil(
        size={"height": side, "width": side}, max_image_tiles=int(seen["max_num_tiles"])
    ).save_pretrained(folder)
    _settings(folder, "MllamaProcessor")


def _idefics3(known: KnownModel, folder: Path) -> None:
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    make = SmolVLMImageProcessorPil if known.kind == "smolvlm" else Idefics3ImageProcessorPil
    seen = known.config["vision_config"]
    tile = int(seen["image_size"])
    sizes = _kept(known.processor, ("size", "max_image_size", "do_image_splitting"))
    make(**{"size": {"longest_edge": 4 * tile}, "max_image_size": {"longest_edge": tile}, **sizes}
         ).save_pretrained(folder)  # fmt: skip
    merge = int(known.config.get("scale_factor", 2))
    patches = (tile // int(seen["patch_size"])) ** 2
    name = "SmolVLMProcessor" if known.kind == "smolvlm" else "Idefics3Processor"
    _settings(folder, name, image_seq_len=patches // merge**2)


def _internvl(known: KnownModel, folder: Path) -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
    )

    GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True
    ).save_pretrained(folder)
    length = int(known.config.get("image_seq_length", 256))
    _settings(folder, "InternVLProcessor", image_seq_length=length)


def _gemma3(known: KnownModel, folder: Path) -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    side = int(known.config["vision_config"]["image_size"])
    Gemma3ImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    length = int(known.config.get("mm_tokens_per_image", 256))
    _settings(folder, "Gemma3Processor", image_seq_length=length)


def _paligemma(known: KnownModel, folder: Path) -> None:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    seen = known.config["vision_config"]
    side = int(seen["image_size"])
    pictures = SiglipImageProcessorPil(size={"height": side, "width": side})
    pictures.image_seq_length = (side // int(seen["patch_size"])) ** 2
    pictures.save_pretrained(folder)
    _settings(folder, "PaliGemmaProcessor")


_PROCESSORS: dict[str, Callable[[KnownModel, Path], None]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_vl,
    "qwen3_vl": _qwen2_vl,
    "llava_next": _llava_next,
    "mllama": _mllama,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "paligemma": _paligemma,
}


def _settings(folder: Path, processor_class: str, **settings: Any) -> None:
    text = json.dumps({"processor_class": processor_class, **settings})
    (folder / "processor_config.json").write_text(text, encoding="utf-8")
