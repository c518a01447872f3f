"""LoRA adapters of tiny models: filled with noise, or with the zeros that training begins with."""

from __future__ import annotations

from pathlib import Path

from engine import images
from engine.pocket import shapes

CHOICES = ("a", "b", "c")
QUESTION = "What is shown?"


def picture() -> bytes:
    """Return the picture that the question is about."""
    return images.encode_png(shapes.draw(shapes.scene(78, "flows", 0)))


def scores(base: Path, adapter: Path | None) -> list[float]:
    """Return what transformers and peft say of the choices after the question."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    processor = AutoProcessor.from_pretrained(base)
    text = f"<|user|><image>{QUESTION}<|end|><|assistant|>"
    shown = [[images.decode(picture())]]
    batch = processor(text=[text], images=shown, return_tensors="pt")
    with torch.inference_mode():
        row = torch.log_softmax(model(**batch).logits[0, -1], dim=-1)
    return [float(row[i]) for i in processor.tokenizer.convert_tokens_to_ids(list(CHOICES))]


def write(base: Path, folder: Path, targets: str, *, scale: float) -> Path:
    """Write an adapter on the modules that a regular expression names; scale 0: B is all zeros."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise * scale)
    tuned.save_pretrained(folder)
    return folder
