"""The chat template of any model, read by rendering it: which text is whose turn.

A template is a program, so its markers are found by running it on sentinels: the structure of a
conversation (roles, number of parts, places of images) is rendered once, cut at the sentinels, and
filled with any text. That also tells, to the character, what the model itself has to write.
A tokenizer without a template gives plain text: turns follow each other, answers end with the
end-of-text token.

Texts are data: a control token that is written out in a caption would end its turn and begin
another, and so would a marker that is plain text (`[/INST]`, `USER:`). A space after its first
character makes it a word like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.records import ImagePart, TextPart, Turn

_SENTINEL = "qx{}xq"
_CUT = re.compile(r"qx\d+xq")
_ROLES = ("user", "assistant")
_HIDDEN = "the chat template does not show every turn"
_MARKER_CHARS = 3  # shorter ones are ordinary text far more often than markers
_SIGN = re.compile(r"[^\w\s]")
_WORD_START = "(?:(?<![A-Za-z])|(?![A-Za-z]))"  # `USER:` ends no turn as a part of `SUPERUSER:`
# Control tokens that answers do hold: places in an image, of Qwen-VL, InternVL and PaliGemma.
_PLACE = re.compile(r"</?\|?(object_ref|ref|box|quad|loc|seg)(_start|_end|\d+)?\|?>")


class ChatError(ValueError):
    """A conversation cannot be written in the model's format; the message says why."""


@dataclass(frozen=True, slots=True)
class Markers:
    """What stands around a turn. A footer goes up to the header of the next turn."""

    header: str
    footer: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a rendered conversation: text, or the place of an image."""

    text: str
    image: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """What a model writes of one turn: from after the header to the end of its end marker.

    `joined_start` is where the turn before ends: a model that writes both turns writes the header
    between them as well. Places count pieces and characters: (piece, offset).
    """

    joined_start: tuple[int, int]
    start: tuple[int, int]
    end: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation in the model's format."""

    pieces: tuple[Piece, ...]
    spans: tuple[Span, ...]  # one per turn


@dataclass(slots=True)
class ChatFormat:
    """The format of one model. `renderer` is its processor or tokenizer."""

    renderer: Any
    image_marker: str | None  # what stands for an image in rendered text; None: sees no images
    eos: str
    control: re.Pattern[str] | None = None  # the tokens that texts may not hold, written out
    _skeletons: dict[Any, list[str]] = field(default_factory=dict)
    _markers: dict[str, Markers] = field(default_factory=dict)
    _trims: dict[str, bool] = field(default_factory=dict)
    _plain: re.Pattern[str] | None = None  # the markers of turns that are no control tokens

    @property
    def has_template(self) -> bool:
        """Tell whether the model has a chat format at all; a base LLM has none."""
        return bool(getattr(self.renderer, "chat_template", None))

    def markers(self, role: str) -> Markers:
        """Return header and footer of a role's turns."""
        if not self._markers:
            self._markers = self._find_markers()
        return self._markers[role]

    @property
    def opening(self) -> str:
        """Return what a prompt ends with when the assistant is to write."""
        return self._opening() if self.has_template else ""

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """Render whole turns. Raise ChatError for what the template cannot say."""
        structure = tuple(
            (turn.role, "".join("i" if isinstance(p, ImagePart) else "t" for p in turn.parts))
            for turn in turns
        )
        if structure not in self._skeletons:
            self._skeletons[structure] = self._skeleton(structure)
        return self._filled(turns, self._skeletons[structure])

    def prompt(self, turns: Sequence[Turn], opens: str) -> tuple[Piece, ...]:
        """Render turns and open the next one, for `opens` to be written by the model."""
        pieces = self.render(turns).pieces
        header = self.opening if opens == "assistant" else self.markers("user").header
        if opens == "user" and self.has_template and not header:
            raise ChatError("the model's format does not tell where a question begins")
        return (*pieces, Piece(header))

    def end_of_text(self) -> str:
        """Return what stands after the last turn of a dialogue that the model wrote alone.

        The end-of-text token follows the footer, also where the footer is that very token: a second
        one cannot mean the end of a turn.
        """
        return self.markers("assistant").footer + self.eos

    def split(self, text: str, role: str) -> tuple[list[tuple[str, str]], bool]:
        """Cut generated text, which starts inside a turn of `role`, into (role, text) turns.

        Returns the complete turns, and whether the end of the text was reached.
        """
        turns: list[tuple[str, str]] = []
        while True:
            if not text.strip() or (turns and text.lstrip().startswith(self.eos)):
                return turns, bool(text.strip())
            content, follower, rest = self._next_turn(text, role)
            if content is None:
                return turns, False
            turns.append((role, content.strip()))
            if follower is None:
                return turns, rest.strip().startswith(self.eos)
            role, text = follower, rest

    def _next_turn(self, text: str, role: str) -> tuple[str | None, str | None, str]:
        """Return a turn's text, the role of the turn after it, and what follows its header."""
        footer = self.markers(role).footer.rstrip() or self.eos
        content, found, rest = text.partition(footer)
        if not found:
            return None, None, ""
        for follower in _ROLES:
            header = self.markers(follower).header.strip()
            if header and rest.lstrip().startswith(header):
                return content, follower, rest.lstrip().removeprefix(header)
        return content, None, rest

    def words(self, text: str) -> str:
        """Return a text whose control tokens and markers of turns are words like any other."""
        if self.control is not None:
            text = self.control.sub(_broken, text)
        if self._plain is None:
            markers = self._plain_markers()
            self._plain = re.compile(f"{_WORD_START}(?:{_any_of(markers)})" if markers else "(?!)")
        return self._plain.sub(_broken, text)

    def _plain_markers(self) -> set[str]:
        """Return what of the markers is plain text; a bare word (`user`) marks nothing alone."""
        try:
            found = [self.markers(role) for role in _ROLES] if self.has_template else []
        except ChatError:  # a server may ask by a template that cannot be rendered here
            return set()
        texts = [text for one in found for text in (one.header, one.footer)]
        if self.control is not None:
            texts = [run for text in texts for run in self.control.split(text)]
        runs = {text.strip() for text in texts}
        return {run for run in runs if len(run) >= _MARKER_CHARS and _SIGN.search(run)}

    def _skeleton(self, structure: Sequence[tuple[str, str]]) -> list[str]:
        """Return the literals around the text parts of a conversation, first to last."""
        if not self.has_template:
            return self._plain_skeleton(structure)
        number = 0
        messages = []
        for role, parts in structure:
            content = []
            for part in parts:
                content.append(_message_part(part, number))
                number += part == "t"
            messages.append({"role": role, "content": self._content(content)})
        literals = _CUT.split(self._apply(messages))
        num_images = sum(parts.count("i") for _, parts in structure)
        if len(literals) != number + 1:
            raise ChatError(_HIDDEN)
        shown = sum(text.count(self.image_marker) for text in literals) if self.image_marker else 0
        if shown != num_images:
            raise ChatError(f"the chat template shows {shown} of {num_images} images")
        return literals

    def _plain_skeleton(self, structure: Sequence[tuple[str, str]]) -> list[str]:
        if any("i" in parts for _, parts in structure):
            raise ChatError("a model without a chat template cannot be shown images")
        literals = [""]
        for role, parts in structure:
            literals += [""] * (len(parts) - 1) + [self.eos if role == "assistant" else ""]
        return literals

    def _filled(self, turns: Sequence[Turn], literals: Sequence[str]) -> Rendered:
        pieces: list[Piece] = []
        spans: list[Span] = []
        num_images = 0
        rest = iter(literals)

        def add_literal(text: str) -> None:
            nonlocal num_images
            runs = text.split(self.image_marker) if self.image_marker else [text]
            for position, run in enumerate(runs):
                if position:
                    pieces.append(Piece(self.image_marker or "", num_images))
                    num_images += 1
                pieces.append(Piece(run))

        add_literal(next(rest))
        joined = (0, 0)
        for number, turn in enumerate(turns):
            start = self._write_start(turn, pieces)
            for part in turn.parts:
                if isinstance(part, TextPart):
                    pieces.append(Piece(self._trimmed(part.text, turn.role)))
                    add_literal(next(rest))
            is_last = number == len(turns) - 1
            after = len(pieces) - 1
            end = (after, self._footer_length(pieces[after].text, turn.role, is_last=is_last))
            spans.append(Span(joined, start, end))
            joined = end
        return Rendered(tuple(pieces), tuple(spans))

    def _write_start(self, turn: Turn, pieces: Sequence[Piece]) -> tuple[int, int]:
        """Return where the model begins to write: right after what opens the turn in a prompt."""
        last = len(pieces) - 1
        text = pieces[last].text
        if turn.role == "assistant" and self.has_template:
            extra = self.markers("assistant").header.removeprefix(self.opening)
            if extra and text.endswith(self.opening + extra):
                return last, len(text) - len(extra)
        return last, len(text)

    def _footer_length(self, literal: str, role: str, *, is_last: bool) -> int:
        footer = self.markers(role).footer.rstrip()
        if literal.startswith(footer):
            return len(footer)
        return len(literal) if is_last else 0

    def _find_markers(self) -> dict[str, Markers]:
        if not self.has_template:
            return {"user": Markers("", ""), "assistant": Markers("", self.eos)}
        one = self._literals(("user",))
        three = self._literals(("user", "assistant", "user"))
        two = self._literals(("user", "assistant"))
        answer_footer = _common_prefix(two[-1], three[2])
        question_footer = _common_prefix(one[-1], three[1])
        return {
            "user": Markers(three[2].removeprefix(answer_footer), question_footer),
            "assistant": Markers(three[1].removeprefix(question_footer), answer_footer),
        }

    def _opening(self) -> str:
        closed = self._apply([self._message("user", "qx0xq")])
        opened = self._apply([self._message("user", "qx0xq")], add_generation_prompt=True)
        return opened.removeprefix(closed)

    def _literals(self, roles: Sequence[str]) -> list[str]:
        messages = [self._message(role, _SENTINEL.format(i)) for i, role in enumerate(roles)]
        literals = _CUT.split(self._apply(messages))
        if len(literals) <= len(roles):
            raise ChatError(_HIDDEN)
        return literals

    def _message(self, role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": self._content([{"type": "text", "text": text}])}

    def _content(self, parts: list[dict[str, str]]) -> Any:
        """Return message content: a list for templates that show images, else a string."""
        if self.image_marker is not None:
            return parts
        if any(part["type"] == "image" for part in parts):
            raise ChatError("the model sees no images")
        return "".join(part["text"] for part in parts)

    def _trimmed(self, text: str, role: str) -> str:
        text = self.words(text)
        if not self.has_template:
            return text
        if role not in self._trims:
            others = [] if role == "user" else [self._message("user", "x")]
            shown = self._apply([*others, self._message(role, "  qx0xq  ")])
            self._trims[role] = "  qx0xq  " not in shown
        return text.strip() if self._trims[role] else text

    def _apply(self, messages: list[dict[str, Any]], **options: Any) -> str:
        try:
            return str(self.renderer.apply_chat_template(messages, tokenize=False, **options))
        except Exception as error:  # a template is a program of a stranger and raises what it likes
            raise ChatError(f"the chat template refuses the conversation: {error}") from error


def _message_part(kind: str, number: int) -> dict[str, str]:
    return {"type": "image"} if kind == "i" else {"type": "text", "text": _SENTINEL.format(number)}


def control_tokens(tokenizer: Any, image_marker: str | None) -> re.Pattern[str] | None:
    """Return what finds the written-out control tokens of a model, the longest at each place.

    The marker of images is none of them: a text that holds it does not fit its images, and says so.
    Neither are the tokens that name places in an image.
    """
    added = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    known = {token for token in added if not _PLACE.fullmatch(token)} - {image_marker, ""}
    return re.compile(_any_of(known)) if known else None


def _any_of(texts: Iterable[str]) -> str:
    """Return the pattern of any of some texts, the longest at each place."""
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))


def _broken(token: re.Match[str]) -> str:
    return f"{token[0][0]} {token[0][1:]}"


def _common_prefix(first: str, second: str) -> str:
    length = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    return first[:length]
