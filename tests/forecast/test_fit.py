from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine import package_data
from engine.diagnostics import Diagnostic, RequestError
from engine.forecast import fit
from engine.models import _facts
from engine.models._known import ModelFinder
from engine.recipe.load import load_experiment

RECIPES = package_data.folder("recipes")
LLAVA = "llava-hf/llama3-llava-next-8b-hf"


def found(*overrides: str, recipe: str = "quickstart", models: ModelFinder | None = None):
    experiment = load_experiment(RECIPES / f"{recipe}.yaml", list(overrides))
    return fit.mistakes(experiment.recipe, models or ModelFinder())


def only(mistakes: list[Diagnostic]) -> Diagnostic:
    (one,) = mistakes
    return one


def with_config(folder: Path, config: Mapping[str, object]) -> ModelFinder:
    (folder / "config.json").write_text(json.dumps(config))
    return ModelFinder(lambda _: folder)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_fits_its_models(path: Path):
    assert found(recipe=path.stem) == []


def test_rows_shorter_than_one_image_are_refused():
    one = only(found(f"base.model={LLAVA}", "training.max_length=512"))

    assert one.code == "max-length"
    assert one.message.startswith("`max_length` is 512, but an image takes 936 tokens or more")
    assert one.hint == "write 2,048 or more; the text of a row comes on top"
    assert str(one.span) == "--set training.max_length"


def test_rows_of_enough_tokens_are_not():
    assert found(f"base.model={LLAVA}", "training.max_length=2048") == []


def test_the_synthesizer_is_tuned_on_rows_as_well():
    one = only(found("generator.tune.training.max_length=20"))

    assert (one.code, str(one.span)) == ("max-length", "--set generator.tune.training.max_length")


def test_an_answer_longer_than_the_context_is_refused():
    one = only(found("generator.max_new_tokens=1010"))

    assert one.code == "max-length"
    assert "holds 1,024 tokens, but an image and 1,010 new tokens take" in one.message


def test_an_unknown_family_is_named_with_those_that_are_known(tmp_path: Path):
    models = with_config(tmp_path, {"model_type": "qwen4_vl"})
    one = only(found("base.model=./x", models=models))

    assert one.code == "unknown-model-family"
    assert one.message == ("no model family knows the type of `./x`: `qwen4_vl` (its config.json)")
    assert one.hint is not None
    assert one.hint.startswith("known types: gemma3, idefics3, internvl, ")
    assert one.hint.endswith("`qwen3_vl` is close")


MLLAMA = "base.model=meta-llama/Llama-3.2-11B-Vision-Instruct"


def test_a_model_that_vllm_reads_in_another_way_is_refused_before_a_run(tmp_path: Path):
    one = only(found(MLLAMA, "base.backend.use=vllm"))

    assert (one.code, str(one.span)) == ("backend-model", "--set base.backend.use")
    assert one.message.startswith("`vllm` does not answer as `meta-llama/Llama-3.2-11B-Vision-")
    assert found(MLLAMA) == []


def test_a_judge_that_vllm_lacks_is_found_in_any_filter(tmp_path: Path):
    text = (RECIPES / "quickstart.yaml").read_text()
    before = "judge: {model: pocket/judge, backend: {use: transformers, batch_size: 64}}"
    after = "judge: {model: google/paligemma-3b-pt-224, backend: {use: vllm}}"
    assert before in text
    recipe = tmp_path / "x.yaml"
    text = text.replace(before, after).replace("consistency_pocket@1", "consistency@2")
    recipe.write_text(text)
    one = only(fit.mistakes(load_experiment(recipe, []).recipe, ModelFinder()))

    assert one.code == "backend-model"
    assert str(one.span).startswith(f"{recipe}:")


def test_every_kind_that_sees_has_its_layers_listed():
    assert {*fit._SEEING} == {*_facts.known_kinds()} - {*_facts._LLAMA_KINDS}


def test_a_model_that_is_not_here_is_no_mistake():
    assert found("base.model=who/knows") == []


def test_a_text_model_has_no_vision_to_train():
    mistakes = found("base.model=pocket/judge", "base.train=[vision, language]")

    assert [(one.code, one.message) for one in mistakes] == [
        ("text-only-model", "`pocket/judge` reads text alone and has no part `vision` to train")
    ]


def test_the_default_parts_of_a_text_model_are_no_mistake(tmp_path: Path):
    text = (RECIPES / "pocket" / "judge.yaml").read_text().replace(", train: [language]", "")
    (tmp_path / "x.yaml").write_text(text.replace("method: full", "method: full"))
    experiment = load_experiment(tmp_path / "x.yaml", [])

    assert "vision" in experiment.recipe.base.train
    assert fit.mistakes(experiment.recipe, ModelFinder()) == []


def test_a_target_that_no_layer_has_is_refused_with_the_nearest():
    lora = ("base.method=lora", "base.lora.targets=[q_proj, v_porj]")
    one = only(found(*lora))

    assert (one.code, one.hint) == ("lora-target", "did you mean `v_proj`?")


def test_all_linear_fits_every_model():
    assert found("base.method=lora", "base.lora.targets=[all-linear]") == []


def test_the_layers_that_can_be_named_are_those_of_the_models():
    import torch
    import transformers

    from tests.models.test_facts import TINY

    for kind in ("llama", *fit._SEEING):
        made = transformers.AutoConfig.for_model(**TINY[kind])
        auto = "AutoModelForCausalLM" if kind == "llama" else "AutoModelForImageTextToText"
        with torch.device("meta"):
            model = getattr(transformers, auto).from_config(made)
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        assert {*fit._DECODER, *fit._SEEING.get(kind, ())} == linear, kind


def test_mistakes_of_all_arms_are_raised_at_once():
    experiment = load_experiment(
        RECIPES / "pocket_ablation.yaml", ["training.max_length=16", "base.method=full"]
    )
    with pytest.raises(RequestError) as caught:
        fit.check(experiment, ModelFinder())

    assert [one.code for one in caught.value.diagnostics] == ["max-length"]


PAPERS = "base.model=Lin-Chen/open-llava-next-llama3-8b"
AS_ORIGINAL = ("base.layout=llava", "base.vision_tower.model=openai/clip-vit-large-patch14-336")


def test_an_original_llava_needs_its_layout():
    one = only(found(PAPERS, "training.max_length=2048"))

    assert one.code == "wrong-layout"
    assert one.message == (
        "`Lin-Chen/open-llava-next-llama3-8b` is an original LLaVA (its published config), but "
        "`base.layout` is huggingface"
    )
    assert found(PAPERS, *AS_ORIGINAL, "training.max_length=2048") == []


def test_a_model_that_transformers_reads_is_no_original():
    one = only(found(f"base.model={LLAVA}", *AS_ORIGINAL, "training.max_length=2048"))

    assert (one.code, one.hint) == ("wrong-layout", "remove `layout` and `vision_tower`")
    assert "is of the type `llava_next`" in one.message


def test_an_original_that_cannot_be_converted_is_told_before_a_run(tmp_path: Path):
    models = with_config(tmp_path, {"model_type": "llava_llama", "image_aspect_ratio": "pad"})
    one = only(found("base.model=./mine", *AS_ORIGINAL, models=models))

    assert one.code == "wrong-layout"
    assert "`./mine` cannot be converted: the checkpoint is a LLaVA-1.5" in one.message
