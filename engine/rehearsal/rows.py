"""A few rows in the shape of a data set: its columns, types and quirks, none of its content.

Among the rows of a source are some that every collection has: one without a caption, one with a
caption as long as a recipe, a picture that is no picture, one that is too small, one twice.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import plugin
from engine.plugin import Use
from engine.recipe.model import BenchmarkSpec
from engine.sources import _columns

NUM_PAIRS = 16
NUM_QUESTIONS = 6
LONG_WORDS = 900  # of the longest caption: a recipe with all its steps
SIZES_PX = ((512, 384), (384, 512), (300, 300), (640, 427))
_NOUNS = ("field", "tissue", "plate", "roof", "river", "lesion", "spoon", "runway")
_VERBS = ("shows", "lies beside", "covers", "surrounds", "meets")


def pairs(params: _columns.RowParams, folder: Path) -> Use:
    """Write image-caption pairs with the columns that a source maps; return the source of them."""
    rows = [_pair(params, number) for number in range(NUM_PAIRS)]
    image, caption = params.column("image"), _caption_name(params)
    rows[1][caption] = None
    rows[2][caption] = _caption(params, _words(2, LONG_WORDS))
    rows[3][image] = _image(b"no picture at all")
    rows[4][image] = _image(_picture(4, (20, 24)))
    rows[5][image] = rows[6][image]
    return _written(params, rows, folder)


def questions(params: _columns.RowParams, spec: BenchmarkSpec, folder: Path) -> Use:
    """Write questions with answers as the metrics of a benchmark read them."""
    kinds = [*spec.metric_by_type] or [""]
    rows = []
    for number in range(NUM_QUESTIONS):
        kind = kinds[number % len(kinds)]
        metric = spec.metric_by_type.get(kind, spec.metric)
        row: dict[str, Any] = {
            params.column("image"): _image(_picture(1000 + number)),
            params.column("question"): f"What {_VERBS[number % len(_VERBS)]} the {_noun(number)}?",
            params.column("answer"): _ANSWERS.get(metric, _open_answer)(number),
        }
        if "answer_type" in params.columns or params.answer_type is None:
            row[params.column("answer_type")] = (kind or "open").upper()
        if metric == "choice":
            row |= {letter: f"the {_noun(n)}" for n, letter in enumerate("ABCD", number)}
        rows.append(row)
    return _written(params, rows, folder)


def chats(params: _columns.RowParams, folder: Path) -> Use:
    """Write conversations, as a replay set has them."""
    name = "messages" if "messages" in params.columns else "conversations"
    rows = [
        {
            params.column("image"): _image(_picture(2000 + number)),
            params.column(name): [
                {"from": "human", "value": "<image>\nWhat is this?"},
                {"from": "gpt", "value": _words(number, 12)},
            ],
        }
        for number in range(NUM_QUESTIONS)
    ]
    return _written(params, rows, folder)


def seeds(licence: str | None, folder: Path) -> Use:
    """Write seed tasks for a synthesizer."""
    params = _columns.RowParams(task="seeds", licence=licence)
    rows = [
        {
            "image": _image(_picture(3000 + number)),
            "caption": _words(number, 20),
            "instruction": f"Where is the {_noun(number)}?",
            "informative": f"The {_noun(number)} lies on the left, {_words(number, 8)}",
            "precise": "On the left.",
            "task": f"task {number % 2}",
        }
        for number in range(NUM_PAIRS)
    ]
    return _written(params, rows, folder)


def _caption_name(params: _columns.RowParams) -> str:
    is_chat = "conversations" in params.columns and "caption" not in params.columns
    return params.column("conversations" if is_chat else "caption")


def _caption(params: _columns.RowParams, text: str) -> Any:
    if "conversations" in params.columns and "caption" not in params.columns:
        return [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": text}]
    return text


def _pair(params: _columns.RowParams, number: int) -> dict[str, Any]:
    caption = _caption(params, _words(number, 10 + 7 * (number % 5)))
    return {
        params.column("image"): _image(_picture(number)),
        _caption_name(params): caption,
    }


def _open_answer(number: int) -> Any:
    return f"the {_noun(number + 3)} on the left"


_ANSWERS: Mapping[str, Any] = {
    "closed": lambda number: ("yes", "no")[number % 2],
    "choice": lambda number: "ABCD"[number % 4],
    "multi_label": lambda number: [_noun(number), _noun(number + 1)],
    "exact": lambda number: _noun(number),
    "rouge_l": lambda number: _words(number, 15),
}


def _noun(number: int) -> str:
    return _NOUNS[number % len(_NOUNS)]


def _words(number: int, count: int) -> str:
    """Return so many words of sentences that differ from row to row."""
    words: list[str] = []
    place = number
    while len(words) < count:
        verb = _VERBS[(place // 2) % len(_VERBS)]
        words += f"The {_noun(place)} {verb} the {_noun(3 * place + number + 1)} {place}.".split()
        place += 1
    return " ".join(words[:count])


def _image(encoded: bytes) -> dict[str, Any]:
    return {"bytes": encoded, "path": None}


def _picture(number: int, size: tuple[int, int] | None = None) -> bytes:
    """Return a JPEG of coarse noise: no two look alike, and it is small."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    shown = Image.fromarray(noise).resize(size or SIZES_PX[number % len(SIZES_PX)])
    written = io.BytesIO()
    shown.save(written, "JPEG", quality=80)
    return written.getvalue()


def _written(params: _columns.RowParams, rows: list[dict[str, Any]], folder: Path) -> Use:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    kept = ("task", "columns", "answer_type", "licence")
    settings = {name: getattr(params, name) for name in kept}
    return plugin.bound_use("sources", {"use": "parquet", "path": str(folder), **settings})
