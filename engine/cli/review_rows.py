"""What the page shows of a sample: texts as they are, pictures made anew, nothing of the filters.

Texts are data and go out as JSON; the page puts them in place as text. Pictures are decoded and
encoded again, so the browser never reads bytes of the source, and reads every format we do.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine import plugin
from engine.artifacts import Artifact
from engine.cli.review_sample import Source, Task
from engine.diagnostics import StageError
from engine.images import ImageBank, ImageError, encode_png
from engine.records import Record, from_json
from engine.runtime.store import Store

MAX_SIDE_PX = 2048
PNG_BYTES = 4_000_000  # a larger picture is sent as JPEG
CACHED = 8  # pictures; the neighbours of the one that is looked at


@dataclass(slots=True)
class Pictures:
    """The pictures of a sample, by place."""

    bank: ImageBank
    digests: Sequence[str]
    _cache: dict[int, tuple[str, bytes] | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, place: int) -> tuple[str, bytes] | None:
        """Return kind and bytes of a picture; None when there is none that can be read."""
        with self._lock:
            if place not in self._cache:
                if len(self._cache) >= CACHED:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[place] = self._made(self.digests[place])
            return self._cache[place]

    def _made(self, digest: str) -> tuple[str, bytes] | None:
        if digest not in self.bank:
            return None
        try:
            picture = self.bank.open(digest)
        except ImageError:
            return None
        if max(picture.size) > MAX_SIDE_PX:
            picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        encoded = encode_png(picture)
        if len(encoded) <= PNG_BYTES:
            return "image/png", encoded
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=92)
        return "image/jpeg", buffer.getvalue()


def pictures(tasks: Sequence[Task], source: Source, store: Store) -> Pictures:
    """Return the pictures of a sample; none when an image file cannot be read."""
    found = _artifact(source, "collect", store)
    try:
        bank = ImageBank([found.path] if found is not None else [])
    except (OSError, ValueError):
        bank = ImageBank(())
    return Pictures(bank, [next(iter(task.record.images), "") for task in tasks])


def shown(tasks: Sequence[Task], source: Source, store: Store) -> list[dict[str, Any]]:
    """Return what the page shows of each task: nothing that tells what a filter said."""
    captions = _captions(tasks, source, store)
    joined = _Joined.of(source)
    return [
        {
            "task": task.record.id,
            "has_image": bool(task.record.images),
            "caption": next((captions[p] for p in task.record.meta.lineage if p in captions), ""),
            "instruction": task.record.instruction,
            "informative": _said(task.record, "informative"),
            "precise": _said(task.record, "precise"),
            "joined": joined.answer(task.record) if joined is not None else "",
        }
        for task in tasks
    ]


@dataclass(frozen=True, slots=True)
class _Joined:
    """Joins the answers of a task as the mix of its arm does."""

    mixer: Any

    @classmethod
    def of(cls, source: Source) -> _Joined | None:
        """Return it, or None for an arm whose mix this engine does not read."""
        from engine.stages import mix

        node = source.node("mix")
        if node is None:
            return None
        try:
            params = plugin.bind(mix.Params, node.params)
            caption, combine = (
                node.prompts[name] for name in (params.caption_prompt, params.combine_prompt)
            )
            return cls(mix.Mixer(params, node.seed, caption, combine))
        except (KeyError, TypeError, ValueError):
            return None

    def answer(self, task: Record) -> str:
        """Return the answer that is trained on; empty when it cannot be made."""
        try:
            return str(self.mixer.task(task, 0).answer)
        except (StageError, StopIteration, ValueError):
            return ""


def _captions(tasks: Sequence[Task], source: Source, store: Store) -> dict[str, str]:
    wanted = {pair for task in tasks for pair in task.record.meta.lineage}
    curated = _artifact(source, "curate", store)
    found: dict[str, str] = {}
    for row in curated.rows("pairs") if curated is not None else ():
        if row["id"] in wanted:
            found[row["id"]] = from_json(row).caption
            if len(found) == len(wanted):
                break
    return found


def _said(task: Record, style: str) -> str:
    return next((turn.text for turn in task.turns if turn.style == style), "")


def _artifact(source: Source, plain: str, store: Store) -> Artifact | None:
    """Return the artifact of a node with its files in place, if it is in the store."""
    node = source.node(plain)
    return store.fetch(node.key) if node is not None else None
