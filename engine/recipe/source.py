"""YAML text -> a tree of values in which every key and every value knows its place.

PyYAML's C parser gives events; the tree is built here, because its constructor forgets places,
accepts duplicate keys and reads YAML 1.1: `1e-4` a string, `no` a boolean, `22:22` a number.
Scalars follow the YAML 1.2 core schema. Tags, merge keys and alias bombs are refused.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.diagnostics import Diagnostic, RequestError, Span
from engine.recipe import scalars, syntax
from engine.recipe.scalars import Scalar

Place = tuple[str | int, ...]  # ("filters", "tasks", 0, "judge")

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 20_000  # after aliases are written out


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a mapping and the place of its key."""

    key: Span
    node: Node
    raw: str = ""  # the key as it is written; nothing where nobody wrote it


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place."""

    value: Scalar | tuple[Node, ...] | dict[str, Entry]
    span: Span
    raw: str = ""  # a scalar as it is written; nothing where nobody wrote it

    def entries(self) -> dict[str, Entry]:
        """Return the entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def text(self, key: str) -> str | None:
        """Return the text under a key, or None when it is missing or no text."""
        entry = self.entries().get(key)
        return entry.node.value if entry and isinstance(entry.node.value, str) else None

    def plain(self) -> Any:
        """Return the value as plain JSON."""
        if isinstance(self.value, dict):
            return {key: entry.node.plain() for key, entry in self.value.items()}
        if isinstance(self.value, tuple):
            return [item.plain() for item in self.value]
        return self.value


@dataclass(frozen=True, slots=True)
class Located:
    """Where a value stands, and its key when it has one."""

    key: Span | None
    value: Span
    is_scalar: bool
    raw_key: str = ""
    raw: str = ""


def places(node: Node) -> dict[Place, Located]:
    """Return where every value below a node stands, the node itself under ()."""
    return dict(_places(node, (), None, ""))


def read_file(path: Path, shown_as: str) -> Node:
    """Read a YAML file; `shown_as` is its name in diagnostics. Raise RequestError."""
    try:
        text = _bytes_of(path, shown_as).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise RequestError(
            Diagnostic("file-not-found", f"cannot read `{shown_as}`: {reason.lower()}")
        ) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", errors="replace")
        raise RequestError(
            Diagnostic(
                "not-utf8",
                f"`{shown_as}` is not UTF-8 text",
                syntax.span_after(before, shown_as),
                "save the file as UTF-8",
            )
        ) from None
    return read(text, shown_as)


def _bytes_of(path: Path, shown_as: str) -> bytes:
    """Return what is in a plain file of reasonable size: a pipe or a device might never end."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(0, "it is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is a device or a pipe, not a file")
    if found.st_size > MAX_BYTES:
        size = f"{found.st_size / 1e6:.1f} MB"
        message = f"`{shown_as}` holds {size}; a recipe has at most {MAX_BYTES // 1_000_000} MB"
        hint = "a recipe names data and does not hold it: `source: {use: ..., path: ...}`"
        raise RequestError(Diagnostic("too-large", message, Span(shown_as, 0, 0), hint))
    return path.read_bytes()


def read(text: str, file: str) -> Node:
    """Read YAML text. Raise RequestError with every mistake that can be seen at once."""
    return _Reader(text, file).read()


def _places(
    node: Node, place: Place, key: Span | None, raw_key: str
) -> Iterator[tuple[Place, Located]]:
    is_scalar = not isinstance(node.value, dict | tuple)
    yield place, Located(key, node.span, is_scalar, raw_key, node.raw)
    if isinstance(node.value, dict):
        for name, entry in node.value.items():
            yield from _places(entry.node, (*place, name), entry.key, entry.raw)
    elif isinstance(node.value, tuple):
        for index, item in enumerate(node.value):
            yield from _places(item, (*place, index), None, "")


class _Stop(Exception):  # noqa: N818  # ends reading; the mistake is already noted
    pass


class _Reader:
    """Builds the tree from parser events and notes mistakes instead of stopping at the first."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.mistakes: list[Diagnostic] = []
        self.anchors: dict[str, tuple[Node, int]] = {}  # with the number of values inside
        self.open_anchors: set[str] = set()
        self.open_brackets: list[Span] = []
        self.num_values = 0
        self.events: Iterator[Any] = iter(())

    def read(self) -> Node:
        root = None
        try:
            self.events = yaml.parse(self.text, Loader=yaml.CSafeLoader)
            root = self._document()
        except yaml.YAMLError as error:
            found = syntax.mistake(error, self.text, self.file, self.open_brackets)
            self.mistakes.append(found)
        except UnicodeEncodeError as error:  # bytes of the command line that are no text
            span = syntax.span_after(self.text[: error.start], self.file)
            self._note("not-utf8", "this is not UTF-8 text", span, "write it in UTF-8")
        except _Stop:
            pass
        if self.mistakes or root is None:
            raise RequestError(*self.mistakes)
        return root

    def _document(self) -> Node:
        next(self.events)  # stream start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            self._note("empty-file", f"`{self.file}` is empty", Span(self.file, 1, 1))
            raise _Stop
        root = self._node(next(self.events), 0)
        next(self.events)  # document end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._note(
                "several-documents",
                "a file holds one YAML document; a second one begins here",
                self._span(event),
                "remove `---`, or put it into a file of its own",
            )
        return root

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            message = f"values are nested more than {MAX_DEPTH} levels deep"
            self._note("too-deep", message, self._span(event))
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(1, event)
        if event.tag is not None:
            self._note(
                "tag",
                f"the tag `{_short_tag(event.tag)}` is not allowed: a recipe holds plain values",
                self._span(event),
                "remove the tag; quote a value to make it text",
            )
        return self._anchored(event, depth) if event.anchor else self._plain(event, depth)

    def _anchored(self, event: Any, depth: int) -> Node:
        before = self.num_values
        self.open_anchors.add(event.anchor)
        node = self._plain(event, depth)
        self.open_anchors.discard(event.anchor)
        self.anchors[event.anchor] = (node, self.num_values - before + 1)
        return node

    def _plain(self, event: Any, depth: int) -> Node:
        span = self._span(event)
        if isinstance(event, yaml.ScalarEvent):
            return Node(self._scalar(event, span), span, self._raw(event))
        if event.flow_style:
            self.open_brackets.append(span)
        is_list = isinstance(event, yaml.SequenceStartEvent)
        node = Node(tuple(self._items(depth)) if is_list else self._mapping(depth), span)
        if event.flow_style:
            self.open_brackets.pop()
        return node

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _mapping(self, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, span, raw = self._key(event, depth), self._span(event), self._raw(event)
            node = self._node(next(self.events), depth + 1)
            if key is None:
                continue
            if key in entries:
                first = entries[key].key.line
                self._note(
                    "duplicate-key",
                    f"`{key[:60]}` is written twice in the same section",
                    span,
                    f"the first one is in line {first}; keep one of them",
                )
                continue
            entries[key] = Entry(span, node, raw)
        return entries

    def _key(self, event: Any, depth: int) -> str | None:
        """Return the text of a key, or None after noting why it is none."""
        span = self._span(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, depth + 1)
            self._note("complex-key", "a key must be a plain word", span)
            return None
        if event.value == "<<" and event.implicit[0]:
            self._note(
                "merge-key",
                "the merge key `<<` is not allowed",
                span,
                "put what is shared into a parent recipe and name it with `extends:`",
            )
            return None
        return str(event.value)

    def _alias(self, event: Any) -> Node:
        if event.anchor in self.open_anchors:
            self._note("alias", f"`*{event.anchor}` stands inside itself", self._span(event))
            raise _Stop
        if event.anchor not in self.anchors:
            self._note("alias", f"no anchor `&{event.anchor}` before this", self._span(event))
            return Node(None, self._span(event))
        node, size = self.anchors[event.anchor]
        self._count(size, event)
        return Node(node.value, self._span(event))

    def _count(self, size: int, event: Any) -> None:
        self.num_values += size
        if self.num_values > MAX_VALUES:
            message = f"the file holds more than {MAX_VALUES} values, aliases written out"
            self._note("too-many-values", message, self._span(event))
            raise _Stop

    def _scalar(self, event: Any, span: Span) -> Scalar:
        if not event.implicit[0]:
            return str(event.value)
        try:
            return scalars.parsed(event.value)
        except scalars.AmbiguousNumberError as error:
            self._note("number", f"`{event.value[:40]}` {error}", span, error.hint)
        except ValueError:
            self._note(
                "number", f"`{event.value[:40]}` is not a number that a recipe can hold", span
            )
        return None

    def _note(self, code: str, message: str, span: Span, hint: str | None = None) -> None:
        self.mistakes.append(Diagnostic(code, message, span, hint))

    def _raw(self, event: Any) -> str:
        return self.text[event.start_mark.index : event.end_mark.index]

    def _span(self, event: Any) -> Span:
        mark = event.start_mark
        return Span(self.file, mark.line + 1, mark.column + 1)


def _short_tag(tag: str) -> str:
    """Return a tag as it is written."""
    return tag.replace("tag:yaml.org,2002:", "!!", 1)
