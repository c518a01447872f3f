"""One frame of the live view, as lines of styled text. Pure: what is shown where, no terminal.

A frame never has more lines than the terminal, however many nodes there are: a small plan shows
every node, a large one its stages, its arms and what is at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.cli import tables
from engine.cli.overview import GOOD, Group, Overview
from engine.rendering.summary import FUNNEL
from engine.runtime.status import UNDER_WAY, NodeStatus

BAR_LEAST, BAR_MOST = 8, 20
BAR_FROM = 60  # columns of a terminal that has room for bars
NAME_MOST = 44
MIN_LINES = 6


class Segment(NamedTuple):
    """A piece of a line in one style."""

    text: str
    style: str = ""


Line = list[Segment]


@dataclass(frozen=True, slots=True)
class Signs:
    """What stands for states and bars; another set for terminals that know ASCII alone."""

    states: dict[str, str]
    full: str
    empty: str
    arrow: str
    ellipsis: str


UNICODE = Signs(
    {
        "waiting": "·",
        "running": "●",
        "retrying": "↻",
        "ran": "✓",
        "cached": "✓",
        "linked": "✓",
        "failed": "✗",
        "skipped": "-",
        "stopped": "■",
    },
    full="━",
    empty="─",
    arrow="→",
    ellipsis="…",
)
ASCII = Signs(
    {
        "waiting": ".",
        "running": "*",
        "retrying": "~",
        "ran": "+",
        "cached": "+",
        "linked": "+",
        "failed": "x",
        "skipped": "-",
        "stopped": "#",
    },
    full="=",
    empty="-",
    arrow="->",
    ellipsis="~",
)
STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "retrying": "yellow",
    "ran": "green",
    "cached": "green dim",
    "linked": "green dim",
    "failed": "red bold",
    "skipped": "dim",
    "stopped": "yellow",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """Draws an overview for one size of the terminal, at one moment."""

    run: Overview
    now: float
    width: int
    height: int
    signs: Signs = UNICODE

    def lines(self) -> list[Line]:
        """Return the lines, at most as many as the terminal has, each at most as wide."""
        room = max(self.height - 1, MIN_LINES)  # the last line is the cursor's
        head, foot = self._head(), self._funnel()
        room -= len(head) + len(foot)
        arms = self._arms(room // 3) if len(self.run.arms) > 1 else []
        room -= len(arms)
        nodes = self._nodes() if len(self.run.plan.nodes) <= room else self._stages(room)
        found = [*head, *nodes, *arms, *foot]
        return [_cut(line, self.width, self.signs.ellipsis) for line in found]

    # The run ----------------------------------------------------------------------------------

    def _head(self) -> list[Line]:
        total = self.run.total()
        told = [f"{total.num_good:,} of {total.num:,} nodes"]
        told += [f"{total.states[s]:,} {s}" for s in ("failed", "skipped") if total.states[s]]
        if self.run.started_at is not None:
            told.append(tables.duration(self.now - self.run.started_at))
        left = self.run.time_left(self.now)
        told += [left] if left else []
        style = "red bold" if total.states["failed"] else "bold"
        lines = [[Segment(self.run.plan.recipe, style), Segment("  " + ", ".join(told))]]
        usage = self._usage([self.run.nodes[name] for name in self.run.lively])
        if usage and len(self.run.lively) > 1:
            lines.append([Segment(f"  {len(self.run.lively)} at work  {usage}", "dim")])
        return lines

    def _usage(self, nodes: Sequence[NodeStatus]) -> str:
        """Return what nodes take at the moment; empty before it was measured."""
        memory = sum(node.memory_gb for node in nodes)
        on_gpu = [node.gpu_memory_gb for node in nodes if node.gpu_memory_gb is not None]
        if not memory:
            return ""
        told = f"{tables.gigabytes(memory)}  cpu {sum(node.cpu_percent for node in nodes):.0f} %"
        return f"{told}  gpu {tables.gigabytes(sum(on_gpu))}" if on_gpu else told

    # Nodes ------------------------------------------------------------------------------------

    def _nodes(self) -> list[Line]:
        """Return a line per node, in the order of the plan."""
        ids = [node.id for node in self.run.plan.nodes]
        return self._node_lines(ids)

    def _node_lines(self, ids: Iterable[str]) -> list[Line]:
        names = list(ids)
        wide = min(max(map(len, names), default=0), NAME_MOST, max(self.width // 3, 12))
        return [self._node(name, wide) for name in names]

    def _node(self, name: str, wide: int) -> Line:
        status = self.run.nodes[name]
        style = STYLES.get(status.state, "")
        short = self._short(name, wide)
        line = [
            Segment(f"{self._sign(status.state)} ", style),
            Segment(tables.visible(short).ljust(wide), "" if status.state in UNDER_WAY else style),
        ]
        if status.state == "running" and not status.message:
            line += [Segment("  "), *self._progress(name, status)]
            fits = sum(len(segment.text) for segment in line) <= self.width
            return line if fits else line[:-1]  # what all take stands in the head
        return [*line, Segment(f"  {tables.visible(self._detail(name, status))}", style)]

    def _progress(self, name: str, status: NodeStatus) -> Line:
        """Return bar, amount, rate, time left and use of the machine."""
        pace = self.run.paces.get(name)
        told = _amount(status)
        if not told:
            since = status.started_at if status.started_at is not None else self.now
            told = f"for {tables.duration(self.now - since)}"
        rate, left = (pace.rate(), pace.left_s()) if pace is not None else (None, None)
        told += f"  {rate:,.{0 if rate >= 100 else 1}f}/s" if rate is not None else ""
        told += f"  {tables.duration(left)} left" if left is not None else ""
        line = self._bar(status.done, status.total)
        usage = self._usage([status])
        return [*line, Segment(told), Segment(f"  {usage}" if usage else "", "dim")]

    def _detail(self, name: str, status: NodeStatus) -> str:
        match status.state:
            case "waiting":
                return _some(self.run.waits_for(self.run.by_id[name]))
            case "ran":
                counted = _amount(status)
                return tables.duration(status.wall_s) + (f"  {counted}" if counted else "")
            case "cached" | "linked":
                return status.state
            case _:
                return status.message.partition("\n")[0]

    def _stages(self, room: int) -> list[Line]:
        """Return what is at work and what failed, as far as there is room, and the stages."""
        stages = list(self.run.stages.values())
        lines = [self._group(group, _widest(stages)) for group in stages]
        if len(lines) > room - 2:
            lines = lines[: max(room - 3, 1)]
        room -= len(lines)
        wanted = [*self.run.lively, *reversed(self.run.failed)]
        shown = wanted if len(wanted) <= room else wanted[: max(room - 1, 0)]
        found = self._node_lines(shown)
        if len(wanted) > len(shown) and room > 0:
            found.append([Segment(f"  and {len(wanted) - len(shown):,} more at work", "dim")])
        return [*lines, *found]

    # Groups -----------------------------------------------------------------------------------

    def _arms(self, room: int) -> list[Line]:
        """Return a line per arm; where there is no room for all, those at work and failed first."""
        arms = list(self.run.arms.values())
        room = max(room, 2)
        hidden = 0
        if len(arms) + 1 > room:
            arms.sort(key=_rank)
            hidden = len(arms) - (room - 2)
            arms = arms[: max(room - 2, 0)]
        own = [step for step in FUNNEL if step not in self._shared_steps()]
        wide = _widest(arms)
        lines = [[Segment("arms", "bold")], *(self._group(arm, wide, own) for arm in arms)]
        if hidden > 0:
            rest = f"  and {hidden:,} more of {len(self.run.arms):,}"
            lines.append([Segment(rest, "dim")])
        return lines

    def _group(self, group: Group, wide: int, own: Sequence[str] = ()) -> Line:
        state = _state(group)
        num = len(f"{len(self.run.plan.nodes):,}")
        counted = f"{group.num_good:>{num},} of {group.num:>{num},}"
        told = [
            f"{group.states[s]:,} {s}"
            for s in ("running", "retrying", "failed", "skipped", "stopped")
            if group.states[s]
        ]
        told += [f"{group.funnel[step]:,} {step}" for step in own if step in group.funnel]
        short = self._short(group.name, wide)
        return [
            Segment(f"{self._sign(state)} ", STYLES.get(state, "")),
            Segment(tables.visible(short).ljust(wide) + "  "),
            *self._bar(group.num_good, group.num),
            Segment(counted),
            Segment(f"  {', '.join(told)}" if told else "", STYLES.get(state, "")),
        ]

    def _funnel(self) -> list[Line]:
        """Return the rows after each step that no two arms differ in."""
        shared = self._shared_steps()
        if not shared:
            return []
        told = f" {self.signs.arrow} ".join(f"{num:,} {step}" for step, num in shared.items())
        return [[Segment("funnel  ", "bold"), Segment(told)]]

    def _shared_steps(self) -> dict[str, int]:
        shared = {}
        for step in FUNNEL:
            found = {arm.funnel[step] for arm in self.run.arms.values() if step in arm.funnel}
            if len(found) == 1:
                shared[step] = found.pop()
        return shared

    # Pieces -----------------------------------------------------------------------------------

    def _sign(self, state: str) -> str:
        return self.signs.states.get(state, "?")

    def _short(self, name: str, wide: int) -> str:
        """Return a name that fits: its beginning tells the stage, its end the arm."""
        if len(name) <= wide:
            return name
        end = (wide - 1) // 2
        return name[: wide - 1 - end] + self.signs.ellipsis + name[len(name) - end :]

    def _bar(self, done: int, total: int | None) -> Line:
        """Return a bar, or nothing where there is no room for one."""
        if self.width < BAR_FROM:
            return []
        wide = min(max(self.width // 10, BAR_LEAST), BAR_MOST)
        filled = min(wide, wide * done // total) if total else 0
        return [
            Segment(self.signs.full * filled, "green" if filled == wide else "cyan"),
            Segment(self.signs.empty * (wide - filled) + "  ", "dim"),
        ]


def _amount(status: NodeStatus) -> str:
    if status.done == status.total:
        return f"{status.done:,} {status.unit}"
    of = "" if status.total is None else f"/{status.total:,}"
    return f"{status.done:,}{of} {status.unit}" if status.done or of else ""


def _widest(groups: Sequence[Group]) -> int:
    return min(max((len(group.name) for group in groups), default=0), NAME_MOST)


def _state(group: Group) -> str:
    """Return the one state that stands for all nodes of a group."""
    for state in ("failed", "running", "retrying", "stopped", "skipped"):
        if group.states[state]:
            return state
    return "ran" if group.num_good == group.num else "waiting"


def _rank(group: Group) -> int:
    order = ("failed", "running", "retrying", "waiting", "stopped", "skipped", *GOOD)
    return order.index(_state(group))


def _some(names: Sequence[str]) -> str:
    """Return what a node waits for, in few words."""
    if not names:
        return "ready"
    return f"after {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _cut(line: Line, width: int, ellipsis: str) -> Line:
    """Return a line that fits, with a sign that something is missing."""
    if sum(len(segment.text) for segment in line) <= width:
        return line
    kept, room = [], width - len(ellipsis)
    for segment in line:
        kept.append(Segment(segment.text[:room], segment.style))
        room -= len(kept[-1].text)
        if room <= 0:
            break
    return [*kept, Segment(ellipsis, "dim")]
