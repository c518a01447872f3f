"""Seed tasks for a synthesizer: VisionFLAN joined with ALLaVA by the name of the picture.

VisionFLAN gives the instruction and the precise answer, ALLaVA the caption and the informative
answer (arXiv 2411.19930, appendix B). A picture is one row, with every instruction that has both
answers; its first caption counts. The three files are LLaVA conversations as their owners publish
them, and the pictures may stay in the zip that they come in.

Of the texts all are in memory while the source is read: some half a gigabyte for 186,000 pictures.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from engine.diagnostics import StageError
from engine.plugin import Neutral
from engine.records import ImagePart, Kind, Turn, assistant, user
from engine.sources import (
    DigestFile,
    Locate,
    Problem,
    Row,
    Source,
    SourceContext,
    _files,
    _json_list,
)
from engine.sources._conversations import exchanges
from engine.sources._files import RowError

ZIP = ".zip"
Answers = dict[str, str]  # instruction -> answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the source `vision_flan`."""

    tasks: Annotated[str, Neutral(), "VisionFLAN's rows: its `metadata.json`."]
    captions: Annotated[str, Neutral(), "ALLaVA's captions: `ALLaVA-Caption-VFLAN-4V.json`."]
    answers: Annotated[str, Neutral(), "ALLaVA's answers: `ALLaVA-Instruct-VFLAN-4V.json`."]
    images: Annotated[
        str, Neutral(), "Folder of VisionFLAN's pictures, or the zip file that they come in."
    ]
    licence: Annotated[str | None, "Licence of the data, kept per row."] = None


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield a row for each picture, in the order in which VisionFLAN names them first."""
    joined = _joined(params, context)
    names = list(joined.tasks)
    with _Pictures(context.locate(params.images)) as pictures:
        for name in names if span is None else names[span.start : span.stop]:
            yield _row(name, joined, pictures, params.licence)


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of VisionFLAN's pictures."""
    return len(_joined(params, context).tasks)


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> dict[str, object]:
    """Return a digest over the three files, and over the zip or the pictures of the folder."""
    texts = {"tasks": params.tasks, "captions": params.captions, "answers": params.answers}
    for name in texts.values():
        if not locate(name).is_file():
            raise FileNotFoundError(f"the file `{name}` does not exist")
    named = [(role, locate(name)) for role, name in texts.items()]
    place = locate(params.images)
    if place.is_file():
        named.append(("images", place))
    else:
        root = _files.located_folder(params.images, locate)
        named += _files.relative(filter(_files.is_picture, _files.walk(root)), root)
    return _files.digest_of(named, digest_file)


@dataclass(frozen=True, slots=True)
class _Task:
    """What VisionFLAN says of a picture."""

    names: list[str]  # of its tasks
    precise: Answers


@dataclass(frozen=True, slots=True)
class _Joined:
    """The three files, by base name of the picture."""

    tasks: Mapping[str, _Task]
    captions: Mapping[str, str]
    informative: Mapping[str, Answers]
    unread: Mapping[str, Problem]  # pictures with a row of VisionFLAN that cannot be read


@lru_cache(maxsize=1)
def _joined(params: Params, context: SourceContext) -> _Joined:
    tasks: dict[str, _Task] = {}
    unread: dict[str, Problem] = {}
    for number, value in _values(params.tasks, context.locate):
        source_id = f"{Path(params.tasks).name} row {number}"
        name = _picture_name(value) or source_id
        task = tasks.setdefault(name, _Task([], {}))
        try:
            _add(task, value)
        except RowError as error:
            unread[name] = Problem(source_id, error.reason, error.detail)
    captions: dict[str, str] = {}
    for _, value in _values(params.captions, context.locate):
        for caption in _answers(value).values():
            captions.setdefault(_picture_name(value), caption)
    informative: dict[str, Answers] = {}
    for _, value in _values(params.answers, context.locate):
        informative.setdefault(_picture_name(value), {}).update(_answers(value))
    return _Joined(tasks, captions, informative, unread)


def _add(task: _Task, value: Any) -> None:
    """Add a row of VisionFLAN to what is known of its picture."""
    if not _picture_name(value):
        raise RowError("no image", "a row of VisionFLAN names no picture")
    name = value.get("task_name")
    if name and str(name) not in task.names:
        task.names.append(str(name))
    for instruction, answer in _exchanges(value):
        task.precise.setdefault(instruction, answer)


def _values(name: str, locate: Locate) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each item of a JSON list; raise StageError if it is cut off."""
    for number, (_, value) in enumerate(_json_list.items(locate(name)), start=1):
        if isinstance(value, json.JSONDecodeError):
            message = f"`{name}` is cut off or damaged after {number - 1:,} rows: {value}"
            raise StageError(message, hint="fetch the file again")
        yield number, value


def _picture_name(value: Any) -> str:
    image = value.get("image") if isinstance(value, Mapping) else None
    return PurePosixPath(image).name if isinstance(image, str) else ""


def _answers(value: Any) -> Answers:
    """Return instructions and answers of a conversation of ALLaVA; of a broken one, nothing."""
    try:
        return dict(_exchanges(value))
    except RowError:  # its picture lacks a caption or an answer, which is told where it is missed
        return {}


def _exchanges(value: Any) -> Iterator[tuple[str, str]]:
    messages = value.get("conversations") if isinstance(value, Mapping) else None
    return (pair for pair in exchanges(messages) if all(pair))


def _row(name: str, joined: _Joined, pictures: _Pictures, licence: str | None) -> Row | Problem:
    if name in joined.unread:
        return joined.unread[name]
    task, caption = joined.tasks[name], joined.captions.get(name)
    if caption is None:
        return Problem(name, "no caption", "ALLaVA's captions do not name it")
    turns: list[Turn] = [user(ImagePart(0)), assistant(caption)]
    for instruction, informative, precise in _matched(task.precise, joined.informative.get(name)):
        turns += [
            user(instruction),
            assistant(informative, style="informative"),
            assistant(precise, style="precise"),
        ]
    if len(turns) == 2:
        return Problem(name, "no informative answer", "ALLaVA answers none of its instructions")
    try:
        picture = pictures.read(name)
    except RowError as error:
        return Problem(name, error.reason, error.detail)
    extra = {"tasks": task.names} if task.names else {}
    return Row(name, (picture,), tuple(turns), Kind.SEED, licence, extra)


def _matched(precise: Answers, informative: Answers | None) -> Iterator[tuple[str, str, str]]:
    """Yield instruction, informative and precise answer of each instruction that has both."""
    if not informative:
        return
    if len(precise) == len(informative) == 1:  # whatever ALLaVA made of the instruction
        ((instruction, short),), (long,) = precise.items(), informative.values()
        yield instruction, long, short
        return
    for instruction, short in precise.items():
        if instruction in informative:
            yield instruction, informative[instruction], short


class _Pictures:
    """Pictures by base name, of a folder or a zip file."""

    def __init__(self, place: Path) -> None:
        self._zip = zipfile.ZipFile(place) if place.suffix.lower() == ZIP else None
        if self._zip is not None:
            members = [info.filename for info in self._zip.infolist() if not info.is_dir()]
            self._members = {PurePosixPath(member).name: member for member in members}
            self._read = self._from_zip
        else:
            self._read = partial(_files.read_under, place)

    def __enter__(self) -> _Pictures:
        return self

    def __exit__(self, *error: object) -> None:
        if self._zip is not None:
            self._zip.close()

    def read(self, name: str) -> bytes:
        """Return the bytes of a picture. Raise `RowError` if there are none."""
        return self._read(name)

    def _from_zip(self, name: str) -> bytes:
        assert self._zip is not None
        if name not in self._members:
            raise RowError("image file not found", name)
        try:
            return self._zip.read(self._members[name])
        except (OSError, zlib.error, zipfile.BadZipFile) as error:
            raise RowError("unreadable file", str(error)) from error


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows)
