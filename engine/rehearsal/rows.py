"""A few made-up rows with the columns, types and quirks of a data set, and none of its content.

A picture is its encoded bytes here; `formats` writes it as the data set would hold it. Among pairs
are some that every collection has: one without a caption, one with a caption as long as a recipe, a
picture that is no picture, one that is too small, one twice, and one row with two pictures where
rows hold lists of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from engine.recipe.model import BenchmarkSpec
from engine.sources._columns import RowParams

Row = dict[str, Any]
NUM_PAIRS = 12
NUM_QUESTIONS = 4
NUM_SEEDS = 8
LONG_WORDS = 700  # of the longest caption: a recipe with all its steps
SIZES_PX = ((256, 192), (192, 256), (160, 160), (300, 200))
SMALL_PX = (20, 24)
_NOUNS = ("field", "tissue", "plate", "roof", "river", "lesion", "spoon", "runway")
_VERBS = ("shows", "lies beside", "covers", "surrounds", "meets")
LETTERS = "ABCD"


def pairs(params: RowParams) -> list[Row]:
    """Return image-caption pairs with the columns that a source maps."""
    rows = [_pair(params, number) for number in range(NUM_PAIRS)]
    image, caption = _image_name(params), _caption_name(params)
    rows[1][caption] = None
    rows[2][caption] = _caption(params, sentence(2, LONG_WORDS))
    rows[3][image] = _shown(params, b"no picture at all")
    rows[4][image] = _shown(params, picture(4, SMALL_PX))
    rows[5][image] = rows[6][image]
    if _is_list(image):
        rows[7][image] = [*rows[7][image], picture(100)]
    return rows


def questions(params: RowParams, spec: BenchmarkSpec) -> list[Row]:
    """Return questions with answers as the metrics of a benchmark read them."""
    kinds = [*spec.metric_by_type] or [""]
    rows: list[Row] = []
    for number in range(max(NUM_QUESTIONS, len(kinds))):
        kind = kinds[number % len(kinds)]
        metric = spec.metric_by_type.get(kind, spec.metric)
        row: Row = {
            _image_name(params): _shown(params, picture(1000 + number)),
            params.column("question"): _question(metric, number),
            params.column("answer"): _ANSWERS.get(metric, _open_answer)(number),
        }
        if spec.metric_by_type or "answer_type" in params.columns:
            row[params.column("answer_type")] = (kind or "open").upper()
        if "A" in params.columns:
            row |= {params.column(letter): noun(n) for n, letter in enumerate(LETTERS, number)}
        if "options" in params.columns:
            row[params.column("options")] = [noun(n) for n in range(number, number + len(LETTERS))]
        rows.append(row)
    return rows


def chats(params: RowParams) -> list[Row]:
    """Return conversations, as a replay set has them."""
    name = "messages" if "messages" in params.columns else "conversations"
    return [
        {
            _image_name(params): _shown(params, picture(2000 + number)),
            params.column(name): exchange("<image>\nWhat is this?", sentence(number, 12)),
        }
        for number in range(NUM_QUESTIONS)
    ]


def seeds(params: RowParams) -> list[Row]:
    """Return seed tasks for a synthesizer."""
    return [
        {
            params.column("image"): picture(3000 + number),
            params.column("caption"): sentence(number, 20),
            params.column("instruction"): f"Where is the {noun(number)}?",
            params.column("informative"): f"It lies on the left. {sentence(number, 8)}",
            params.column("precise"): "On the left.",
            params.column("task"): f"task {number % 2}",
        }
        for number in range(NUM_SEEDS)
    ]


def exchange(question: str, answer: str) -> list[dict[str, str]]:
    """Return a conversation as LLaVA writes it."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def noun(number: int) -> str:
    """Return a word; some of them in turns."""
    return _NOUNS[number % len(_NOUNS)]


def sentence(number: int, count: int) -> str:
    """Return so many words of sentences that differ from row to row."""
    words: list[str] = []
    place = number
    while len(words) < count:
        verb = _VERBS[(place // 2) % len(_VERBS)]
        words += f"The {noun(place)} {verb} the {noun(3 * place + number + 1)} {place}.".split()
        place += 1
    return " ".join(words[:count])


def picture(number: int, size_px: tuple[int, int] | None = None) -> bytes:
    """Return a JPEG of coarse noise: no two look alike, and it is small."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    shown = Image.fromarray(noise).resize(size_px or SIZES_PX[number % len(SIZES_PX)])
    written = io.BytesIO()
    shown.save(written, "JPEG", quality=80)
    return written.getvalue()


def _image_name(params: RowParams) -> str:
    is_named = "images" in params.columns and "image" not in params.columns
    return params.column("images" if is_named else "image")


def _is_list(name: str) -> bool:
    """Tell whether a column of this name holds lists: the name alone says so."""
    return name.endswith("s")


def _shown(params: RowParams, encoded: bytes) -> Any:
    return [encoded] if _is_list(_image_name(params)) else encoded


def _caption_name(params: RowParams) -> str:
    for name in ("conversations", "messages"):
        if name in params.columns and "caption" not in params.columns:
            return params.column(name)
    return params.column("caption")


def _caption(params: RowParams, text: str) -> Any:
    if "caption" not in params.columns and {"conversations", "messages"} & params.columns.keys():
        return exchange("<image>", text)
    return [text, text.upper()] if _is_list(params.column("caption")) else text


def _pair(params: RowParams, number: int) -> Row:
    return {
        _image_name(params): _shown(params, picture(number)),
        _caption_name(params): _caption(params, sentence(number, 10 + 7 * (number % 5))),
    }


def _question(metric: str, number: int) -> str:
    if metric == "closed":
        return f"Is there a {noun(number)} on the left?"
    if metric == "count":
        return f"How many {noun(number)}s are there?"
    asked = f"What {_VERBS[number % len(_VERBS)]} the {noun(number + 5)}?"
    if metric != "choice":
        return asked
    options = (f"{letter}. {noun(n)}" for n, letter in enumerate(LETTERS, number))
    return "\n".join((asked, *options))


def _open_answer(number: int) -> Any:
    return f"the {noun(number + 3)} on the left"


_ANSWERS: Mapping[str, Callable[[int], Any]] = {
    "closed": lambda number: ("yes", "no")[number % 2],
    "choice": lambda number: LETTERS[number % len(LETTERS)],
    "count": lambda number: str(number + 1),
    "multi_label": lambda number: f"{noun(number)}, {noun(number + 1)}",
    "exact": noun,
    "rouge_l": lambda number: sentence(number, 15),
}
