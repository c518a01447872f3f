"""A sitting of `adapt review`: what the page is told, and what it may say."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from engine.cli.review_rows import Pictures
from engine.cli.review_sample import Task
from engine.rendering.rubrics import BY_NAME, RUBRICS
from engine.runtime.answers import Graded, fold
from engine.runtime.grades import Journal

SKIP, REVEAL = "skip", "reveal"


class RefusedError(Exception):
    """A request that is not obeyed; the message is for the person at the page."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Review:
    """A session of grading: the sample, what was said of it, and the journal."""

    recipe: str
    grader: str
    tasks: Sequence[Task]
    shown: Sequence[Mapping[str, Any]]
    pictures: Pictures
    journal: Journal
    _undo: list[tuple[str, str, Any]] = field(default_factory=list)  # task, what, value before
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> dict[str, Any]:
        """Return everything the page needs to begin."""
        with self._lock:
            graded = self._graded()
            told = {task.record.id: self._state(task, graded) for task in self.tasks}
        rubrics = [
            {
                "name": rubric.name,
                "question": rubric.question,
                "is_scale": rubric.is_scale,
                "answers": [
                    {"key": key, "value": value, "text": level}
                    for key, value, level in zip(
                        rubric.keys, rubric.values, rubric.levels, strict=True
                    )
                ],
            }
            for rubric in RUBRICS
        ]
        named = {"recipe": self.recipe, "grader": self.grader, "rubrics": rubrics}
        return {**named, "rows": list(self.shown), "graded": told}

    def say(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Keep an answer, or that a task is skipped; return where the task stands."""
        task, what, value = self._task(body), body.get("said"), body.get("value")
        if what == SKIP:
            if not isinstance(value, bool):
                raise RefusedError(HTTPStatus.BAD_REQUEST, "skipped or not is true or false")
        elif not isinstance(what, str) or what not in BY_NAME:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "there is no such rubric")
        elif value is not None and BY_NAME[what].level(value) is None:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"that is no answer to `{what}`")
        with self._lock:
            before = self._before(task, what)
            self._add(task, what, value)
            self._undo.append((task.record.id, what, before))
            return self._state(task, self._graded())

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take back the last answer of this sitting; return the task it was about."""
        del body
        with self._lock:
            if not self._undo:
                raise RefusedError(HTTPStatus.CONFLICT, "there is nothing to take back")
            name, what, before = self._undo[-1]
            task = next(task for task in self.tasks if task.record.id == name)
            self._add(task, what, before)
            self._undo.pop()
            return self._state(task, self._graded())

    def reveal(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what the filters did to a task that is graded; its grades are final then."""
        task = self._task(body)
        with self._lock:
            state = self._state(task, self._graded())
            if not state["is_done"] or state["is_skipped"]:
                raise RefusedError(HTTPStatus.CONFLICT, "grade the task first")
            if "verdict" not in state:
                self._add(task, REVEAL, True)
            return self._state(task, self._graded())

    def _add(self, task: Task, what: str, value: Any) -> None:
        graded = self._graded().get(task.record.id)
        if what != REVEAL and graded is not None and graded.is_revealed:
            message = "its verdict was shown, so its grades are final"
            raise RefusedError(HTTPStatus.CONFLICT, message)
        self.journal.add(task=task.record.id, row=task.facts, said=what, value=value)

    def _before(self, task: Task, what: str) -> Any:
        graded = self._graded().get(task.record.id)
        if what == SKIP:
            return graded is not None and graded.is_skipped
        return graded.grades.get(what) if graded is not None else None

    def _graded(self) -> dict[str, Graded]:
        return {found.task: found for found in fold(self.journal.events)}

    def _state(self, task: Task, graded: Mapping[str, Graded]) -> dict[str, Any]:
        """Return where a task stands; what the filters said only after it was asked for."""
        found = graded.get(task.record.id) or Graded(task.record.id, {})
        is_done = found.is_skipped or all(name in found.grades for name in BY_NAME)
        state = {
            "task": task.record.id,
            "grades": found.grades,
            "is_skipped": found.is_skipped,
            "is_done": is_done,
        }
        if found.is_revealed:
            state["verdict"] = {
                "set": task.of_set,
                "filter": task.filter,
                "reason": task.reason,
                "detail": task.detail,
            }
        return state

    def _task(self, body: Mapping[str, Any]) -> Task:
        name = body.get("task")
        found = next((task for task in self.tasks if task.record.id == name), None)
        if found is None:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "there is no such task in the sample")
        return found
