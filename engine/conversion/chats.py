"""The chat formats of the original LLaVA code as templates; a checkpoint itself holds none.

Llama-3: Open-LLaVA-NeXT trains and asks with two begin-of-text tokens, one of its template and one
of the tokenizer; the template here writes both. Where a text begins with the token, no tokenizer
adds another.

The original code cuts a text at the image and makes tokens of the pieces one by one. To a tokenizer
of the sentencepiece kind each piece begins with a space; in one go only the first does, so that the
newline after an image needs a space of its own to give the same tokens.
"""

from __future__ import annotations

from typing import Any

from engine.models._llava_original import IMAGE_TOKEN

_AFTER_IMAGE = ("\n", " \n")

_PARTS = (
    "{% macro parts(content) %}{% if content is string %}{{ content }}{% else %}"
    "{% for part in content %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endmacro %}"
)
_SYSTEM = (
    "{{% if messages[0]['role'] == 'system' %}}{{% set system = parts(messages[0]['content']) %}}"
    "{{% set turns = messages[1:] %}}{{% else %}}{{% set system = '{text}' %}}"
    "{{% set turns = messages %}}{{% endif %}}"
)

LLAMA_3 = (
    _PARTS
    + _SYSTEM.format(
        text="You are a helpful language and vision assistant. You are able to understand the "
        "visual content that the user provides, and assist the user with a variety of tasks using "
        "natural language."
    )
    + "{{ '<|begin_of_text|><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{ system + '<|eot_id|>' }}{% for turn in turns %}"
    "{{ '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\n\n' }}"
    "{{ parts(turn['content']) + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
VICUNA_1 = (
    _PARTS
    + _SYSTEM.format(
        text="A chat between a curious human and an artificial intelligence assistant. The "
        "assistant gives helpful, detailed, and polite answers to the human\\'s questions."
    )
    + "{{ system + ' ' }}{% for turn in turns %}{% if turn['role'] == 'user' %}"
    "{{ 'USER: ' + parts(turn['content']) + ' ' }}{% else %}"
    "{{ 'ASSISTANT: ' + parts(turn['content']) + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL = (
    _PARTS + "{% for turn in messages %}{% if turn['role'] == 'user' %}"
    "{{ '[INST] ' + parts(turn['content']) + ' [/INST]' }}{% else %}"
    "{{ ' ' + parts(turn['content']) + '</s>' }}{% endif %}{% endfor %}"
)


def template_of(text_kind: str, tokenizer: Any) -> str:
    """Return the template that a checkpoint was trained with, by decoder and special tokens."""
    template = MISTRAL if text_kind == "mistral" else VICUNA_1
    if tokenizer.get_vocab().keys() >= {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}:
        template = LLAMA_3
    shown = "<image>" + _after_image(tokenizer).replace("\n", r"\n")
    return template.replace(r"<image>\n", shown)


def _after_image(tokenizer: Any) -> str:
    """Return what to write after an image to get the tokens of a newline that begins a text."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    wanted = [tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), *ids("\nx")]
    fits = [after for after in _AFTER_IMAGE if ids(f"{IMAGE_TOKEN}{after}x") == wanted]
    return fits[0] if fits else _AFTER_IMAGE[0]
