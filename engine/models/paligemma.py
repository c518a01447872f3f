"""PaliGemma 1 and 2 (Beyer et al. 2024, Steiner et al. 2024): a prompt sees itself whole.

Released without a chat template: images, begin-of-text, the prompt, a newline, then the answer.
What comes before the first trained token is a prompt in training; all of it when it answers.
"""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("paligemma",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    marks_answer="token_type_ids",
    added_by_processor="<bos>\n",
    chat_template=(
        "{% for m in messages %}{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<image>{% endif %}{% endfor %}{% endfor %}<bos>"
        "{% for m in messages %}{% for p in m['content'] %}"
        "{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}"
        "{{ '\n' if m['role'] == 'user' else '<eos>' }}{% endfor %}"
    ),
    stored_prefixes={
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
    },
    not_in_vllm="vLLM lets the words of a prompt see only those before them",
)
