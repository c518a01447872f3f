"""What people write instead of what the recipe language calls it, for hints; never an alias.

The spellings are those of LLaMA-Factory, Axolotl, ms-swift, Oumi, TRL and NeMo Automodel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine.diagnostics import nearest

OURS = {
    "model": "base.model",
    "model_name_or_path": "base.model",
    "pretrained_model_name_or_path": "base.model",
    "base_model": "base.model",
    "model_name": "base.model",
    "model_revision": "base.revision",
    "revision_of_model": "base.revision",
    "finetuning_type": "base.method",
    "adapter": "base.method",
    "tuner_type": "base.method",
    "train_type": "base.method",
    "use_peft": "base.method",
    "lora_rank": "base.lora.rank",
    "lora_r": "base.lora.rank",
    "r": "base.lora.rank",
    "lora_alpha": "base.lora.alpha",
    "lora_dropout": "base.lora.dropout",
    "lora_target": "base.lora.targets",
    "lora_target_modules": "base.lora.targets",
    "target_modules": "base.lora.targets",
    "exclude_modules": "base.lora.targets",
    "peft": "base.lora",
    "peft_config": "base.lora",
    "q_lora": "base.method",
    "full_finetuning": "base.method",
    "freeze_vision_tower": "base.train",
    "freeze_multi_modal_projector": "base.train",
    "freeze_language_model": "base.train",
    "freeze_mm_modules": "base.train",
    "freeze_vit": "base.train",
    "freeze_aligner": "base.train",
    "freeze_llm": "base.train",
    "freeze_layers": "base.train",
    "freeze_config": "base.train",
    "unfrozen_parameters": "base.train",
    "lr": "training.learning_rate",
    "vision_lr": "training.vision_learning_rate",
    "vit_lr": "training.vision_learning_rate",
    "micro_batch_size": "training.per_device_train_batch_size",
    "local_batch_size": "training.per_device_train_batch_size",
    "batch_size": "training.global_batch_size",
    "train_batch_size": "training.global_batch_size",
    "per_gpu_train_batch_size": "training.per_device_train_batch_size",
    "num_epochs": "training.num_train_epochs",
    "epochs": "training.num_train_epochs",
    "cutoff_len": "training.max_length",
    "sequence_len": "training.max_length",
    "model_max_length": "training.max_length",
    "max_seq_length": "training.max_length",
    "max_seq_len": "training.max_length",
    "seq_length": "training.max_length",
    "lr_scheduler": "training.lr_scheduler_type",
    "warmup_steps": "training.warmup_ratio",
    "gradient_clipping": "training.max_grad_norm",
    "bf16": "training.precision",
    "fp16": "training.precision",
    "dataset": "source",
    "datasets": "source",
    "data": "source",
    "mix_strategy": "mix.order",
    "interleave_probs": "mix.parts",
    "interleave_prob": "mix.parts",
    "mixture_proportion": "mix.parts",
    "mixture_strategy": "mix.order",
    "eval_dataset": "benchmarks",
    "evaluation": "benchmarks",
}

_MACHINE = "it is a fact of the machine, not of the experiment"
_PIXELS = "images are sized by the processor that comes with the model; there is no key for it"
_PACKING = "rows are not packed; there is no key for it"
_QUANTISED = "weights are not quantised in training; `base.method: lora` needs the least memory"
_HELD_OUT = "score on pairs held out from training: `benchmarks: {domain: [holdout]}`"
_OPTIMIZER = "it is AdamW: `adam_beta1`, `adam_beta2` and `weight_decay` of `training`"

_ELSEWHERE = {
    "gradient_accumulation_steps": "it follows from `global_batch_size` and the devices",
    "stage": "a run goes through all stages; what it does follows from the recipe",
    "do_train": "a run goes through all stages; what it does follows from the recipe",
    "do_eval": "a run goes through all stages; what it does follows from the recipe",
    "optim": _OPTIMIZER,
    "optimizer": _OPTIMIZER,
    "image_max_pixels": _PIXELS,
    "image_min_pixels": _PIXELS,
    "max_pixels": _PIXELS,
    "min_pixels": _PIXELS,
    "image_size": _PIXELS,
    "processor_kwargs": _PIXELS,
    "packing": _PACKING,
    "neat_packing": _PACKING,
    "sample_packing": _PACKING,
    "pack": _PACKING,
    "packed_sequence": _PACKING,
    "packing_length": _PACKING,
    "load_in_4bit": _QUANTISED,
    "load_in_8bit": _QUANTISED,
    "quantization_bit": _QUANTISED,
    "val_size": _HELD_OUT,
    "eval_size": _HELD_OUT,
    "test_size": _HELD_OUT,
    "flash_attn": _MACHINE,
    "flash_attention": _MACHINE,
    "attn_implementation": _MACHINE,
    "fsdp": _MACHINE,
    "ddp_timeout": _MACHINE,
    "num_gpus": _MACHINE,
    "num_workers": _MACHINE,
    "executor": "it is a fact of the machine: `--executor` or ADAPT_EXECUTOR",
    "wandb": _MACHINE,
    "wandb_project": _MACHINE,
    "wandb_entity": _MACHINE,
    "use_wandb": _MACHINE,
    "enable_wandb": _MACHINE,
    "push_to_hub": _MACHINE,
    "template": "the chat template comes with the model",
    "chat_template_path": "the chat template comes with the model",
    "chat_template": "the chat template comes with the model",
    "output_dir": "results go to the store: `--store` or ADAPT_STORE",
    "checkpoint_dir": "results go to the store: `--store` or ADAPT_STORE",
    "store": "it is a fact of the machine: `--store` or ADAPT_STORE",
    "report_to": _MACHINE,
    "deepspeed": _MACHINE,
    "dataloader_num_workers": _MACHINE,
    "defaults": "a recipe has one parent, named with `extends`",
    "base_recipe": "a recipe has one parent, named with `extends`",
    "type": "a plug-in is chosen with `use`",
    "_target_": "a plug-in is chosen with `use`",
}

_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def hint_for_key(
    key: str, known: Sequence[str], homes: Sequence[str] = (), *, in_plugin: bool = False
) -> str | None:
    """Return the way out for a key that is not one of `known`; `homes` are sections with it."""
    ours = OURS.get(key)
    if ours and not (in_plugin and nearest(key, known)):
        return f"`{key}` is spelled `{ours}` here"
    if key in _ELSEWHERE and not (in_plugin and nearest(key, known)):
        return _ELSEWHERE[key]
    if homes and not in_plugin:
        return f"`{key}` is a key of {' and '.join(homes)}"
    close = nearest(key, known)
    if close:
        return f"did you mean `{close}`?"
    return "known keys: " + ", ".join(f"`{name}`" for name in sorted(known)) if known else None


def hint_for_type(types: Sequence[str], value: Any, is_use: bool) -> str | None:
    """Return the way out for a value of another type than one of `types`."""
    if isinstance(value, str):
        if "boolean" in types and value.lower() in _YAML_1_1:
            return f"YAML 1.2 reads `{value}` as text; write `{_YAML_1_1[value.lower()]}`"
        if is_use:
            return f"write {{use: {value}}}"
        if "number" in types or "integer" in types:
            return _hint_for_number(value)
    if "object" in types and isinstance(value, str) and re.match(r"\w+:\S", value):
        return f"write a space after the colon: `{value.replace(':', ': ', 1)}`"
    if value is None and "null" not in types:
        return "give it a value, or remove the key"
    if types == ["string"] and isinstance(value, list) and len(value) == 1:
        return f"write one value and no list: {value[0]}"
    if "array" in types and not isinstance(value, dict | list):
        return f"write a list: [{value if value is not None else ''}]"
    if types == ["string"] and isinstance(value, int | float):
        return f'quote it to make it a text: "{value}"'
    return None


def _hint_for_number(text: str) -> str | None:
    try:
        float(text.replace("_", "").replace(",", "."))
    except ValueError:
        return None
    return "write a plain number: no quotes, no `_`, a point and not a comma"
