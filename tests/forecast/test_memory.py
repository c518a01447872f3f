"""The peaks that are printed against the peaks that are; all cases: tests/bench/README.md."""

from __future__ import annotations

import pytest

from engine.forecast import memory
from engine.models import _catalogue, _facts
from tests.bench.memory import Case, outcome

FAST = [
    Case(family="llama", micro_batch=2, width=128, layers=3),
    Case(family="idefics3", checkpointing=True, width=128, layers=3, length=128),
    Case(family="llama", method="lora", width=128, layers=3),
    Case(family="idefics3", work="answer", width=128, layers=3, new_tokens=8),
]


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_a_predicted_peak_is_within_fifteen_percent(case: Case):
    assert outcome(case).error == pytest.approx(0.0, abs=0.15)


def qwen() -> _facts.Architecture:
    found = _facts.architecture(_catalogue.CONFIGS["Qwen/Qwen2-VL-2B-Instruct"])
    assert found is not None
    return found


def test_full_training_keeps_sixteen_bytes_for_each_weight():
    peak = memory.of_training(qwen(), memory.Training(tokens=8, patches=0))

    kept = sum(peak.parts[name] for name in ("weights", "gradients", "optimizer"))
    assert kept == 16 * qwen().num_parameters


def test_frozen_parts_have_no_gradients_and_no_moments():
    job = memory.Training(parts=("projector",), tokens=8)

    assert memory.num_learning(qwen(), job) == qwen().counts["projector"]


def test_adapters_are_counted_as_peft_makes_them():
    import peft
    import transformers

    width = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 80}
    config = {"model_type": "llama", **width, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = _facts.architecture(config)
    assert model is not None
    made = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**config))
    wanted = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    learning = [p for p in peft.get_peft_model(made, wanted).parameters() if p.requires_grad]
    job = memory.Training(lora_rank=4, lora_targets=("q_proj", "down_proj"))

    assert memory.num_learning(model, job) == sum(p.numel() for p in learning)


def test_the_loop_decides_on_half_precision_as_it_does():
    assert memory.trains_in_half(qwen(), "auto", is_gpu=True)
    assert not memory.trains_in_half(qwen(), "auto", is_gpu=False)
    assert not memory.trains_in_half(qwen(), "float32", is_gpu=True)
    assert memory.trains_in_half(qwen(), "bfloat16", is_gpu=False)


def test_the_words_of_a_peak_add_up():
    peak = memory.Peak({"weights": 3e9, "logits": 1e9, "dust": 1e6})

    assert (peak.total, peak.words()) == (4.001e9, "weights 3 + logits 1")
