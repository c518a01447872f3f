"""Image tensors are the same with a cache that holds all of them, some, or one."""

from __future__ import annotations

import pytest

from engine import images, package_data
from engine.models._inputs import InputMaker
from engine.models._loading import open_kit
from engine.pocket import cells

NUM_IMAGES = 6


@pytest.fixture(scope="module")
def encoded() -> dict[str, bytes]:
    pictures = [cells.draw(cells.field(0, "train", index)) for index in range(NUM_IMAGES)]
    return {f"digest {n}": images.encode_png(picture) for n, picture in enumerate(pictures)}


@pytest.mark.parametrize("num_held", [0, 1, 3])
def test_a_cache_that_is_too_small_costs_time_alone(encoded: dict[str, bytes], num_held: int):
    kit = open_kit(str(package_data.pocket_model("base")))
    whole = InputMaker(kit, encoded.__getitem__)
    expected = whole.features(list(encoded))
    size = sum(tensor.nbytes for tensor in expected[0].values())
    small = InputMaker(kit, encoded.__getitem__, cache_bytes=num_held * size)
    small.learn(list(encoded))

    for order in (list(encoded), list(encoded)[::-1], list(encoded)):
        found = dict(zip(order, small.features(order), strict=True))
        for digest, tensors in zip(encoded, expected, strict=True):
            assert all(bool((found[digest][k] == v).all()) for k, v in tensors.items())
