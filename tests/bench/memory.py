"""Peak memory of training and answering: what the plan predicts against what torch allocates.

    python -m tests.bench.memory [--quick]

No GPU is needed: the allocations of torch's CPU allocator are followed one by one, on models of
random weights that are large enough for their tensors to outweigh everything else. The real
training loop and the real collator run; only the pictures are random numbers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measurement."""

    family: str
    work: str = "train"  # or answer
    method: str = "full"  # or lora
    parts: tuple[str, ...] = ("vision", "projector", "language")
    checkpointing: bool = False
    half: bool = False  # bfloat16 autocast, with fused attention as on a GPU
    length: int = 256
    batch: int = 4
    micro_batch: int = 4
    width: int = 256
    layers: int = 6
    vocab: int = 2048
    new_tokens: int = 64

    @property
    def name(self) -> str:
        """Return the case in words."""
        if self.work == "answer":
            return f"{self.family}, answer {self.batch} x {self.length} + {self.new_tokens}"
        notes = [self.family, self.method]
        notes += ["checkpointing"] if self.checkpointing else []
        notes += ["bfloat16"] if self.half else []
        notes += [f"only {'+'.join(self.parts)}"] if len(self.parts) < 3 else []
        return f"{', '.join(notes)}, {self.micro_batch} of {self.batch} x {self.length}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was predicted and measured, in bytes."""

    case: Case
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Return how far the prediction is off, as a share of the measurement."""
        return self.predicted / self.measured - 1


def config_of(case: Case) -> dict[str, Any]:
    """Return a config.json of the case's family and size."""
    heads = case.width // 64
    text = {
        "model_type": "llama",
        "hidden_size": case.width,
        "intermediate_size": 4 * case.width,
        "num_hidden_layers": case.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(heads // 2, 1),
        "vocab_size": case.vocab,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 4096,
    }
    vision = {
        "hidden_size": case.width,
        "intermediate_size": 4 * case.width,
        "num_hidden_layers": case.layers,
        "num_attention_heads": heads,
        "image_size": 128,
        "patch_size": 16,
    }
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "llama": lambda: text,
        "idefics3": lambda: {
            "text_config": text,
            "vision_config": vision,
            "scale_factor": 2,
            "image_token_id": 3,
            "pad_token_id": 0,
        },
        "llava_next": lambda: {
            "text_config": text,
            "vision_config": {"model_type": "clip_vision_model", **vision},
            "image_token_index": 3,
            "image_grid_pinpoints": [[128, 256], [256, 128]],
        },
        "qwen2_vl": lambda: {
            "text_config": {
                **text,
                "model_type": "qwen2_vl_text",
                "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12]},
            },
            "vision_config": {
                "depth": case.layers,
                "embed_dim": case.width,
                "hidden_size": case.width,
                "num_heads": heads,
                "patch_size": 16,
            },
            "image_token_id": 3,
            "video_token_id": 4,
            "vision_start_token_id": 5,
            "vision_end_token_id": 6,
        },
        "mllama": lambda: {
            "text_config": {
                **text,
                "model_type": "mllama_text_model",
                "cross_attention_layers": [1, 3],
            },
            "vision_config": {
                "hidden_size": case.width,
                "intermediate_size": 4 * case.width,
                "num_hidden_layers": case.layers,
                "num_global_layers": 1,
                "attention_heads": heads,
                "image_size": 128,
                "patch_size": 16,
                "max_num_tiles": 4,
                "intermediate_layers_indices": [1, 3],
                "vision_output_dim": 3 * case.width,
            },
            "image_token_index": 3,
        },
    }
    return {"model_type": case.family, **makers[case.family]()}


SIDE_PX = {"idefics3": (128, 128), "llava_next": (256, 128), "qwen2_vl": (256, 256)}


def _model(case: Case) -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**config_of(case))
    kind = "AutoModelForCausalLM" if case.family == "llama" else "AutoModelForImageTextToText"
    torch.manual_seed(0)
    model = getattr(transformers, kind).from_config(config, dtype=torch.float32)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    return model


@dataclass(slots=True)
class _Pictures:
    """Stands where the loop expects an InputMaker: pictures are random numbers."""

    case: Case
    kit: Any

    def image_batch(self, rows: Any) -> dict[str, Any]:
        import torch

        num = len(rows)
        if self.case.family == "idefics3":
            return {"pixel_values": torch.rand(num, 1, 3, 128, 128)}
        if self.case.family == "llava_next":
            sizes = torch.tensor([[128, 256]] * num)
            return {"pixel_values": torch.rand(num, 3, 3, 128, 128), "image_sizes": sizes}
        if self.case.family == "qwen2_vl":
            grid = torch.tensor([[1, 16, 16]] * num)
            return {"pixel_values": torch.rand(num * 256, 3 * 2 * 16 * 16), "image_grid_thw": grid}
        return {}

    def whole_batch(self, texts: Any, rows: Any, side: str) -> dict[str, Any]:
        import torch

        num, length = len(rows), self.case.length
        return {
            "input_ids": None,
            "attention_mask": None,
            "pixel_values": torch.rand(num, 1, 4, 3, 128, 128),
            "aspect_ratio_ids": torch.full((num, 1), 6),
            "aspect_ratio_mask": torch.ones(num, 1, 4, dtype=torch.long),
            "cross_attention_mask": torch.ones(num, length, 1, 4, dtype=torch.long),
        }


def _num_image_tokens(case: Case) -> int:
    from engine.models import _facts, _image_tokens

    model = _facts.architecture(config_of(case))
    assert model is not None
    if model.vision is None:
        return 0
    grids = {"image_grid_pinpoints": [[128, 256], [256, 128]], "do_image_splitting": False}
    return _image_tokens.of_image(model, grids, *SIDE_PX.get(case.family, (256, 256))).tokens


def _row(case: Case, shorter: int = 0) -> Any:
    import numpy as np

    ids = np.full(case.length - shorter, 7, dtype=np.int64)
    num_image = _num_image_tokens(case)
    ids[1 : 1 + num_image] = 3
    return ids


def _kit(case: Case) -> Any:
    from engine import plugin

    family = plugin.load("models", case.family)
    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda _: 3)
    return SimpleNamespace(family=family, pad_id=0, tokenizer=tokenizer, image_marker="<image>")


def _trainer(case: Case, model: Any, scratch: Path) -> Any:
    import numpy as np

    from engine import plugin
    from engine.plan.stage import Machine, Tools
    from engine.recipe.model import TrainSpec
    from engine.training import prepared
    from engine.training.loop import Trainer
    from engine.training.masks import Example
    from tests.training.rows import SETTINGS

    kit = _kit(case)
    digests = ("x",) if case.family != "llama" else ()
    rows = [
        Example(ids, np.ones(len(ids), dtype=bool), digests, "")
        for ids in (_row(case, shorter=number % 3) for number in range(2 * case.batch))
    ]
    training = plugin.bind(
        TrainSpec,
        {
            **SETTINGS,
            "global_batch_size": case.batch,
            "per_device_train_batch_size": case.micro_batch,
            "gradient_checkpointing": case.checkpointing,
            "precision": "bfloat16" if case.half else "float32",
            "max_steps": 2,
            "max_length": case.length,
            "save_steps": 1000,
        },
    )
    examples = prepared.Examples([prepared.write(scratch, 0, rows, (), len(rows))])
    tools = Tools(
        seed=0,
        scratch=scratch,
        prompts={},
        machine=Machine(num_threads=2),
        locate=Path,
        locate_model=str,
        log=lambda _: None,
        progress=lambda *_: None,
    )
    return Trainer(
        model, kit.family, _Pictures(case, kit), examples, prepared.Examples(()), training, tools
    )


def _ready(case: Case, model: Any) -> Any:
    from engine.recipe.model import LoraSpec
    from engine.training import parts

    family = _kit(case).family
    if case.method == "lora":
        lora = LoraSpec(rank=16, alpha=32, dropout=0.0, targets=("all-linear",))
        return parts.with_lora(model, family, case.parts, lora, 0)
    parts.freeze(model, family, case.parts)
    return model


def allocated(work: Callable[[], object]) -> int:
    """Run work; return the most bytes that were allocated at once beyond those at its start."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    found = watched.profiler.kineto_results.events()
    memory = sorted((e.start_ns(), e.nbytes()) for e in found if e.name() == "[memory]")
    now = peak = 0
    for _, size in memory:
        now += size
        peak = max(peak, now)
    return peak


def _held(model: Any) -> int:
    tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())


def measured(case: Case) -> float:
    """Return the peak in bytes."""
    model = _model(case)
    if case.work == "answer":
        return _held(model) + allocated(lambda: _answer(case, model.eval()))
    model = _ready(case, model)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(case, model, Path(scratch))
        if case.half:  # the loop turns fused attention off on CPUs, where it is slow
            model.set_attn_implementation = lambda _: None
        return _held(model) + allocated(trainer.run)


def _answer(case: Case, model: Any) -> None:
    import torch
    from transformers import GenerationConfig

    ids = torch.from_numpy(_row(case)).repeat(case.batch, 1)
    pictures = _Pictures(case, None)
    images = pictures.image_batch(ids)
    if case.family == "mllama":
        images = pictures.whole_batch([], ids, "left")
        images = {name: one for name, one in images.items() if one is not None}
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images}
    if case.family == "qwen2_vl":
        batch["mm_token_type_ids"] = (ids == 3).long()
    config = GenerationConfig(
        max_new_tokens=case.new_tokens, min_new_tokens=case.new_tokens, do_sample=False
    )
    with torch.inference_mode():
        model.generate(**batch, generation_config=config)


def predicted(case: Case) -> float:
    """Return the peak in bytes that the plan would print."""
    from engine.forecast import memory
    from engine.models import _facts, _image_tokens

    model = _facts.architecture(config_of(case))
    assert model is not None
    grids = {"image_grid_pinpoints": [[128, 256], [256, 128]], "do_image_splitting": False}
    shown = _image_tokens.of_image(model, grids, *SIDE_PX.get(case.family, (256, 256)))
    if case.work == "answer":
        asked = memory.Answering(
            bytes_per_weight=4,
            batch=case.batch,
            prompt_tokens=case.length,
            new_tokens=case.new_tokens,
            patches=shown.patches,
        )
        return memory.of_answering(model, asked).total
    job = memory.Training(
        parts=case.parts,
        lora_rank=16 if case.method == "lora" else 0,
        has_checkpoints=case.checkpointing,
        is_half=case.half,
        micro_batch=case.micro_batch,
        accumulates=case.micro_batch < case.batch,
        tokens=case.length,
        patches=shown.patches,
    )
    return memory.of_training(model, job).total


def outcome(case: Case) -> Outcome:
    """Predict and measure one case."""
    return Outcome(case, predicted(case), measured(case))


FAMILIES = ("llama", "idefics3", "llava_next", "qwen2_vl", "mllama")


def cases() -> list[Case]:
    """Return the cases of the published table."""
    found = []
    for family in FAMILIES:
        one = Case(family=family)
        found += [
            one,
            replace(one, checkpointing=True),
            replace(one, micro_batch=1),
            replace(one, length=512, batch=2, micro_batch=2),
            replace(one, vocab=16384),
            replace(one, width=512, layers=4),
            replace(one, half=True),
            replace(one, half=True, checkpointing=True),
            replace(one, half=True, vocab=16384, micro_batch=1),
            replace(one, method="lora"),
            replace(one, method="lora", checkpointing=True),
            replace(one, work="answer"),
            replace(one, work="answer", batch=8, length=512),
        ]
        if family != "llama":
            found.append(replace(one, parts=("projector", "language")))
    return found


def table(outcomes: list[Outcome]) -> str:
    """Return the rows of a Markdown table."""
    lines = ["| case | predicted MB | measured MB | error |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {one.case.name}{_size(one.case)} | {one.predicted / MB:.1f} | "
        f"{one.measured / MB:.1f} | {one.error:+.1%} |"
        for one in outcomes
    ]
    return "\n".join(lines)


def _size(case: Case) -> str:
    plain = Case(family=case.family)
    notes = [f"width {case.width}"] if case.width != plain.width else []
    notes += [f"vocabulary {case.vocab}"] if case.vocab != plain.vocab else []
    return f", {', '.join(notes)}" if notes else ""


def main() -> int:
    """Print the table; return 1 if a prediction is off by more than 15 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES)
    args = parser.parse_args()
    chosen = [case for case in cases() if args.family in (None, case.family)]
    outcomes = [outcome(case) for case in chosen]
    print(table(outcomes))
    errors = sorted(abs(one.error) for one in outcomes)
    print(f"\nmedian error {errors[len(errors) // 2]:.1%}, largest {errors[-1]:.1%}")
    return int(errors[-1] > 0.15)


if __name__ == "__main__":
    sys.exit(main())
