"""The one row type that flows between stages, and its JSON form.

A row is a small conversation about zero or more images. The same type carries an image-caption
pair, a synthesized task, a seed task, a training chat and a benchmark question; `meta.kind` says
which, and the table in `Kind` says how its turns are laid out. Images are named by the SHA-256 of
their encoded bytes; the bytes live in an image bank (`engine.images`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

IMAGE_MARKER = "<image>"


class Kind(StrEnum):
    """What a row is, and the turns it therefore has (u = user, a = assistant)."""

    PAIR = "pair"  # u(image), a(caption)
    TASK = "task"  # u(image, instruction), a(style=informative), a(style=precise)
    SEED = "seed"  # u(image), a(caption), then u(instruction), a(informative), a(precise) per task
    CHAT = "chat"  # u, a, u, a, ...: an ordinary training row
    QUESTION = "question"  # u(image, question), a(reference), a(further reference) ...


class RecordError(ValueError):
    """A row breaks an invariant; the message is the quarantine reason."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A run of text in a turn."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """The place of an image in a turn; `index` points into `Record.images`."""

    index: int


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str  # "user" or "assistant"
    parts: tuple[Part, ...]
    style: str | None = None  # "informative" or "precise" where a task has both answers
    loss: bool | None = None  # None: assistant turns are trained on, user turns are not

    @property
    def text(self) -> str:
        """The turn's text without its images."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Meta:
    """Where a row comes from. `extra` is JSON and may be empty."""

    kind: Kind
    source_id: str  # names the row in its source: a file name, a row number, a dataset id
    licence: str | None = None
    lineage: tuple[str, ...] = ()  # ids of the rows this one was made from
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """One row. Build it with `make_record`, which sets the id and checks the invariants."""

    id: str  # digest of images, turns and kind
    images: tuple[str, ...]  # SHA-256 of the encoded bytes, hex
    turns: tuple[Turn, ...]
    meta: Meta

    @property
    def caption(self) -> str:
        """The caption of a pair or seed row: its first assistant turn."""
        return next(turn.text for turn in self.turns if turn.role == "assistant")

    @property
    def instruction(self) -> str:
        """The instruction of a task, or the question of a benchmark row."""
        return self.turns[0].text

    def answer(self, style: str) -> str:
        """Return the first answer written in `style` ("informative" or "precise")."""
        return next(turn.text for turn in self.turns if turn.style == style)

    @property
    def references(self) -> tuple[str, ...]:
        """The reference answers of a benchmark question."""
        return tuple(turn.text for turn in self.turns if turn.role == "assistant")


def user(*content: str | ImagePart, loss: bool | None = None) -> Turn:
    """Build a user turn from texts and images."""
    return Turn("user", _parts(content), loss=loss)


def assistant(text: str, *, style: str | None = None, loss: bool | None = None) -> Turn:
    """Build an assistant turn."""
    return Turn("assistant", (TextPart(text),), style=style, loss=loss)


def make_record(images: Sequence[str], turns: Sequence[Turn], meta: Meta) -> Record:
    """Build a row; raise `RecordError` if images and image parts differ, or text is broken."""
    used = [p.index for t in turns for p in t.parts if isinstance(p, ImagePart)]
    if used != list(range(len(images))):
        raise RecordError(f"{len(used)} image markers for {len(images)} images")
    content = {"images": list(images), "turns": [_turn_json(t) for t in turns], "kind": meta.kind}
    try:
        digest = hashlib.sha256(_canonical(content)).hexdigest()[:32]
    except UnicodeEncodeError as error:  # a lone surrogate, as broken exports contain
        raise RecordError("text that is not Unicode") from error
    return Record(digest, tuple(images), tuple(turns), meta)


def pair(image: str, caption: str, meta: Meta) -> Record:
    """Build an image-caption pair."""
    return make_record([image], [user(ImagePart(0)), assistant(caption)], meta)


def parts_from_markers(text: str, *, first_image: int = 0) -> tuple[Part, ...]:
    """Split text at `<image>` markers into parts; images are numbered from `first_image`."""
    pieces = text.split(IMAGE_MARKER)
    parts: list[Part] = []
    for position, piece in enumerate(pieces):
        if position:
            parts.append(ImagePart(first_image + position - 1))
        if piece.strip():
            parts.append(TextPart(piece.strip() if len(pieces) > 1 else piece))
    return tuple(parts)


def to_json(record: Record) -> dict[str, Any]:
    """Return the JSON form; `from_json` reads it back to an equal record."""
    meta: dict[str, Any] = {"kind": record.meta.kind.value, "source_id": record.meta.source_id}
    if record.meta.licence is not None:
        meta["licence"] = record.meta.licence
    if record.meta.lineage:
        meta["lineage"] = list(record.meta.lineage)
    if record.meta.extra:
        meta["extra"] = dict(record.meta.extra)
    turns = [_turn_json(turn) for turn in record.turns]
    return {"id": record.id, "images": list(record.images), "turns": turns, "meta": meta}


def from_json(row: Mapping[str, Any]) -> Record:
    """Read a row written by `to_json`."""
    meta = row["meta"]
    return Record(
        id=row["id"],
        images=tuple(row["images"]),
        turns=tuple(_turn_from_json(turn) for turn in row["turns"]),
        meta=Meta(
            kind=Kind(meta["kind"]),
            source_id=meta["source_id"],
            licence=meta.get("licence"),
            lineage=tuple(meta.get("lineage", ())),
            extra=meta.get("extra", {}),
        ),
    )


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written to a file; one with a lone surrogate cannot."""
    return as_unicode(text) == text


def as_unicode(text: str) -> str:
    """Return a text with "?" for every lone surrogate."""
    return text.encode(errors="replace").decode()


def _parts(content: Sequence[str | ImagePart]) -> tuple[Part, ...]:
    return tuple(TextPart(c) if isinstance(c, str) else c for c in content if c != "")


def _turn_json(turn: Turn) -> dict[str, Any]:
    row: dict[str, Any] = {"role": turn.role, "parts": [_part_json(part) for part in turn.parts]}
    if turn.style is not None:
        row["style"] = turn.style
    if turn.loss is not None:
        row["loss"] = turn.loss
    return row


def _part_json(part: Part) -> dict[str, Any]:
    return {"text": part.text} if isinstance(part, TextPart) else {"image": part.index}


def _turn_from_json(row: Mapping[str, Any]) -> Turn:
    parts = tuple(
        TextPart(p["text"]) if "text" in p else ImagePart(p["image"]) for p in row["parts"]
    )
    return Turn(row["role"], parts, row.get("style"), row.get("loss"))


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
