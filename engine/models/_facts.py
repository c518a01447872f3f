"""What a checkpoint is made of, from its config.json alone: sizes and exact parameter counts.

Pure arithmetic, so that a plan can say what a model takes without loading it. The counts follow the
module lists of transformers 5.19 and are compared with real models in tests/models/test_facts.py.
A config.json leaves out values that equal the defaults of its class: `_DEFAULTS` holds these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]
PARTS = ("vision", "projector", "language")
_LLAMA_KINDS = ("llama", "mistral", "qwen2", "qwen3")

_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
    },
    "qwen2": {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
    "qwen3": {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
    },
    "qwen2_vl": {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
    },
    "qwen3_vl": {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 128000,
    },
    "gemma": {
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
    },
    "gemma2": {
        "vocab_size": 256000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
    },
    "gemma3": {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
    },
    "mllama": {
        "vocab_size": 128256,
        "intermediate_size": 14336,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "cross_attention_layers": (3, 8, 13, 18, 23, 28, 33, 38),
        "max_position_embeddings": 131072,
    },
    "": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
}
_VISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "idefics3": {
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 32,
    },
    "smolvlm": {
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 32,
    },
    "llava_next": {  # the vision config of the class LlavaNextConfig, not of CLIPVisionConfig
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
    "mllama": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_global_layers": 8,
        "attention_heads": 16,
        "image_size": 448,
        "patch_size": 14,
        "max_num_tiles": 4,
        "vision_output_dim": 7680,
        "intermediate_layers_indices": (3, 7, 15, 23, 30),
    },
    "qwen2_vl": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "mlp_ratio": 4,
        "num_heads": 16,
    },
    "qwen3_vl": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": 3584,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": (8, 16, 24),
    },
    "internvl": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": (448, 448),
        "patch_size": (14, 14),
    },
    "gemma3": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "paligemma": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "qwen2_5_vl": {
        "depth": 32,
        "hidden_size": 3584,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
    },
}
_INNER = {  # the decoder of a config that does not name it
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_vl",
    "qwen3_vl": "qwen3_vl",
    "mllama": "mllama",
    "internvl": "qwen2",
    "gemma3": "gemma3",
    "paligemma": "gemma",
}
_TIED_BY_DEFAULT = ("internvl", "gemma3", "paligemma")


class Language(NamedTuple):
    """The decoder."""

    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    vocab: int
    is_tied: bool  # the output layer is the embedding
    context_tokens: int
    num_cross_layers: int = 0  # of the layers, those that attend to the image instead


class Vision(NamedTuple):
    """The image encoder."""

    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    patch_px: int
    tile_px: int  # side of the square that the encoder sees at once; 0: images of any size
    out_width: int  # what the projector reads, for one token of the decoder
    merge: int = 1  # patches along a side that become one token of the decoder
    num_tiles: int = 1  # tiles that one image fills, if it fills a fixed number
    has_gate: bool = False  # a gated MLP of three matrices


class Architecture(NamedTuple):
    """A checkpoint without weights. `counts` are its parameters by part."""

    kind: str  # model_type
    dtype: str  # of the stored weights
    language: Language
    vision: Vision | None
    counts: Mapping[str, int]

    @property
    def num_parameters(self) -> int:
        """Return how many parameters there are in all."""
        return sum(self.counts.values())


def known_kinds() -> tuple[str, ...]:
    """Return every `model_type` that can be read."""
    return (*_LLAMA_KINDS, *_VISION_COUNTS)


def architecture(config: Config) -> Architecture | None:
    """Read a config.json; None for a model type that no formula is written for."""
    kind = str(config.get("model_type", ""))
    if kind not in known_kinds():
        return None
    text = _text(config, kind)
    language = _language(text, config, kind)
    counts = {"language": _count_language(language, text, kind)}
    vision = None
    if kind not in _LLAMA_KINDS:
        seen = _VISION_DEFAULTS[kind] | dict(config.get("vision_config") or {})
        vision = _vision(seen, config, kind)
        counts |= _VISION_COUNTS[kind](vision, language, seen, config)
    dtype = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32"
    return Architecture(kind=kind, dtype=dtype, language=language, vision=vision, counts=counts)


def _text(config: Config, kind: str) -> dict[str, Any]:
    """Return the settings of the decoder, defaults filled in; Qwen2-VL of old wrote them flat."""
    is_flat = kind in _LLAMA_KINDS or kind.startswith("qwen2")
    given = config.get("text_config") or (config if is_flat else {})
    inner = str(given.get("model_type") or _INNER.get(kind, "llama")).removesuffix("_text")
    if kind in ("qwen2_vl", "qwen2_5_vl", "mllama"):
        inner = _INNER[kind]  # whatever it calls itself
    return {"kind": inner, **_DEFAULTS[""], **_DEFAULTS.get(inner, {}), **given}


def _language(text: Config, config: Config, kind: str) -> Language:
    width, num_heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    tied = kind in _TIED_BY_DEFAULT or text.get("tie_word_embeddings", False)
    tied = config.get("tie_word_embeddings", tied)
    crossing = text.get("cross_attention_layers") or ()
    return Language(
        width=width,
        num_layers=int(text["num_hidden_layers"]),
        num_heads=num_heads,
        num_kv_heads=int(text.get("num_key_value_heads") or num_heads),
        head_dim=int(text.get("head_dim") or width // num_heads),
        mlp_width=int(text["intermediate_size"]),
        vocab=int(text["vocab_size"]),
        is_tied=bool(tied) and kind != "mllama",
        context_tokens=int(text["max_position_embeddings"]),
        num_cross_layers=sum(layer < text["num_hidden_layers"] for layer in crossing),
    )


def _vision(seen: Config, config: Config, kind: str) -> Vision:
    if kind.startswith("qwen"):
        is_new = kind != "qwen2_vl"
        width = int(seen["hidden_size" if is_new else "embed_dim"])
        merge = int(seen.get("spatial_merge_size", 2))
        return Vision(
            width=width,
            num_layers=int(seen["depth"]),
            num_heads=int(seen["num_heads"]),
            mlp_width=int(seen["intermediate_size"] if is_new else width * seen["mlp_ratio"]),
            patch_px=int(seen.get("patch_size", 14)),
            tile_px=0,
            out_width=width * merge**2,
            merge=merge,
            has_gate=kind == "qwen2_5_vl",
        )
    is_mllama = kind == "mllama"
    width = int(seen["hidden_size"])
    patch_px, tile_px = _side(seen["patch_size"]), _side(seen["image_size"])
    merge, pools = 1, False
    if kind in ("idefics3", "smolvlm"):
        merge = int(config.get("scale_factor", 2))
    elif kind == "internvl":
        merge = round(1 / float(config.get("downsample_ratio", 0.5)))
    elif kind == "gemma3":  # means of squares of patches
        merge = tile_px // patch_px // math.isqrt(int(config.get("mm_tokens_per_image", 256)))
        pools = True
    return Vision(
        width=width,
        num_layers=int(seen["num_hidden_layers"]) + int(seen.get("num_global_layers", 0)),
        num_heads=int(seen["attention_heads" if is_mllama else "num_attention_heads"]),
        mlp_width=int(seen["intermediate_size"]),
        patch_px=patch_px,
        tile_px=tile_px,
        out_width=int(seen["vision_output_dim"]) if is_mllama else width * (merge**2, 1)[pools],
        merge=merge,
        num_tiles=int(seen["max_num_tiles"]) if is_mllama else 1,
    )


def _side(size: Any) -> int:
    """Return the side of a square that is written as one number or as two."""
    return int(size[0] if isinstance(size, list | tuple) else size)


def _count_language(part: Language, text: Config, kind: str) -> int:
    inner, heads, kv = text["kind"], part.num_heads * part.head_dim, part.num_kv_heads
    width, both = part.width, 2 * kv * part.head_dim
    attention = 2 * width * heads + width * both
    if inner in ("qwen2", "qwen2_vl"):
        attention += heads + both
    elif text.get("attention_bias"):
        attention += heads + both + width
    mlp = 3 * width * part.mlp_width
    mlp += 2 * part.mlp_width + width if text.get("mlp_bias") and inner == "llama" else 0
    qk_norms = 2 * part.head_dim
    layer = attention + mlp + (4 if inner in ("gemma2", "gemma3") else 2) * width
    layer += qk_norms if inner in ("qwen3", "qwen3_vl", "gemma3") else 0
    total = part.num_layers * layer + part.num_cross_layers * (qk_norms + 2)  # two gates each
    embedding = (part.vocab + 8 * (kind == "mllama")) * width
    return total + width + embedding + (0 if part.is_tied else part.vocab * width)


def _encoder_layer(part: Vision, *, has_bias: bool = True) -> int:
    """Count a plain pre-norm block: four square matrices, two of the MLP, two layer norms."""
    width, mlp = part.width, part.mlp_width
    biases = 4 * width if has_bias else 0
    return 4 * width**2 + biases + 2 * width * mlp + mlp + width + 4 * width


def _pixels(part: Vision) -> int:
    return 3 * part.patch_px**2


def _count_idefics3(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    places = (part.tile_px // part.patch_px) ** 2
    vision = part.width * (_pixels(part) + 1 + places + 2) + part.num_layers * _encoder_layer(part)
    return {"vision": vision, "projector": part.out_width * text.width}


def _count_llava_next(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    places = (part.tile_px // part.patch_px) ** 2 + 1
    vision = part.width * (1 + _pixels(part) + places + 4) + part.num_layers * _encoder_layer(part)
    layer = config.get("vision_feature_layer", -2)
    num_read = len(layer) if isinstance(layer, list | tuple) else 1
    bias = 2 * text.width if config.get("multimodal_projector_bias", True) else 0
    projector = part.width * num_read * text.width + text.width**2 + bias + text.width
    return {"vision": vision, "projector": projector}


def _count_qwen2_vl(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    width = part.width
    norms = 2 * width if part.has_gate else 4 * width
    attention = 4 * width**2 + 4 * width
    mlp = 2 * width * part.mlp_width + part.mlp_width + width
    mlp += (width + 1) * part.mlp_width if part.has_gate else 0
    out = int(seen["out_hidden_size" if part.has_gate else "hidden_size"])
    merger = part.out_width**2 + part.out_width + part.out_width * out + out
    return {
        "vision": 2 * _pixels(part) * width + part.num_layers * (norms + attention + mlp),
        "projector": (width if part.has_gate else 2 * width) + merger,
    }


def _count_qwen3_vl(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    width, inner = part.width, part.out_width
    patches = (2 * _pixels(part) + 1 + int(seen["num_position_embeddings"])) * width
    layers = sum(0 <= int(layer) < part.num_layers for layer in seen["deepstack_visual_indexes"])
    merger = inner**2 + inner + (inner + 1) * int(seen["out_hidden_size"])
    return {
        "vision": patches + part.num_layers * _encoder_layer(part),
        "projector": merger + 2 * width + layers * (merger + 2 * inner),  # one for each layer read
    }


def _count_internvl(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    width, places = part.width, (part.tile_px // part.patch_px) ** 2 + 1
    layer = _encoder_layer(part, has_bias=False) + 3 * width  # a bias, and a scale of each branch
    layer += 3 * width if seen.get("attention_bias") else 0
    layer += 2 * width if seen.get("use_qk_norm") else 0
    layer -= 2 * width if seen.get("norm_type") == "rms_norm" else 0
    embeddings = width * (1 + places + _pixels(part) + 1)
    projector = 2 * part.out_width + (part.out_width + 1 + text.width + 1) * text.width
    return {"vision": embeddings + part.num_layers * layer, "projector": projector}


def _count_siglip(part: Vision, seen: Config) -> int:
    width, places = part.width, (part.tile_px // part.patch_px) ** 2
    layer = _encoder_layer(part)
    head = layer - width if seen.get("vision_use_head", True) else 0  # one norm, and a probe
    return width * (_pixels(part) + 1 + places + 2) + part.num_layers * layer + head


def _count_gemma3(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    projector = part.width * text.width + part.width
    return {"vision": _count_siglip(part, seen), "projector": projector}


def _count_paligemma(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    projector = (part.width + 1) * int(config.get("projection_dim", 2048))
    return {"vision": _count_siglip(part, seen), "projector": projector}


def _count_mllama(part: Vision, text: Language, seen: Config, config: Config) -> dict[str, int]:
    width, tiles = part.width, part.num_tiles
    places = (part.tile_px // part.patch_px) ** 2 + 1
    ratios = sum(w * h <= tiles for w in range(1, tiles + 1) for h in range(1, tiles + 1)) + 1
    given = seen.get("supported_aspect_ratios")
    ratios = len(given) + 1 if given else ratios
    embeddings = width * (1 + _pixels(part) + 4 + places)  # class, patches, two norms, places
    tile_embeddings = ratios * tiles * width * (places + 2) + 3  # three gates
    layers = part.num_layers * _encoder_layer(part, has_bias=False)
    gates = 2 * int(seen["num_global_layers"])
    return {
        "vision": embeddings + tile_embeddings + layers + gates,
        "projector": part.out_width * text.width + text.width,
    }


_VISION_COUNTS = {
    "idefics3": _count_idefics3,
    "smolvlm": _count_idefics3,
    "llava_next": _count_llava_next,
    "qwen2_vl": _count_qwen2_vl,
    "qwen2_5_vl": _count_qwen2_vl,
    "qwen3_vl": _count_qwen3_vl,
    "internvl": _count_internvl,
    "gemma3": _count_gemma3,
    "paligemma": _count_paligemma,
    "mllama": _count_mllama,
}
