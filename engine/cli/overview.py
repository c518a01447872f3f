"""A run as a whole, kept up to date event by event: stages, arms, funnel, pace and time left.

An event costs the same however many nodes there are, for a matrix may have ten thousand.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine.cli import tables
from engine.diagnostics import RequestError
from engine.plan import graph
from engine.plan.estimate import Estimate, Past, estimate
from engine.plan.stage import Node, Plan
from engine.rendering.summary import FUNNEL_FROM
from engine.runtime import events
from engine.runtime.eventlog import LogReader
from engine.runtime.events import Event, NodeEvent
from engine.runtime.runs import Run
from engine.runtime.status import UNDER_WAY, Fold, NodeStatus, RunStatus
from engine.runtime.store import Store
from engine.runtime.timings import measurements

PACE_S = 30.0
PACE_STEP_S = 0.25
TIME_LEFT_EVERY_S = 3.0
GOOD = ("ran", "cached", "linked")
STATES = (*GOOD, "running", "retrying", "failed", "skipped", "stopped", "waiting")
Counts = Mapping[str, float]


@dataclass(slots=True)
class Group:
    """Nodes that are counted together: those of an arm, or of a stage."""

    name: str
    states: Counter[str] = field(default_factory=Counter)
    funnel: dict[str, int] = field(default_factory=dict)  # of an arm, as far as it is known

    @property
    def num(self) -> int:
        """How many nodes it has."""
        return self.states.total()

    @property
    def num_good(self) -> int:
        """How many of them have their artifact."""
        return sum(self.states[state] for state in GOOD)

    def counted(self) -> dict[str, int]:
        """Return how many nodes are in each state, where there are any."""
        return {state: self.states[state] for state in STATES if self.states[state]}

    def to_json(self) -> dict[str, Any]:
        """Return the form of an arm in schemas/event.schema.json."""
        return {"name": self.name, "states": self.counted(), "funnel": dict(self.funnel)}


class Pace:
    """How fast a node is, over the last half minute: start-up and rows read back are no work."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._last: events.NodeProgress | None = None

    def add(self, event: events.NodeProgress) -> None:
        """Take in progress, of which there may be thousands a second."""
        self._last = event
        if self._seen and 0 <= event.time - self._seen[-1][0] < PACE_STEP_S:
            return
        self._seen.append((event.time, event.done))
        while len(self._seen) > 2 and self._seen[0][0] < event.time - PACE_S:
            self._seen.popleft()

    def rate(self) -> float | None:
        """Return units a second, or None while it cannot be told."""
        if self._last is None:
            return None
        since, done = self._seen[0]
        if self._last.done <= done or self._last.time <= since:
            return None
        return (self._last.done - done) / (self._last.time - since)

    def left_s(self) -> float | None:
        """Return how many seconds are left, or None while it cannot be told."""
        rate = self.rate()
        if rate is None or self._last is None or not self._last.total:
            return None
        return max(0.0, (self._last.total - self._last.done) / rate)

    def parts(self) -> list[str]:
        """Return rate and time left in words, as far as they can be told."""
        rate, left = self.rate(), self.left_s()
        if rate is None or self._last is None:
            return []
        told = [f"{rate:.1f} {self._last.unit}/s"]
        return told if left is None else [*told, f"{tables.duration(left)} left"]


class Overview:
    """What a display shows of a run.

    `counts_of` gives what an artifact counted, for nodes whose event does not say it; `expected`
    says how many seconds nodes took before.
    """

    def __init__(
        self,
        plan: Plan,
        counts_of: Callable[[Node], Counts] = lambda node: {},
        expected: Mapping[str, float] | None = None,
    ) -> None:
        self.plan = plan
        self.by_id = {node.id: node for node in plan.nodes}
        self._parents = {node.id: graph.parents(node) for node in plan.nodes}
        self.run = ""
        self.started_at: float | None = None
        self.changed_at = 0.0
        self.state = "running"
        self.num_unreadable = 0  # lines of its log
        self.lively: dict[str, None] = {}  # running or retrying, in the order they started
        self.failed: dict[str, None] = {}
        self.paces: dict[str, Pace] = {}
        self._fold = Fold()
        self._fold.nodes = dict.fromkeys(self.by_id, NodeStatus())
        self._counts_of = counts_of
        self._expected = dict(expected or {})
        self._took: dict[str, tuple[float, int]] = {}  # stage -> seconds in all, nodes
        self._left: tuple[float, float, int] | None = None  # when found, seconds, unknown nodes
        self._count()

    @property
    def nodes(self) -> Mapping[str, NodeStatus]:
        """Where each node stands."""
        return self._fold.nodes

    def add(self, event: Event) -> None:
        """Take in an event."""
        self.changed_at = event.time
        if isinstance(event, events.RunStarted | events.RunFinished | events.RunStopped):
            self._fold.add(event)
            status = self._fold.status()
            self.run, self.state, self.started_at = status.run, status.state, status.started_at
            self._count()
            return
        before = self._fold.nodes.get(event.node)
        self._fold.add(event)
        if isinstance(event, events.NodeProgress):
            self.paces.setdefault(event.node, Pace()).add(event)
        after = self._fold.nodes[event.node]
        if before is not None and before.state != after.state and event.node in self.by_id:
            self._move(self.by_id[event.node], before.state, after, event)

    def status(self) -> RunStatus:
        """Return where the run stands."""
        return self._fold.status()

    def total(self) -> Group:
        """Return all nodes as one group."""
        states: Counter[str] = Counter()
        for group in self.stages.values():
            states += group.states
        return Group("all", states)

    def waits_for(self, node: Node) -> list[str]:
        """Return the inputs that a node still lacks."""
        wanted = sorted(self._parents[node.id])
        return [name for name in wanted if self.nodes[name].state not in GOOD]

    def time_left(self, now: float) -> str:
        """Return how long the run will still take, in words; empty while nothing tells it."""
        if self._left is None or not 0 <= now - self._left[0] < TIME_LEFT_EVERY_S:
            self._left = (now, *self._find_time_left(now))
        _, seconds, num_unknown = self._left
        if not seconds or not self.lively:
            return ""
        return f"{'more than' if num_unknown else 'about'} {tables.duration(seconds)} left"

    def _count(self) -> None:
        """Sort the nodes into stages and arms, from nothing."""
        self.stages: dict[str, Group] = {}
        self.arms: dict[str, Group] = {}
        self.lively, self.failed = {}, {}
        for node in self.plan.nodes:
            status = self._fold.nodes.get(node.id, NodeStatus())
            self.stages.setdefault(node.stage, Group(node.stage)).states[status.state] += 1
            for arm in node.arms:
                self.arms.setdefault(arm, Group(arm)).states[status.state] += 1
            self._sort(node, status)

    def _sort(self, node: Node, status: NodeStatus) -> None:
        if status.state in UNDER_WAY:
            self.lively[node.id] = None
        else:
            self.lively.pop(node.id, None)
        if status.state == "failed":
            self.failed[node.id] = None
        else:
            self.failed.pop(node.id, None)
        if status.state in GOOD:
            self._add_to_funnel(node, status)

    def _move(self, node: Node, before: str, status: NodeStatus, event: NodeEvent) -> None:
        for group in (self.stages[node.stage], *(self.arms[arm] for arm in node.arms)):
            group.states[before] -= 1
            group.states[status.state] += 1
        if status.state not in UNDER_WAY:
            self.paces.pop(node.id, None)
        if isinstance(event, events.NodeFinished):
            seconds, num = self._took.get(node.stage, (0.0, 0))
            self._took[node.stage] = (seconds + event.wall_s, num + 1)
        self._sort(node, status)

    def _add_to_funnel(self, node: Node, status: NodeStatus) -> None:
        plain = node.id.partition("@")[0]
        wanted = {step: name for step, (of, name) in FUNNEL_FROM.items() if of == plain}
        if not wanted:
            return
        counts = status.counts or self._counts_of(node)
        found = {step: int(counts[name]) for step, name in wanted.items() if name in counts}
        for arm in node.arms:
            self.arms[arm].funnel |= found

    def _find_time_left(self, now: float) -> tuple[float, int]:
        """Return the larger of the longest chain and of all work shared out as it is now.

        Also returns how many nodes have no time yet; they count nothing.
        """
        total, num_unknown = 0.0, 0
        ends: dict[str, float] = {}
        for node in self.plan.nodes:
            seconds = self._left_of(node, now)
            num_unknown += seconds is None
            total += seconds or 0.0
            before = max((ends[name] for name in self._parents[node.id]), default=0.0)
            ends[node.id] = before + (seconds or 0.0)
        longest = max(ends.values(), default=0.0)
        return max(longest, total / max(1, len(self.lively))), num_unknown

    def _left_of(self, node: Node, now: float) -> float | None:
        status = self.nodes[node.id]
        if status.state not in ("waiting", *UNDER_WAY):
            return 0.0
        pace = self.paces.get(node.id)
        by_pace = pace.left_s() if pace is not None else None
        if by_pace is not None:
            return by_pace
        seconds, num = self._took.get(node.stage, (0.0, 0))
        whole = self._expected.get(node.id, seconds / num if num else None)
        if whole is None:
            return None
        return max(0.0, whole - (now - status.started_at)) if status.started_at else whole


def of_plan(plan: Plan, store: Store, expected_s: Mapping[str, float] | None = None) -> Overview:
    """Return the overview of a run that begins, or is followed from its beginning."""
    if expected_s is None:
        past = Past(measurements(store))
        expected_s = expected({node.id: estimate(node, plan.recipe, past) for node in plan.nodes})
    return Overview(plan, partial(_stored_counts, store), expected_s)


def of_run(run: Run, store: Store) -> Overview:
    """Return the overview of a run as it is now. Takes no lock and writes nothing."""
    found = of_plan(plan_of(run), store)
    log = LogReader(run.events_path)
    for event in log.latest():
        found.add(event)
    found.num_unreadable = log.num_unreadable
    return found


def plan_of(run: Run) -> Plan:
    """Return the plan of a run; an empty one if its file is damaged: the log still tells much."""
    try:
        return run.plan()
    except RequestError:
        return Plan("", ())


def _stored_counts(store: Store, node: Node) -> Counts:
    artifact = store.get(node.key)
    return artifact.manifest.counts if artifact is not None else {}


def expected(
    guesses: Mapping[str, Estimate | None], forecast_s: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return how many seconds nodes will take: what they took, else a forecast, else their kin."""
    known = {name: guess for name, guess in guesses.items() if guess is not None}
    own = {name: guess.wall_s for name, guess in known.items() if guess.is_own}
    return {name: guess.wall_s for name, guess in known.items()} | dict(forecast_s or {}) | own
