"""How large the hub datasets of the shipped recipes are, so that a plan has numbers offline.

Rows and pictures as printed by the datasets' authors: the comments in recipes/benchmarks say which.
"""

from __future__ import annotations

_BIOMED = "AdaptLLM/biomed-VQA-benchmark"
_FOOD = "AdaptLLM/food-VQA-benchmark"
_REMOTE = "AdaptLLM/remote-sensing-VQA-benchmark"

PUBLISHED: dict[tuple[str, str, str], tuple[int, int | None]] = {  # rows, pictures if they differ
    (_BIOMED, "SLAKE", "test"): (1061, 96),
    (_BIOMED, "PathVQA", "test"): (6719, None),
    (_BIOMED, "VQA_RAD", "test"): (451, 203),
    (_BIOMED, "PMC-VQA", "test"): (2000, None),
    (_FOOD, "Recipe1M", "test"): (1000, None),
    (_FOOD, "Nutrition5K", "test"): (507, None),
    (_FOOD, "Food101", "test"): (25250, None),
    (_FOOD, "FoodSeg103", "test"): (2135, None),
    (_REMOTE, "CLRS", "test"): (15000, None),
    (_REMOTE, "UCMerced", "test"): (2100, None),
    (_REMOTE, "FloodNet", "test"): (4511, None),
    (_REMOTE, "NWPU-Captions", "test"): (3150, None),
    ("Lin-Chen/MMStar", "", "val"): (1500, None),
    ("lmms-lab-encoder/POPE", "", "test"): (9000, 500),
    ("mtybilly/PubMedVision-Alignment-VQA", "", "train"): (504501, None),
    ("AdaptLLM/food-visual-instructions", "", "train"): (130000, None),  # "130K"
    ("arampacha/rsicd", "", "train"): (8734, None),
}
