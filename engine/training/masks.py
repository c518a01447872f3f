"""Which tokens of a chat are trained on: the turns that say so, to the character.

By default the assistant's turns, each with its end marker. A trained turn that follows a trained
turn takes the header between them along, because a model that writes a dialogue alone writes those
too; and a dialogue with trained user turns ends with a trained end-of-text (METHOD 1.4), or
generation would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.models._chat import ChatError, Piece, Rendered
from engine.models._inputs import InputMaker, Tokens, char_at
from engine.records import ImagePart, Record, Turn

ROWS_AT_ONCE = 1024

CUT = "cut at a turn border"
TOO_LONG = "too long"
UNTRAINED = "nothing to train on"
BROKEN_IMAGE = "image cannot be decoded"
MISSING_IMAGE = "image is missing"
NO_FORMAT = "not a chat of this model"
IMAGE_COUNT = "images and image tokens do not match"

Ledger = Callable[[str, str, str], None]  # source id, reason, detail


@dataclass(frozen=True, slots=True)
class Example:
    """A row ready for training."""

    ids: Any  # numpy int32
    is_trained: Any  # numpy bool
    digests: tuple[str, ...]
    text: str  # kept only for families whose processor makes whole batches

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Draft:
    """A row as text, with the characters the model is trained to write."""

    record: Record
    text: str
    trained_chars: tuple[tuple[int, int], ...]


def is_trained(turn: Turn) -> bool:
    """Tell whether the loss covers a turn."""
    return turn.role == "assistant" if turn.loss is None else turn.loss


def draft(record: Record, inputs: InputMaker) -> Draft:
    """Write a row in the model's format. Raise ChatError if that cannot be done."""
    chat = inputs.kit.chat
    for turn in record.turns:
        if not turn.parts:
            raise ChatError(f"the {turn.role} turn is empty")
    rendered = chat.render(record.turns)
    asks = any(turn.role == "user" and is_trained(turn) for turn in record.turns)
    end_of_text = (Piece(chat.eos),) if asks and is_trained(record.turns[-1]) else ()
    text, places = inputs.text_of((*rendered.pieces, *end_of_text), record.images)
    spans = list(_trained_spans(record.turns, rendered, places))
    if end_of_text:
        spans.append((spans[-1][1], len(text)))
    return Draft(record, text, tuple(spans))


def trained_tokens(tokens: Tokens, spans: Sequence[tuple[int, int]]) -> Any:
    """Return which tokens begin inside one of the spans."""
    import numpy as np

    mask = np.zeros(len(tokens.ids), dtype=bool)
    for start, end in spans:
        mask |= (tokens.starts >= start) & (tokens.starts < end)
    return mask & ~tokens.is_image


def examples(
    rows: Sequence[Record], inputs: InputMaker, max_length: int, ledger: Ledger
) -> Iterator[Example]:
    """Yield the rows that can be trained on; the ledger takes the others, and what was cut."""
    for first in range(0, len(rows), ROWS_AT_ONCE):
        chunk = rows[first : first + ROWS_AT_ONCE]
        drafts = list(_drafts(chunk, inputs, ledger))
        for one, tokens in zip(drafts, inputs.tokenize([d.text for d in drafts]), strict=True):
            example = _fitting(one, tokens, inputs, max_length, ledger)
            if example is not None:
                yield example


def _drafts(rows: Sequence[Record], inputs: InputMaker, ledger: Ledger) -> Iterator[Draft]:
    problems: dict[str, str] = {}
    known: list[str] = []
    for digest in dict.fromkeys(digest for row in rows for digest in row.images):
        try:
            inputs.read_image(digest)
            known.append(digest)
        except KeyError:
            problems[digest] = MISSING_IMAGE
    broken = inputs.learn(known)
    for row in rows:
        problem = next((d for d in row.images if d in problems or d in broken), None)
        if problem is not None:
            reason = problems.get(problem, BROKEN_IMAGE)
            ledger(row.meta.source_id, reason, broken.get(problem, problem))
            continue
        try:
            yield draft(row, inputs)
        except ChatError as error:
            ledger(row.meta.source_id, NO_FORMAT, f"row {row.id}: {error}")


def _fitting(
    one: Draft, tokens: Tokens, inputs: InputMaker, max_length: int, ledger: Ledger
) -> Example | None:
    """Return the example of a draft; cut if it is too long, None if it is of no use."""
    source_id = one.record.meta.source_id
    if len(tokens.ids) > max_length:
        shorter = _without_last_exchange(one.record)
        if shorter is None:
            ledger(source_id, TOO_LONG, f"{len(tokens.ids)} tokens, max_length is {max_length}")
            return None
        cut = draft(shorter, inputs)
        (cut_tokens,) = inputs.tokenize([cut.text])
        made = _fitting(cut, cut_tokens, inputs, max_length, ledger)
        if made is not None and len(cut_tokens.ids) <= max_length:
            ledger(source_id, CUT, f"{len(tokens.ids)} tokens, max_length is {max_length}")
        return made
    return _example(one, tokens, inputs, ledger)


def _example(one: Draft, tokens: Tokens, inputs: InputMaker, ledger: Ledger) -> Example | None:
    import numpy as np

    record = one.record
    if bool(tokens.is_image.any()) != bool(record.images):
        detail = f"row {record.id}: {len(record.images)} images, {tokens.is_image.sum()} tokens"
        ledger(record.meta.source_id, IMAGE_COUNT, detail)
        return None
    mask = trained_tokens(tokens, one.trained_chars)
    if not mask[1:].any():
        ledger(record.meta.source_id, UNTRAINED, f"row {record.id}")
        return None
    keeps_text = inputs.kit.family.has_vision and inputs.kit.family.image_axis is None
    text = one.text if keeps_text else ""
    return Example(tokens.ids.astype(np.int32), mask, record.images, text)


def _without_last_exchange(record: Record) -> Record | None:
    """Return a row without its last question and answer; None if that leaves nothing to train."""
    turns = list(record.turns)
    while turns and turns[-1].role == "assistant":
        turns.pop()
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not any(is_trained(turn) for turn in turns):
        return None
    num_images = sum(isinstance(part, ImagePart) for turn in turns for part in turn.parts)
    return replace(record, turns=tuple(turns), images=record.images[:num_images])


def _trained_spans(
    turns: Sequence[Turn], rendered: Rendered, places: Sequence[int]
) -> Iterator[tuple[int, int]]:
    joins = False
    for turn, span in zip(turns, rendered.spans, strict=True):
        if is_trained(turn):
            start = span.joined_start if joins else span.start
            yield char_at(places, start), char_at(places, span.end)
        joins = is_trained(turn) and (joins or turn.role == "user")
