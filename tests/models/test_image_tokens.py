"""Tokens of an image by rule against what the processors of transformers make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.images import decode
from engine.models import _image_tokens
from engine.models._known import KnownModel, ModelFinder
from engine.models._loading import open_kit
from tests.models import tiny
from tests.models.test_families import llava_next
from tests.models.tiny_families import MAKERS

SIZES = [(64, 64), (640, 480), (480, 640), (100, 37), (37, 100), (1500, 300), (31, 700), (224, 225)]


def known(folder: Path) -> KnownModel:
    found = ModelFinder(Path).find(str(folder))
    assert found is not None
    assert found.architecture is not None
    return found


def by_rule(model: KnownModel, size: tuple[int, int]) -> int:
    return model.image(*size).tokens


def test_llava_next_cuts_images_into_tiles(tmp_path: Path):
    kit = open_kit(str(llava_next(tmp_path)))
    model = known(tmp_path)
    for size in SIZES:
        picture = decode(tiny.picture(size=size))
        made = kit.processor(text=[kit.image_marker], images=[[picture]], return_tensors="pt")
        image_id = kit.tokenizer.convert_tokens_to_ids(kit.image_marker)
        assert by_rule(model, size) == int((made["input_ids"] == image_id).sum()), size


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # PaliGemma's processor
@pytest.mark.parametrize("name", MAKERS)
def test_a_picture_takes_what_its_processor_makes_of_it(name: str, tmp_path: Path):
    kit = open_kit(str(MAKERS[name](tmp_path)))
    model = known(tmp_path)
    for size in SIZES:
        shown = [[decode(tiny.picture(size=size))]]
        made = kit.processor(text=[kit.image_marker], images=shown, return_tensors="pt")
        num_tokens = int((made["input_ids"] == kit.image_token_id).sum())
        assert by_rule(model, size) == num_tokens, size


@pytest.mark.parametrize("size", [(64, 64), (700, 500), (1200, 300), (300, 1400), (900, 700)])
def test_gemma3_crops_long_pictures_where_it_is_told_to(size: tuple[int, int], tmp_path: Path):
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    settings = {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 256,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    made = Gemma3ImageProcessorPil(**settings)(
        images=[[decode(tiny.picture(size=size))]], return_tensors="pt"
    )
    assert _image_tokens._gemma3_tiles(settings, *size) == made["pixel_values"].shape[0]


def test_qwen2_vl_counts_cells_within_bounds():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    model = ModelFinder().find("Qwen/Qwen2-VL-2B-Instruct")
    assert model is not None
    for wide, high in [*SIZES, (4000, 3000), (9000, 6000), (20, 20)]:
        bounds = {"min_pixels": 56 * 56, "max_pixels": 12845056}
        rows, columns = smart_resize(high, wide, factor=28, **bounds)
        assert by_rule(model, (wide, high)) == rows * columns // 28**2, (wide, high)


@pytest.mark.parametrize(("longest", "tile"), [(1456, 364), (512, 512), (300, 128)])
def test_idefics3_cuts_images_into_squares(longest: int, tile: int):
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": longest}, max_image_size={"longest_edge": tile}
    )
    settings = {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": tile}}
    for wide, high in SIZES:
        made = pictures(images=[[decode(tiny.picture(size=(wide, high)))]], return_tensors="pt")
        num = made["pixel_values"].shape[1]
        assert _image_tokens._idefics3_tiles(settings, wide, high) == num, (wide, high)


def test_the_pocket_models_have_images_of_one_size():
    model = ModelFinder().find("pocket/base")
    assert model is not None
    assert model.architecture is not None

    assert model.has_fixed_images
    assert by_rule(model, (640, 480)) == 16


def test_a_text_model_has_no_image_tokens():
    model = ModelFinder().find("pocket/judge")
    assert model is not None
    assert by_rule(model, (640, 480)) == 0
