"""Tokenizers and chat formats of stand-in models: the families' own markers, few merges.

The formats are those of the released checkpoints as their documentation shows them, written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from engine import package_data

# Texts take about as many tokens as with a real vocabulary, not four times as many.
NUM_MERGES = 1200


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """The markers of a family's chats; texts and images come between `before` and `after`."""

    before: str  # with {role}
    after: str
    image: str  # what the template writes for one
    eos: str
    bos: str = ""
    pad: str = ""
    special: tuple[str, ...] = ()
    roles: tuple[str, str] = ("user", "assistant")
    system: str = ""  # what stands before the first turn

    def template(self) -> str:
        """Return the Jinja text."""
        user, assistant = self.roles
        role = (
            f"{{{{ '{assistant}' if m['role'] == 'assistant' else '{user}' "
            "if m['role'] == 'user' else m['role'] }}"
        )
        before = self.before.replace("{role}", role)
        opening = self.before.replace("{role}", assistant)
        return (
            f"{self.bos}{self.system}{{% for m in messages %}}{before}"
            "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
            "{% for p in m['content'] %}{% if p['type'] == 'image' %}"
            f"{self.image}{{% else %}}{{{{ p['text'] }}}}{{% endif %}}{{% endfor %}}"
            f"{{% endif %}}{self.after}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{opening}{{% endif %}}"
        )


_CHATML: dict[str, Any] = {
    "before": "<|im_start|>{role}\n",
    "after": "<|im_end|>\n",
    "eos": "<|im_end|>",
    "pad": "<|endoftext|>",
    "system": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
}
_LLAMA_3: dict[str, Any] = {
    "before": "<|start_header_id|>{role}<|end_header_id|>\n\n",
    "after": "<|eot_id|>",
    "eos": "<|eot_id|>",
    "bos": "<|begin_of_text|>",
    "pad": "<|finetune_right_pad_id|>",
}
_HEADERS = ("<|im_start|>",)
_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_LLAMA_3_SPECIAL = ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
_QWEN = ChatStyle(
    **_CHATML,
    image="<|vision_start|><|image_pad|><|vision_end|>",
    special=(*_HEADERS, *_VISION),
)
_ROWS = tuple(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7))
_IDEFICS3 = ChatStyle(
    before="<|im_start|>{role}:",
    after="<end_of_utterance>\n",
    image="<image>",
    eos="<end_of_utterance>",
    pad="<|endoftext|>",
    roles=("User", "Assistant"),
    special=(
        *_HEADERS,
        *("<image>", "<fake_token_around_image>", "<global-img>", "<video>"),
        *_ROWS,
    ),
)
STYLES = {
    "llama": ChatStyle(**_LLAMA_3, image="", special=_LLAMA_3_SPECIAL),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "llava_next": ChatStyle(**_LLAMA_3, image="<image>\n", special=(*_LLAMA_3_SPECIAL, "<image>")),
    "mllama": ChatStyle(
        **_LLAMA_3, image="<|image|>", special=(*_LLAMA_3_SPECIAL, "<|image|>", "<|python_tag|>")
    ),
    "internvl": ChatStyle(
        **_CHATML,
        image="<IMG_CONTEXT>\n",
        special=(*_HEADERS, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    ),
    "idefics3": _IDEFICS3,
    "smolvlm": _IDEFICS3,
    "gemma3": ChatStyle(
        before="<start_of_turn>{role}\n",
        after="<end_of_turn>\n",
        image="<start_of_image>",
        eos="<end_of_turn>",
        bos="<bos>",
        pad="<pad>",
        roles=("user", "model"),
        special=("<start_of_turn>", "<start_of_image>", "<image_soft_token>", "<end_of_image>"),
    ),
    "paligemma": ChatStyle(
        before="", after="", image="", eos="<eos>", bos="<bos>", pad="<pad>", special=("<image>",)
    ),
}
NAMED_TOKENS = {  # tokens that a processor asks its tokenizer for by name
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "gemma3": {
        "boi_token": "<start_of_image>",
        "image_token": "<image_soft_token>",
        "eoi_token": "<end_of_image>",
    },
    "llava_next": {"image_token": "<image>"},
}


def style_of(kind: str) -> ChatStyle:
    """Return the chat format of a family; text models have the one of Llama 3."""
    return STYLES.get(kind, STYLES["llama"])


def tokenizer(kind: str, *, has_template: bool) -> Any:
    """Return a tokenizer with the special tokens of a family."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    style = style_of(kind)
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_core().to_str()),
        eos_token=style.eos,
        pad_token=style.pad or style.eos,
        **({"bos_token": style.bos} if style.bos else {}),
        clean_up_tokenization_spaces=False,
    )
    more = [*style.special]
    made.add_special_tokens({"additional_special_tokens": more}, replace_extra_special_tokens=False)
    for role, token in NAMED_TOKENS.get(kind, {}).items():
        made._special_tokens_map[role] = token
        made.init_kwargs[role] = token
    if has_template and style.before:
        made.chat_template = style.template()
    return made


@cache
def _core() -> Any:
    """Return a byte-level BPE that was trained on the prompt templates: the same every time."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = [p.read_text("utf-8") for p in _texts()]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + NUM_MERGES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return core


def _texts() -> list[Any]:
    prompts = package_data.folder("prompt_templates").rglob("*.j2")
    return sorted([*prompts, *package_data.folder("recipes").rglob("*.yaml")])
