"""How many tokens an image takes, by the rule of each family's processor.

`tokens` stand in the decoder's context; `patches` go through the encoder. The rules are those of
the processors of transformers 5.19, compared with them in tests/models/test_image_tokens.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engine.models._facts import Architecture, Vision

_LARGEST_IDEFICS3_PX = 4096
_LLAVA_NEXT_GRIDS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
COMMON_SHAPES = ((1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16))


class ImageTokens(NamedTuple):
    """What one image takes."""

    tokens: int
    patches: int


def of_image(
    model: Architecture, processor: Mapping[str, Any], width_px: int, height_px: int
) -> ImageTokens:
    """Return what an image of this size takes; nothing for a model that sees none."""
    seen = model.vision
    if seen is None:
        return ImageTokens(0, 0)
    if model.kind.startswith("qwen"):
        return _qwen2_vl(seen, processor, width_px, height_px)
    if model.kind == "llava_next":
        return _llava_next(seen, processor, width_px, height_px)
    if model.kind == "mllama":  # padded to all of its tiles; the text attends to them from outside
        patches = (seen.tile_px // seen.patch_px) ** 2 + 1
        return ImageTokens(1, seen.num_tiles * _rounded_up(patches, 8))
    tiles = _TILES[model.kind](processor, width_px, height_px)
    patches = (seen.tile_px // seen.patch_px) ** 2
    return ImageTokens(tiles * (patches // seen.merge**2), tiles * patches)


def fewest(model: Architecture, processor: Mapping[str, Any]) -> int:
    """Return the tokens of the cheapest image of a common shape, from thumbnails up."""
    sizes = [
        (side * across // 4, side * down // 4)
        for side in (16, 64, 256, 1024)
        for across, down in COMMON_SHAPES
    ]
    return min(of_image(model, processor, wide, high).tokens for wide, high in sizes)


def most(model: Architecture, processor: Mapping[str, Any]) -> ImageTokens:
    """Return what the most expensive image of a common shape takes."""
    sizes = [(8192 * across // 16, 8192 * down // 16) for across, down in COMMON_SHAPES]
    found = [of_image(model, processor, wide, high) for wide, high in sizes]
    return max(found, key=lambda one: (one.tokens, one.patches))


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _qwen2_vl(seen: Vision, processor: Mapping[str, Any], wide: int, high: int) -> ImageTokens:
    size = processor.get("size") or {}
    fewest_px = processor.get("min_pixels") or size.get("shortest_edge") or 56 * 56
    most_px = processor.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280
    cell = seen.patch_px * seen.merge
    rows, columns = round(high / cell), round(wide / cell)
    if rows * columns * cell**2 > most_px:
        shrink = math.sqrt(high * wide / most_px)
        rows = max(1, math.floor(high / shrink / cell))
        columns = max(1, math.floor(wide / shrink / cell))
    elif rows * columns * cell**2 < fewest_px:
        grow = math.sqrt(fewest_px / (high * wide))
        rows, columns = math.ceil(high * grow / cell), math.ceil(wide * grow / cell)
    return ImageTokens(rows * columns, rows * columns * seen.merge**2)


def _llava_next(seen: Vision, processor: Mapping[str, Any], wide: int, high: int) -> ImageTokens:
    grids = processor.get("image_grid_pinpoints") or _LLAVA_NEXT_GRIDS
    grid_high, grid_wide = _best_grid(grids, wide, high)
    side = seen.tile_px // seen.patch_px
    down, across = grid_high // seen.tile_px, grid_wide // seen.tile_px
    rows, columns = side * down, side * across
    if wide / high > columns / rows:  # the grey bars above and below are cut off again
        rows -= (rows - int(round(high * (columns / wide), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(wide * (rows / high), 7))) // 2 * 2
    tokens = rows * columns + rows + side**2  # a newline ends each row; the whole image comes first
    return ImageTokens(tokens, (down * across + 1) * (side**2 + 1))


def _best_grid(grids: Sequence[Sequence[int]], wide: int, high: int) -> Sequence[int]:
    def fit(grid: Sequence[int]) -> tuple[int, int]:
        scale = min(grid[1] / wide, grid[0] / high)
        shown = min(int(wide * scale) * int(high * scale), wide * high)
        return shown, shown - grid[0] * grid[1]

    return max(grids, key=fit)


def _idefics3_tiles(processor: Mapping[str, Any], wide: int, high: int) -> int:
    """Return how many squares an image is cut into, the small whole one included."""
    if processor.get("do_image_splitting", True) is False:
        return 1
    tile = (processor.get("max_image_size") or {}).get("longest_edge") or 364
    longest = (processor.get("size") or {}).get("longest_edge") or 4 * 364
    longest = min(longest, _LARGEST_IDEFICS3_PX)
    short = int(longest * min(wide, high) / max(wide, high))
    long_side = _rounded_up(longest, tile)
    short_side = _rounded_up(max(1, int(long_side * short / longest)), tile)
    if max(long_side, short_side) <= tile:
        return 1
    return (long_side // tile) * (short_side // tile) + 1


def _internvl_tiles(processor: Mapping[str, Any], wide: int, high: int) -> int:
    """Return how many squares the grid of the closest shape has, the small whole one included."""
    if processor.get("crop_to_patches", True) is False:
        return 1
    fewest, most = processor.get("min_patches", 1), processor.get("max_patches", 12)
    tile_area = math.prod((processor.get("size") or {"height": 448, "width": 448}).values())
    sides = range(1, most + 1)
    grids = [(c, r) for c in sides for r in sides if fewest <= c * r <= most]
    best, gap = (1, 1), math.inf
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        off = abs(wide / high - columns / rows)
        if off < gap or (off == gap and wide * high > 0.5 * tile_area * columns * rows):
            best, gap = (columns, rows), off
    tiles = best[0] * best[1]
    return tiles + (tiles > 1)


def _gemma3_tiles(processor: Mapping[str, Any], wide: int, high: int) -> int:
    """Return one, and the crops of a long picture where the checkpoint says so (pan and scan)."""
    if not processor.get("do_pan_and_scan"):
        return 1
    smallest = processor.get("pan_and_scan_min_crop_size") or 256
    most = processor.get("pan_and_scan_max_num_crops") or 4
    ratio = processor.get("pan_and_scan_min_ratio_to_activate") or 1.2
    longest, shortest = max(wide, high), min(wide, high)
    if longest / shortest < ratio:
        return 1
    crops = min(most, max(2, min(longest // smallest, math.floor(longest / shortest + 0.5))))
    return 1 if min(-(-longest // crops), shortest) < smallest else 1 + crops


def _one_tile(processor: Mapping[str, Any], wide: int, high: int) -> int:
    return 1


_TILES = {
    "idefics3": _idefics3_tiles,
    "smolvlm": _idefics3_tiles,
    "internvl": _internvl_tiles,
    "gemma3": _gemma3_tiles,
    "paligemma": _one_tile,
}
