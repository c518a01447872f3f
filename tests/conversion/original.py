"""The original LLaVA-NeXT, written anew from its description: a checkpoint, and its forward pass.

Liu et al. 2024: an image is shown whole, and cut into tiles of the grid that wastes least of it;
patches of the layer before the last pass the projector; those of the tiles are laid side by side,
rid of what was padding, and each of their rows ends with a learnt newline. All of it stands in the
text where the image stood.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tests.models import tiny

SIDE, PATCH, WIDTH = 32, 8, 32
GRIDS = [(32, 64), (64, 32), (64, 64), (96, 32)]  # (width, height)
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
TOWER = "clip-vit-tiny-patch8-32"
LLAMA_3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)


def tower(folder: Path, kind: str = "bin", side: int = SIDE) -> Path:
    """Write a random CLIP, text part and all, as openai's are on the hub."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 1,
        "image_size": side,
        "patch_size": PATCH,
        "initializer_range": 0.2,
    }
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    config = CLIPConfig(
        vision_config=vision, text_config={**text, "num_attention_heads": 1}, projection_dim=16
    )
    torch.manual_seed(1)
    model = CLIPModel(config)
    randomized(model)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    weights = dict(model.state_dict())
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save(folder, weights, kind)
    settings = {"crop_size": side, "size": side, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def checkpoint(
    folder: Path,
    vision: Path | None = None,
    kind: str = "safetensors",
    special: tuple[str, ...] = LLAMA_3,
    **changes: Any,
) -> Path:
    """Write a random decoder, projector and newline; also a tuned copy of the tower, if given."""
    import torch
    from transformers import CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    words = words_of(special)
    text = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": len(words),
        "max_position_embeddings": 2048,
        "rope_theta": 500000.0,
        "bos_token_id": words.bos_token_id or 0,
        "eos_token_id": words.eos_token_id,
        "initializer_range": 0.2,
        "rms_norm_eps": 1e-5,
    }
    torch.manual_seed(2)
    decoder = LlamaForCausalLM(LlamaConfig(**text))
    randomized(decoder)
    weights = dict(decoder.state_dict())
    for number, (rows, columns) in {0: (64, WIDTH), 2: (64, 64)}.items():
        weights[f"model.mm_projector.{number}.weight"] = 0.3 * torch.randn(rows, columns)
        weights[f"model.mm_projector.{number}.bias"] = 0.3 * torch.randn(rows)
    weights["model.image_newline"] = torch.randn(64)
    if vision is not None:
        tuned = CLIPVisionModel.from_pretrained(vision)
        randomized(tuned, seed=3)
        for name, value in tuned.state_dict().items():
            weights[f"model.vision_tower.vision_tower.vision_model.{name}"] = value
    folder.mkdir(parents=True)
    save(folder, weights, kind)
    config = {
        "_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct",
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        **text,
        "torch_dtype": "float32",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": GRIDS,
        "mm_hidden_size": WIDTH,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"openai/{TOWER}",
        "tokenizer_model_max_length": 6144,
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": True,
        "use_mm_proj": True,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    words.save_pretrained(folder)
    return folder


def words_of(special: tuple[str, ...] = LLAMA_3) -> Any:
    """Return a tokenizer of bytes and special tokens, none of them for images."""
    words = tiny.tokenizer(special, template=None)
    if "</s>" in special:
        return pieces_of(special)
    if "<|begin_of_text|>" in special:
        words.bos_token, words.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    return words


def pieces_of(special: tuple[str, ...]) -> Any:
    """Return a tokenizer of the sentencepiece kind, as Vicuna's: a space begins every text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["\u2581", *map(chr, range(33, 127))]
    held = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    core = Tokenizer(
        models.BPE({token: number for number, token in enumerate(held)}, [], byte_fallback=True)
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    core.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def randomized(model: Any, seed: int = 0) -> None:
    """Give biases and norms other values than 0 and 1: a lost one must change the result."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim <= 1:
                value += 0.2 * torch.randn_like(value)


def save(folder: Path, weights: dict[str, Any], kind: str) -> None:
    """Write weights in two shards with an index, or in one file of pickles."""
    import torch
    from safetensors.torch import save_file

    kept = {name: value.detach().clone().contiguous() for name, value in weights.items()}
    if kind == "bin":
        torch.save(kept, folder / "pytorch_model.bin")
        return
    names = list(kept)
    shards = {"model-00001-of-00002": names[::2], "model-00002-of-00002": names[1::2]}
    ending = "safetensors" if kind == "safetensors" else "bin"
    weight_map = {}
    for stem, chosen in shards.items():
        shard = {name: kept[name] for name in chosen}
        if ending == "bin":
            torch.save(shard, folder / f"{stem}.bin")
        else:
            save_file(shard, folder / f"{stem}.safetensors", metadata={"format": "pt"})
        weight_map |= dict.fromkeys(chosen, f"{stem}.{ending}")
    base = "model.safetensors" if ending == "safetensors" else "pytorch_model.bin"
    (folder / f"{base}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def rewrite(folder: Path, change: Any, **settings: Any) -> None:
    """Change the weights and the config of a checkpoint."""
    weights = load(folder)
    change(weights)
    for path in folder.glob("model*"):
        path.unlink()
    save(folder, weights, "safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


class Reference:
    """The original model on the weights of a checkpoint."""

    def __init__(self, folder: Path, tower: Path) -> None:
        import torch
        from transformers import AutoTokenizer, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

        self.config = json.loads((folder / "config.json").read_text())
        weights = load(folder)
        text = {k: v for k, v in self.config.items() if k in LlamaConfig().to_dict()}
        text |= {"rope_theta": self.config["rope_theta"], "model_type": "llama"}
        self.decoder = LlamaForCausalLM(LlamaConfig(**text)).eval()
        self.decoder.load_state_dict(
            {k: v for k, v in weights.items() if k in self.decoder.state_dict()}
        )
        self.tower = CLIPVisionModel.from_pretrained(tower).eval()
        prefix = "model.vision_tower.vision_tower.vision_model."
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if own:
            self.tower.load_state_dict(own)
        self.weights = weights
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.mean = torch.tensor(MEAN)[:, None, None]
        self.std = torch.tensor(STD)[:, None, None]

    def logits(self, before: str, image: Any, after: str) -> Any:
        """Return the logits over a text with an image in it."""
        import torch

        with torch.no_grad():
            parts = [self.embedded(before), self.image_features(image), self.embedded(after)]
            return self.decoder(inputs_embeds=torch.cat(parts)[None]).logits[0]

    def embedded(self, text: str) -> Any:
        import torch

        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.decoder.model.embed_tokens(torch.tensor(ids, dtype=torch.long))

    def image_features(self, image: Any) -> Any:
        """Return what the decoder sees of an image: the whole, then the tiles row by row."""
        import torch

        grid = best_grid(image.size, GRIDS)
        seen = self.tower(self.tiles(image, grid), output_hidden_states=True)
        patches = self.projected(seen.hidden_states[-2][:, 1:])
        rows = whole(patches[1:], grid)
        rows = unpadded(rows, image.size)
        newline = self.weights["model.image_newline"].expand(rows.shape[0], 1, -1)
        return torch.cat([patches[0], torch.cat([rows, newline], dim=1).flatten(0, 1)])

    def projected(self, patches: Any) -> Any:
        import torch

        layer = {n: self.weights[f"model.mm_projector.{n}"] for n in ("0.weight", "0.bias")}
        last = {n: self.weights[f"model.mm_projector.{n}"] for n in ("2.weight", "2.bias")}
        hidden = torch.nn.functional.gelu(patches @ layer["0.weight"].T + layer["0.bias"])
        return hidden @ last["2.weight"].T + last["2.bias"]

    def tiles(self, image: Any, grid: tuple[int, int]) -> Any:
        """Return the pixels of the image as one tile, and of its tiles."""
        import torch
        from PIL import Image

        width, height = shrunk(image.size, grid)
        canvas = Image.new("RGB", grid)
        corner = ((grid[0] - width) // 2, (grid[1] - height) // 2)
        canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), corner)
        cut = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)]
        for top in range(0, grid[1], SIDE):
            for left in range(0, grid[0], SIDE):
                cut.append(canvas.crop((left, top, left + SIDE, top + SIDE)))
        return torch.stack([self.pixels(tile) for tile in cut])

    def pixels(self, tile: Any) -> Any:
        import torch

        raw = torch.frombuffer(bytearray(tile.tobytes()), dtype=torch.uint8)
        values = raw.view(SIDE, SIDE, 3).permute(2, 0, 1).float() / 255
        return (values - self.mean) / self.std


def load(folder: Path) -> dict[str, Any]:
    """Return all tensors of a folder."""
    import torch
    from safetensors.torch import load_file

    weights: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            weights |= load_file(path)
        elif path.suffix == ".bin":
            weights |= torch.load(path, weights_only=True)
    return weights


def best_grid(size: tuple[int, int], grids: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the grid that shows most pixels of an image; of equal ones the least wasteful."""
    shown = []
    for width, height in grids:
        scale = min(width / size[0], height / size[1])
        pixels = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        shown.append((pixels, pixels - width * height))
    return grids[shown.index(max(shown))]


def shrunk(size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image inside a grid."""
    scales = grid[0] / size[0], grid[1] / size[1]
    if scales[0] < scales[1]:
        return grid[0], min(math.ceil(size[1] * scales[0]), grid[1])
    return min(math.ceil(size[0] * scales[1]), grid[0]), grid[1]


def whole(tiles: Any, grid: tuple[int, int]) -> Any:
    """Lay the patches of tiles side by side: height x width x features."""
    across, down, side = grid[0] // SIDE, grid[1] // SIDE, SIDE // PATCH
    laid = tiles.view(down, across, side, side, -1).permute(0, 2, 1, 3, 4)
    return laid.reshape(down * side, across * side, -1)


def unpadded(rows: Any, size: tuple[int, int]) -> Any:
    """Cut away the patches that show padding alone, as many on either side."""
    height, width = rows.shape[:2]
    if size[0] / size[1] > width / height:
        extra = (height - int(size[1] * (width / size[0]))) // 2
        return rows[extra : height - extra]
    extra = (width - int(size[0] * (height / size[1]))) // 2
    return rows[:, extra : width - extra]
