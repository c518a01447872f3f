"""Makes rows from the columns of a table: the shapes that image-text data sets come in.

`columns` maps our name of a column to the data set's; a name that is not mapped stands for itself.
A picture with a list of captions is one pair, whose caption is all of them, repeats left out.
Spellings of other tools are offered in messages and never guessed: a wrong caption column would
train a model on file names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from engine.diagnostics import StageError, nearest
from engine.records import (
    IMAGE_MARKER,
    ImagePart,
    Kind,
    Part,
    TextPart,
    Turn,
    assistant,
    parts_from_markers,
    user,
)
from engine.sources import Problem, Row
from engine.sources._conversations import one_exchange, turns_of
from engine.sources._files import RowError

OPTION_LETTERS = ("A", "B", "C", "D", "E")
NAMES = {
    "pairs": ("image", "images", "caption", "conversations", "messages"),
    "questions": (
        *("image", "images", "question", "answer", "answer_type", "options", "cluster"),
        *OPTION_LETTERS,
    ),
    "chat": ("image", "images", "conversations", "messages"),
    "seeds": ("image", "caption", "instruction", "informative", "precise", "task"),
}
# What a table must have, where it is known before the first row is read.
NEEDED = {
    "pairs": (("image", "images"), ("caption", "conversations", "messages")),
    "questions": (("image", "images"), ("question",), ("answer",)),
    "chat": (("conversations", "messages"),),
    "seeds": (("image",), ("caption",), ("instruction",), ("informative",), ("precise",)),
}
ALIASES = {
    "image": ("image", "images", "image_path", "img", "jpg", "png", "file_name"),
    "caption": ("caption", "text", "txt", "description"),
    "question": ("question", "query", "prompt", "input", "instruction"),
    "answer": ("answer", "response", "output", "target", "label"),
}
ReadImage = Callable[[str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowParams:
    """What the rows of a table mean."""

    task: Annotated[
        Literal["pairs", "questions", "chat", "seeds"],
        "Image-caption pairs, benchmark questions, training chats, or seed tasks.",
    ] = "pairs"
    columns: Annotated[
        Mapping[str, str], "Our name of a column -> the data set's, as {caption: text}."
    ] = field(default_factory=dict)
    answer_type: Annotated[str | None, "Answer type of all questions without such a column."] = None
    licence: Annotated[str | None, "Licence of the data, kept per row."] = None

    def column(self, name: str) -> str:
        """Return the data set's name of a column."""
        return self.columns.get(name, name)


def check_names(params: RowParams) -> None:
    """Raise ValueError for a name in `columns` that rows of this task do not have."""
    known = (*NAMES[params.task], "id")
    for name in params.columns:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean `{close}`?" if close else f"it has {listed(known)}"
            raise ValueError(f"`columns` of task {params.task} has no name `{name}`; {hint}")


def wanted(params: RowParams) -> frozenset[str]:
    """Return the data set's names of all columns that rows of this task may use."""
    return frozenset(params.column(name) for name in (*NAMES[params.task], "id"))


def check_header(params: RowParams, header: Iterable[str], what: str) -> None:
    """Raise `StageError` if a table lacks a column that its rows need."""
    there = list(header)
    for choices in NEEDED[params.task]:
        if not any(params.column(name) in there for name in choices):
            name = next((name for name in choices if name in params.columns), choices[0])
            raise StageError(
                f"{what} has no column `{params.column(name)}`; it has {listed(there)}",
                hint=_suggestion(name, there),
                code="unknown-column",
                about=("columns", name),
            )


def build(
    raw: Mapping[str, Any], params: RowParams, source_id: str, read_image: ReadImage
) -> Row | Problem:
    """Return the row that a table row stands for, or why there is none."""
    named = raw.get(params.columns["id"]) if "id" in params.columns else None
    source_id = source_id if named is None else str(named)
    try:
        return _BUILDERS[params.task](_Fields(raw, params, source_id, read_image))
    except RowError as error:
        return Problem(source_id, error.reason, error.detail)


@dataclass(frozen=True, slots=True)
class _Fields:
    """One table row, read by our names."""

    raw: Mapping[str, Any]
    params: RowParams
    source_id: str
    read_image: ReadImage

    def get(self, name: str) -> Any:
        return self.raw.get(self.params.column(name))

    def text(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise RowError(f"no {name}", _suggestion(name, self.raw) or "")
        if not isinstance(value, str | int | float):
            raise RowError(f"{name} is not a text", type(value).__name__)
        text = _as_text(value)
        if not text:
            raise RowError(f"no {name}", "it is empty")
        return text

    def texts(self, name: str) -> str:
        """Return a text, or several of them (five captions of one picture) as one."""
        listed = self.get(name)
        if not isinstance(listed, list | tuple):
            return self.text(name)
        texts = dict.fromkeys(_as_text(item) for item in listed if item is not None)
        joined = " ".join(text for text in texts if text)
        if not joined:
            raise RowError(f"no {name}", "it is an empty list")
        return joined

    def images(self) -> tuple[bytes, ...]:
        value = self.get("image")
        if value is None:
            value = self.get("images")
        if value is None or value == []:
            return ()
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(_encoded(item, self.read_image) for item in listed)

    def image(self) -> bytes:
        found = self.images()
        if not found:
            raise RowError("no image", _suggestion("image", self.raw) or "")
        if len(found) > 1:
            raise RowError("more than one image", f"{len(found)} images")
        return found[0]

    def messages(self) -> Any:
        found = self.get("conversations")
        return self.get("messages") if found is None else found

    def row(
        self, images: tuple[bytes, ...], turns: Iterable[Turn], kind: Kind, **extra: Any
    ) -> Row:
        kept = {name: value for name, value in extra.items() if value}
        return Row(self.source_id, images, tuple(turns), kind, self.params.licence, kept)


def _pair(fields: _Fields) -> Row:
    if fields.get("caption") is None and fields.messages() is not None:
        caption = one_exchange(fields.messages())
    else:
        caption = fields.texts("caption")
    turns = (user(ImagePart(0)), assistant(caption))
    return fields.row((fields.image(),), turns, Kind.PAIR)


def _question(fields: _Fields) -> Row:
    images = fields.images()
    references = _references(fields.get("answer"))
    options = _options(fields)
    turns = (
        Turn("user", _question_parts(fields.text("question"), len(images))),
        *(assistant(reference) for reference in references),
    )
    named = fields.get("answer_type") or fields.params.answer_type
    answer_type = _as_text(named).lower() if named else _answer_type(references, options)
    cluster = fields.get("cluster") if "cluster" in fields.params.columns else None
    extra = {"answer_type": answer_type, "options": options, "cluster": cluster}
    return fields.row(images, turns, Kind.QUESTION, **extra)


def _chat(fields: _Fields) -> Row:
    images = fields.images()
    if fields.messages() is None:
        raise RowError("no conversations", "neither `conversations` nor `messages`")
    return fields.row(images, turns_of(fields.messages(), len(images)), Kind.CHAT)


def _seed(fields: _Fields) -> Row:
    turns = (
        user(ImagePart(0)),
        assistant(fields.texts("caption")),
        user(fields.text("instruction")),
        assistant(fields.text("informative"), style="informative"),
        assistant(fields.text("precise"), style="precise"),
    )
    named = fields.get("task") if "task" in fields.params.columns else None
    tasks = [] if named is None else [_as_text(named)]
    return fields.row((fields.image(),), turns, Kind.SEED, tasks=tasks)


_BUILDERS: Mapping[str, Callable[[_Fields], Row]] = {
    "pairs": _pair,
    "questions": _question,
    "chat": _chat,
    "seeds": _seed,
}


def _question_parts(text: str, num_images: int) -> tuple[Part, ...]:
    """Return a question's parts: images where its markers are, or all in front of it."""
    if IMAGE_MARKER not in text:
        return (*(ImagePart(index) for index in range(num_images)), TextPart(text))
    num_markers = text.count(IMAGE_MARKER)
    if num_markers != num_images:
        detail = f"{num_markers} image markers for {num_images} images"
        raise RowError("image markers do not match images", detail)
    return parts_from_markers(text)


def _references(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list | tuple) else [value]
    texts = tuple(_as_text(item) for item in listed if item is not None)
    found = tuple(text for text in texts if text)
    if not found:
        raise RowError("no answer")
    return found


def _options(fields: _Fields) -> list[str]:
    listed = fields.get("options")
    if isinstance(listed, Mapping):
        listed = list(listed.values())
    if not isinstance(listed, list | tuple):
        listed = [fields.get(letter) for letter in OPTION_LETTERS]
    return [_as_text(option) for option in listed if option is not None]


def _answer_type(references: tuple[str, ...], options: list[str]) -> str:
    if options:
        return "choice"
    closed = all(text.lower().strip(".") in ("yes", "no") for text in references)
    return "yes_no" if closed else "open"


def _encoded(value: Any, read_image: ReadImage) -> bytes:
    """Return encoded bytes: given as they are, as Hugging Face's {bytes, path}, or by a path."""
    if isinstance(value, Mapping):
        value = value["path"] if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str):
        return read_image(value)
    if not isinstance(value, bytes):
        raise RowError("image is not a path or bytes", type(value).__name__)
    if not value:
        raise RowError("empty file")
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).strip()


def _suggestion(name: str, there: Iterable[str]) -> str | None:
    alias = next((a for a in ALIASES.get(name, ()) if a in list(there)), nearest(name, there))
    return f"if `{alias}` is meant, say so: columns: {{{name}: {alias}}}" if alias else None


def listed(names: Iterable[str]) -> str:
    """Return names in backticks, as a message shows them."""
    return ", ".join(f"`{name}`" for name in names) or "none"
