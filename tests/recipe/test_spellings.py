"""Other tools' names for keys and values are answered with ours, which exist."""

from __future__ import annotations

from typing import Any

import pytest

from engine import plugin
from engine.recipe import params, peers, schema, spellings
from engine.recipe.source import places, read
from engine.recipe.subject import Subject

# The table of names in LLaMA-Factory, Axolotl, ms-swift, Oumi, TRL and NeMo Automodel.
TABLE = {
    "base.model": "model_name_or_path base_model model model_name pretrained_model_name_or_path",
    "base.revision": "model_revision revision_of_model",
    "base.method": "finetuning_type adapter tuner_type train_type use_peft q_lora",
    "base.lora": "peft",
    "base.lora.rank": "lora_rank lora_r dim",
    "base.lora.alpha": "lora_alpha alpha",
    "base.lora.dropout": "lora_dropout",
    "base.lora.targets": "lora_target lora_target_modules target_modules exclude_modules",
    "training.learning_rate": "lr",
    "training.per_device_train_batch_size": "micro_batch_size "
    "local_batch_size per_gpu_train_batch_size",
    "training.num_train_epochs": "num_epochs",
    "training.max_length": "cutoff_len sequence_len model_max_length max_seq_len max_seq_length",
    "base.train": "freeze_vision_tower freeze_multi_modal_projector freeze_language_model "
    "freeze_mm_modules unfrozen_parameters freeze_vit freeze_aligner freeze_llm freeze_layers "
    "freeze_config",
    "mix.order": "mix_strategy mixture_strategy",
    "mix.parts": "interleave_probs interleave_prob mixture_proportion",
}
LIVES = {
    "not quantised": "load_in_4bit quantization_bit",
    "the devices": "gradient_accumulation_steps",
    "chat template": "template chat_template chat_template_path processor_kwargs",
    "the processor": "image_max_pixels image_size max_pixels",
    "not packed": "neat_packing sample_packing packing packing_length pack packed_sequence",
    "store": "report_to use_wandb wandb_project enable_wandb wandb",
    "`--store`": "output_dir checkpoint_dir",
    "fact of the machine": "deepspeed fsdp dataloader_num_workers",
    "all stages": "do_train stage",
    "held out": "val_size val_set_size",
    "kernels": "flash_attn attn_implementation",
    "started again": "resume_from_checkpoint",
}
# Where what a flat file holds may also land: the sections of a recipe that people nest it in.
SECTIONS = ("", "base", "training")


def pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(said, theirs) for said, names in table.items() for theirs in names.split()]


def keys_of(section: str) -> list[str]:
    """Return the keys of a section of a recipe."""
    root = schema.load("recipe")
    part: Any = root
    for step in filter(None, section.split(".")):
        part = schema.resolved(part["properties"][step], root)
    return list(part["properties"])


def help_for(text: str) -> list[str]:
    """Return the hints for a recipe's frame."""
    tree = read(text, "r.yaml")
    subject = Subject(places(tree))
    frame = schema.load("recipe")
    found = [
        *schema.mistakes(tree.plain(), frame, subject),
        *params.mistakes_in_uses(tree.plain(), frame, frame, subject),
    ]
    return [str(item.hint) for item in found]


@pytest.mark.parametrize(("ours", "theirs"), pairs(TABLE))
def test_a_name_of_another_tool_is_answered_with_ours_in_any_section(ours: str, theirs: str):
    for section in SECTIONS:
        known = keys_of(section)
        if theirs in known:
            continue
        hint = str(spellings.hint_for_key(theirs, known, section=section))

        assert f"`{ours}`" in hint, (section, hint)


@pytest.mark.parametrize(("said", "theirs"), pairs(LIVES))
def test_a_fact_that_is_no_key_says_where_it_lives(said: str, theirs: str):
    for section in SECTIONS:
        hint = str(spellings.hint_for_key(theirs, keys_of(section), section=section))

        assert said in hint, (section, hint)


def test_every_key_that_is_suggested_exists():
    for ours in set(peers.OURS.values()):
        section, _, leaf = ours.rpartition(".")

        assert leaf in keys_of(section), ours


def test_every_setting_that_is_suggested_exists_in_a_section_or_a_plugin():
    settings = {
        key
        for family in ("sources", "filters", "backends")
        for name in plugin.names(family)
        for key in params.fragment(family, name)["properties"]
    }
    known = settings | {"use"} | {k for s in ("base", "generator", "mix") for k in keys_of(s)}
    known |= set(keys_of("benchmarks")) | set(keys_of("benchmarks.holdout"))

    assert set(peers.NEAR) <= known


def test_no_spelling_stands_in_two_tables():
    twice = set(peers.OURS) & set(peers.ELSEWHERE)

    assert twice == set()


def test_no_key_of_another_tool_is_listed_twice():
    for table in (peers._CALLED, peers._LIVES):
        names = [theirs for _, theirs in pairs(table)]

        assert sorted(names) == sorted(set(names))


def test_a_key_in_the_wrong_section_is_told_where_it_belongs():
    hints = help_for("recipe: 1\nname: x\nbase: {model: a, seed: 1}\nlearning_rate: 1e-4\n")

    assert hints == [
        "`seed` is a key of the recipe itself",
        "`learning_rate` is a key of `training`",
    ]


def test_the_key_of_this_section_is_preferred():
    known = keys_of("generator.tune.training")
    hint = spellings.hint_for_key("cutoff_len", known, section="generator.tune.training")

    assert hint == "`cutoff_len` is spelled `generator.tune.training.max_length` here"


@pytest.mark.parametrize("theirs", ["--learning-rate", "learningRate", "Learning_Rate"])
def test_hyphens_and_capitals_are_seen_through(theirs: str):
    hint = str(spellings.hint_for_key(theirs, keys_of("training"), section="training"))

    assert hint == "did you mean `learning_rate`?"


@pytest.mark.parametrize(
    ("source", "ours"),
    [
        ("{use: hub, path: a/b}", "source.dataset"),
        ("{use: hub, dataset: a/b, subset: x}", "source.config"),
        ("{use: image_folder, dataset: x}", "source.path"),
        ("{use: image_folder, path: x, metadata: y}", "source.captions"),
        ("{use: json_file, path: x, media_dir: y}", "source.image_root"),
    ],
)
def test_a_setting_of_a_plugin_is_answered_with_its_own(source: str, ours: str):
    (hint,) = help_for(f"recipe: 1\nname: x\nbase: {{model: a/b}}\nsource: {source}\n")

    assert f"`{ours}` here" in hint


def test_the_peers_name_of_a_needed_key_is_one_mistake_and_not_two():
    (hint,) = help_for("recipe: 1\nname: x\nbase: {model_name_or_path: a/b}\n")

    assert hint == "`model_name_or_path` is spelled `base.model` here"


def test_a_plugin_chosen_with_another_word_is_told_use():
    (hint,) = help_for("recipe: 1\nname: x\nbase: {model: a/b}\nsource: {type: hub}\n")

    assert hint == "a plug-in is chosen with `use`: write it for `type`"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("base: {model: a, method: qlora}", "not quantised"),
        ("base: {model: a, method: dora}", "only kind"),
        ("base: {model: a, train: [llm]}", "`language` here"),
        ("base: {model: a, train: [merger]}", "`projector` here"),
        ("base: {model: a}\ntraining: {precision: fp32}", "`float32` here"),
        ("base: {model: a}\ntraining: {precision: fp16}", "`bfloat16`"),
        ("base: {model: a}\ntraining: {lr_scheduler_type: cosin}", "did you mean `cosine`?"),
    ],
)
def test_a_value_of_another_tool_is_answered_with_ours(section: str, said: str):
    (hint,) = help_for(f"recipe: 1\nname: x\n{section}\n")

    assert said in hint


def test_what_only_resembles_ours_says_how_it_differs():
    for theirs, said in (
        ("warmup_steps", "a share of all steps"),
        ("freeze_vit", "parts that learn"),
        ("bf16", "`bfloat16`"),
    ):
        hint = str(spellings.hint_for_key(theirs, keys_of("training"), section="training"))

        assert said in hint, hint


def test_a_benchmark_file_is_not_answered_with_keys_of_a_recipe():
    known = ["name", "metric", "source"]

    assert spellings.hint_for_key("metrics", known, is_recipe=False) == "did you mean `metric`?"
