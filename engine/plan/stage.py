"""What a stage is: a pure function from artifacts to an artifact, exported as a value.

A stage sees its inputs, its own params, an empty output folder and `tools`; no clock, environment,
network or other folder but through `tools`. Importing a stage imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from engine.plan import journal

if TYPE_CHECKING:
    from engine.artifacts import Inputs, Outputs

Item = TypeVar("Item")
Work = Callable[  # numbered batches -> their rows
    [Iterator[tuple[int, Sequence[Item]]]], Iterator[tuple[int, Iterable[Mapping[str, Any]]]]
]


class Port(NamedTuple):
    """One input of a stage."""

    name: str
    required: bool = True
    many: bool = False  # holds labelled artifacts instead of exactly one
    # The row sets, files and folders that the stage reads; `{name}` stands for the param `name`.
    # Empty: all. What is not read, above all a ledger, may change without the stage running again.
    reads: tuple[str, ...] = ()


class Needs(NamedTuple):
    """What a node asks of the machine."""

    accelerator: bool = False  # runs a model: a GPU where there is one
    all_threads: bool = False  # worth all cores but one (training); others get one
    sharded: bool = False  # may be run as several parts, each working on its share of the shards
    # Finds out by itself which row crashes its process, so a crash is no reason to give up soon.
    isolates: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One of several processes that work on the shards of one node side by side."""

    index: int  # 0 .. count - 1
    count: int


class PartDone(BaseException):
    """A part has done its share; what follows is for the process that puts the shards together.

    Not an `Exception`, so that no stage catches it by accident.
    """


class Stopped(BaseException):
    """The process was asked to stop, and what it had is saved; not an `Exception`, as above."""


class Run(Protocol):
    """The work of a stage. Returns nothing: results are in `outputs`, facts in its counts."""

    def __call__(self, inputs: Inputs, params: Any, outputs: Outputs, tools: Tools) -> None:
        """Fill `outputs`."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage. Bump `version` whenever the same inputs and params would give another result."""

    name: str
    version: int
    inputs: tuple[Port, ...]
    params: type
    needs: Needs
    run: Run

    def reads(self, params: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return what is read of the artifacts on each port that names it; params as JSON."""
        return {
            port.name: tuple(name.format_map(params) for name in port.reads)
            for port in self.inputs
            if port.reads
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of the machine that may not change a result; from flags, environment or user file."""

    num_threads: int = 1  # torch threads of this node
    device: str = "cpu"  # "cpu" or "cuda"
    num_devices: int = 1  # GPUs of this node
    device_memory_gb: float = 0.0  # of each; 0: what the device says
    is_offline: bool = True
    shrink: int = 0  # how often the node ran out of memory before: halve batches that often
    checkpoint_every_s: float = 600.0  # training keeps what it has at least this often
    has_crashed: bool = False  # the process before this one, at the same work, ended by a crash


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything outside its inputs that a stage may touch."""

    seed: int
    scratch: Path  # survives a kill; removed when the node's artifact is published
    prompts: Mapping[str, str]  # template text by "name@version"
    machine: Machine
    locate: Callable[[str], Path]  # a path written in the recipe -> where it is
    locate_model: Callable[[str], str]  # a model written in the recipe -> folder or hub id
    log: Callable[[str], None]
    progress: Callable[[int, int | None, str], None]  # done, total (None: unknown), unit
    part: Part | None = None  # set where this process works on a share of the shards only
    stopping: Callable[[], bool] = _never  # true once asked to stop: save what is done, and raise

    def share(self, numbers: Sequence[int]) -> list[int]:
        """Return the shards this process works on: all, or the share of its part."""
        if self.part is None:
            return list(numbers)
        return [number for number in numbers if number % self.part.count == self.part.index]

    def end_part(self) -> None:
        """End a process that works on a part only; do nothing in the one that works on all."""
        if self.part is not None:
            raise PartDone

    def has(self, name: str, number: int) -> bool:
        """Tell whether the rows of a shard are kept in scratch, whole."""
        return journal.is_whole(journal.shard_path(self.scratch, name, number))

    def keep(self, name: str, number: int, work: Callable[[], Iterable[Any]]) -> list[Any]:
        """Return the rows of a shard: those kept in scratch, else those of `work`, kept now."""
        return journal.kept(self.scratch, name, number, work)

    def shards(
        self,
        name: str,
        batches: Callable[[], Iterable[Sequence[Item]]],
        work: Work[Item],
        unit: str,
        total: int,
    ) -> Iterator[tuple[Sequence[Item], list[dict[str, Any]]]]:
        """Stream batches with the rows that `work` makes of each; `total` counts all their items.

        `work` gets the numbered batches that are not kept yet, may read ahead, and yields the rows
        of each batch when it has them, in any order. Each is kept in scratch at once, so a kill
        costs what is in hand; a rerun reads the finished ones back. Rows must depend on their batch
        alone. In a part only its share is worked on, nothing is yielded, and `PartDone` is raised.
        """
        expected = total if self.part is None else -(-total // self.part.count)  # about its share
        done, sizes = 0, {}

        def missing() -> Iterator[tuple[int, Sequence[Item]]]:
            nonlocal done
            for number, batch in enumerate(batches()):
                if not self.share([number]):
                    continue
                if self.has(name, number):
                    done += len(batch)
                else:
                    sizes[number] = len(batch)
                    yield number, batch

        for number, rows in work(missing()):
            journal.write(journal.shard_path(self.scratch, name, number), rows)
            done += sizes.pop(number)
            self.progress(done, max(done, expected), unit)
        assert not sizes, "work left batches out"
        self.progress(done, done, unit)
        self.end_part()
        for number, batch in enumerate(batches()):
            yield batch, self.keep(name, number, partial(_only, work, number, batch))


def _only(work: Work[Item], number: int, batch: Sequence[Item]) -> Iterable[Mapping[str, Any]]:
    """Make one batch's rows again: a shard that was whole a moment ago is damaged now."""
    ((_, rows),) = work(iter([(number, batch)]))
    return rows


@dataclass(frozen=True, slots=True)
class Node:
    """One planned stage. The key is a function of its ingredients alone."""

    id: str  # for people: "collect", "evaluate.answers/base/pocket_cells"
    stage: str
    params: Mapping[str, Any]  # bound, canonical JSON, neutral fields included
    inputs: Mapping[str, Mapping[str, str]]  # port -> label -> node id
    key: str
    preimage: Mapping[str, Any]
    seed: int
    prompts: Mapping[str, str]  # "name@version" -> text
    origin: Mapping[str, Any]  # file (as given), line, column of the recipe line that asked for it
    arms: tuple[str, ...] = ()  # the matrix arms that use this node
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True, slots=True)
class Plan:
    """Nodes in topological order."""

    recipe: str  # name of the recipe
    nodes: tuple[Node, ...]

    def node(self, node_id: str) -> Node:
        """Return a node by id; raise KeyError if there is none."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)
