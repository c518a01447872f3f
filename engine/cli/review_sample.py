"""Which tasks of a run a person grades: a seeded sample, the same for every grader.

A task is in a sample by the digest of its id, so a larger sample holds the smaller one, and a rerun
that made the same tasks has the same sample.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.artifacts import Artifact
from engine.diagnostics import Diagnostic, RequestError, nearest
from engine.plan.stage import Node, Plan
from engine.records import Record, from_json
from engine.runtime.runs import Run
from engine.runtime.store import Store

KEPT, DROPPED, GENERATED = "kept", "dropped", "generated"
MIXED = "mixed"  # as many kept as dropped, so that the filter is measured with the fewest grades
FILTER, REPAIRED = "filter", "filter/repaired"  # plain ids: of tasks as generated, and mended ones


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tasks are chosen."""

    num: int
    of_set: str  # MIXED, KEPT, DROPPED or GENERATED
    seed: int


@dataclass(frozen=True, slots=True)
class Task:
    """A task with what the filters did to it, which the grader must not see first."""

    record: Record
    of_set: str  # KEPT or DROPPED
    filter: str | None = None
    reason: str | None = None
    detail: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Return what its grades are to be told apart by."""
        image = self.record.images[0] if self.record.images else self.record.id
        return {"image": image, "set": self.of_set, "filter": self.filter, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Source:
    """Where tasks come from."""

    plan: Plan
    filter: Node

    @property
    def is_repaired(self) -> bool:
        """Tell whether the tasks are those whose answers were written again."""
        return _plain(self.filter) == REPAIRED

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the arms that share the tasks."""
        return self.filter.arms

    def node(self, plain: str) -> Node | None:
        """Return a node of the first of those arms by its plain id: `mix` for `mix@lora`."""
        arm = self.arms[0]
        return next((n for n in self.plan.nodes if _plain(n) == plain and arm in n.arms), None)


def sources(run: Run) -> list[Source]:
    """Return where the tasks of a run come from: once for arms that share them."""
    plan = run.plan()
    nodes = [node for node in plan.nodes if _plain(node) in (FILTER, REPAIRED) and node.arms]
    return [Source(plan, node) for node in nodes]


def source_of(run: Run, arm: str | None, *, is_repaired: bool = False) -> Source:
    """Return where the tasks of an arm come from, or of the first that has any."""
    found = [source for source in sources(run) if source.is_repaired == is_repaired]
    if not found:
        what, key = (
            ("repairs", "generator.repair_prompt") if is_repaired else ("generates", "generator")
        )
        raise _none(f"run `{run.id}` {what} no tasks", f"name a run whose recipe has `{key}`")
    if arm is None:
        return found[0]
    chosen = next((source for source in found if arm in source.arms), None)
    if chosen is None:
        names = [name for source in found for name in source.arms]
        close = nearest(arm, names)
        hint = f"`{close}` is close" if close else f"its arms: {', '.join(names)}"
        message = f"run `{run.id}` has no arm `{arm}` with tasks"
        raise RequestError(Diagnostic("unknown-arm", message, hint=hint))
    return chosen


def filtered(run: Run, source: Source, store: Store) -> Artifact:
    """Return the filtered tasks. Raise RequestError if they are not in the store."""
    artifact = store.get(source.filter.key)
    if artifact is None:
        message = f"node `{source.filter.id}` of run `{run.id}` is not finished"
        raise RequestError(Diagnostic("not-finished", message, hint=f"`adapt status {run.id}`"))
    return artifact


def draw(tasks: Artifact, sampling: Sampling) -> list[Task]:
    """Return the sample in the order in which it is graded. Raise RequestError if it is empty."""
    order = _Order(tasks.manifest.key, sampling.seed)
    halves = [
        _first(tasks, name, sampling.num, order)
        for name in (KEPT, DROPPED)
        if sampling.of_set in (MIXED, GENERATED, name)
    ]
    if sampling.of_set == MIXED:
        halves = _balanced(*halves, num=sampling.num)
    chosen = [task for half in halves for task in half]
    if not chosen:
        what = "" if sampling.of_set == MIXED else f" in `{sampling.of_set}`"
        raise _none(
            f"there are no tasks{what} to review", "`adapt show` counts what each node made"
        )
    return sorted(chosen, key=lambda task: order.place(task.record.id))[: sampling.num]


def population(tasks: Artifact) -> dict[str, int]:
    """Return how many tasks were kept and dropped in all."""
    return {name: tasks.num_rows(name) for name in (KEPT, DROPPED)}


@dataclass(frozen=True, slots=True)
class _Order:
    """A seeded order of tasks that no other task has a part in."""

    of: str
    seed: int

    def place(self, task: str) -> int:
        """Return where a task stands, by its id."""
        name = f"{self.of}/{self.seed}/{task}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")


def _balanced(kept: list[Task], dropped: list[Task], *, num: int) -> list[list[Task]]:
    """Return half of each; what one has too few of comes from the other."""
    num_dropped = min(len(dropped), max(num // 2, num - len(kept)))
    return [kept[: num - num_dropped], dropped[:num_dropped]]


def _first(tasks: Artifact, of_set: str, num: int, order: _Order) -> list[Task]:
    """Return the first tasks of a set in an order, each once; memory holds no more than these."""
    heap: list[tuple[int, str]] = []  # of places turned round, so that the last comes off first
    chosen: dict[str, Mapping[str, Any]] = {}
    for row in tasks.rows(of_set):
        name = row["id"] if of_set == KEPT else row["record"]["id"]
        place = -order.place(name)
        if name in chosen or (len(heap) == num and place < heap[0][0]):
            continue
        chosen[name] = row
        heapq.heappush(heap, (place, name))
        if len(heap) > num:
            del chosen[heapq.heappop(heap)[1]]
    found = [_task(row, of_set) for row in chosen.values()]
    return sorted(found, key=lambda task: order.place(task.record.id))


def _task(row: Mapping[str, Any], of_set: str) -> Task:
    if of_set == KEPT:
        return Task(from_json(row), KEPT)
    told = {what: row.get(what) for what in ("filter", "reason", "detail")}
    return Task(from_json(row["record"]), DROPPED, **told)


def _plain(node: Node) -> str:
    """Return the id of a node without its arm."""
    return node.id.partition("@")[0]


def _none(message: str, hint: str) -> RequestError:
    return RequestError(Diagnostic("no-tasks", message, hint=hint))
