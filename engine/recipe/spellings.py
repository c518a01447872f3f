"""What people write instead of what the recipe language calls it, for hints; never an alias."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine.diagnostics import nearest
from engine.recipe.peers import DIFFERS, ELSEWHERE, LORA_KIND, NEAR, OURS, QUANTISED

_VALUES: dict[str, str] = {
    "fp32": "float32",
    "float": "float32",
    "bf16": "bfloat16",
    "bf16-mixed": "bfloat16",
    "llm": "language",
    "lm": "language",
    "language_model": "language",
    "text": "language",
    "vit": "vision",
    "vision_tower": "vision",
    "vision_encoder": "vision",
    "vision_model": "vision",
    "visual": "vision",
    "aligner": "projector",
    "connector": "projector",
    "merger": "projector",
    "mm_projector": "projector",
    "multi_modal_projector": "projector",
    "sft": "full",
    "none": "full",
    "adapter": "lora",
    "peft": "lora",
    "shuffle": "random",
    "shuffled": "random",
    "concat": "sequential",
    "constant_with_warmup": "constant",
    "warmup_stable_decay": "constant",
    "cosine_with_restarts": "cosine",
    "cosine_with_min_lr": "cosine",
    "one_stage": "single_stage",
    "single": "single_stage",
    "scratch": "random",
}

_NO_VALUE: dict[str, str] = {
    **dict.fromkeys(("qlora", "q_lora", "4bit", "8bit", "int8", "int4"), QUANTISED),
    **dict.fromkeys(("dora", "rslora", "pissa", "loha", "adalora", "oft", "galore"), LORA_KIND),
    **dict.fromkeys(("fp16", "float16", "half"), "the half precision here is `bfloat16`"),
    "freeze": "`base.train` lists the parts that learn",
}

YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def meant(key: str, known: Sequence[str]) -> str | None:
    """Return the key of this very section, one of `known`, that others call `key`."""
    word = plain_word(key)
    if word in known and word != key:
        return word
    names = [ours for ours, theirs in NEAR.items() if word in theirs.split()]
    leaf = OURS.get(word, "").rpartition(".")[2]
    return next((name for name in (*names, leaf) if name in known), None)


def hint_for_key(
    key: str,
    known: Sequence[str],
    homes: Sequence[str] = (),
    *,
    section: str = "",
    is_recipe: bool = True,
) -> str | None:
    """Return the way out for a key that is not one of `known`, the keys of `section`.

    `homes` are other sections that have a key of this very name.
    """
    word = plain_word(key)
    here, close = meant(key, known), nearest(word, known)
    if here and (here != close or word in OURS):
        return _spelled(key, f"{section}.{here}" if section else here)
    if is_recipe or not close:
        if word in OURS:
            return _spelled(key, OURS[word])
        if word in ELSEWHERE:
            return ELSEWHERE[word]
        if homes and is_recipe:
            return f"`{key}` is a key of {' and '.join(homes)}"
    if close:
        return f"did you mean `{close}`?"
    return "known keys: " + ", ".join(f"`{name}`" for name in sorted(known)) if known else None


def _spelled(key: str, ours: str) -> str:
    differs = DIFFERS.get(plain_word(key))
    return f"`{key}` is spelled `{ours}` here" + (f": {differs}" if differs else "")


def plain_word(key: str) -> str:
    """Return a key as it would be spelled here: `--loraRank`, `lora-rank` -> `lora_rank`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key.lstrip("-"))
    return snake.replace("-", "_").lower()


def hint_for_choice(value: Any, choices: Sequence[str]) -> str | None:
    """Return the way out for a value that is not one of `choices`."""
    word = str(value).lower()
    ours = _VALUES.get(word)
    if ours in choices:
        return f"`{value}` is called `{ours}` here"
    close = nearest(word, choices)
    return _NO_VALUE.get(word) or (f"did you mean `{close}`?" if close else None)


def hint_for_type(types: Sequence[str], value: Any, is_use: bool) -> str | None:
    """Return the way out for a value of another type than one of `types`."""
    if isinstance(value, str):
        if "boolean" in types and value.lower() in YAML_1_1:
            return f"YAML 1.2 reads `{value}` as text; write `{YAML_1_1[value.lower()]}`"
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
