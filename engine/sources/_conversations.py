"""Reads conversations: LLaVA's `from`/`value`, and `role`/`content` with text or content parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.records import ImagePart, Part, TextPart, Turn, parts_from_markers
from engine.sources._files import RowError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def turns_of(messages: Any, num_images: int) -> tuple[Turn, ...]:
    """Return the turns of a conversation about `num_images` images.

    Raise `RowError` if user and assistant do not take turns, or if the places for images are not as
    many as the images.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise RowError("no conversations", "not a list of messages")
    turns: list[Turn] = []
    num_places = 0
    for message in messages:
        turn = _turn(message, num_places)
        num_places += sum(isinstance(part, ImagePart) for part in turn.parts)
        turns.append(turn)
    if num_places != num_images:
        detail = f"{num_places} image markers for {num_images} images"
        raise RowError("image markers do not match images", detail)
    roles = [turn.role for turn in turns]
    if len(turns) % 2 or roles != ["user", "assistant"] * (len(turns) // 2):
        raise RowError("user and assistant do not take turns", " ".join(roles)[:80])
    return tuple(turns)


def one_exchange(messages: Any) -> str:
    """Return the answer of a conversation of one question and one answer."""
    found = exchanges(messages)
    if len(found) != 1:
        raise RowError("more than one exchange", f"{2 * len(found)} turns")
    ((_, caption),) = found
    if not caption:
        raise RowError("no caption", "the answer is empty")
    return caption


def exchanges(messages: Any) -> list[tuple[str, str]]:
    """Return the texts of each question and its answer, wherever images stand in them."""
    turns = turns_of(messages, _num_places(messages))
    texts = [turn.text.strip() for turn in turns]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _num_places(messages: Any) -> int:
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        return 0
    turns = [_turn(message, 0) for message in messages]
    return sum(isinstance(part, ImagePart) for turn in turns for part in turn.parts)


def _turn(message: Any, first_image: int) -> Turn:
    if not isinstance(message, Mapping):
        raise RowError("no conversations", "a message is not a mapping")
    role = message.get("role", message.get("from"))
    if role not in ROLES:
        raise RowError("unknown role", f"role {role!r}")
    content = message.get("content", message.get("value"))
    return Turn(ROLES[role], _parts(content, first_image))


def _parts(content: Any, first_image: int) -> tuple[Part, ...]:
    if isinstance(content, str):
        return parts_from_markers(content, first_image=first_image)
    if not isinstance(content, Sequence):
        raise RowError("unknown content", f"content is {type(content).__name__}")
    parts: list[Part] = []
    for item in content:
        kind = item.get("type") if isinstance(item, Mapping) else type(item).__name__
        if kind == "text":
            parts.append(TextPart(str(item["text"])))
        elif kind == "image":
            num_before = sum(isinstance(part, ImagePart) for part in parts)
            parts.append(ImagePart(first_image + num_before))
        else:
            raise RowError("unknown content", f"content part {kind!r}")
    return tuple(parts)
