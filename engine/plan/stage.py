"""What a stage is: a pure function from artifacts to an artifact, exported as a value.

A stage sees its inputs, its own params, an empty output folder and `tools`; no clock, environment,
network or other folder but through `tools`. Importing a stage imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from engine.artifacts import Inputs, Outputs

Item = TypeVar("Item")


class Port(NamedTuple):
    """One input of a stage."""

    name: str
    required: bool = True
    many: bool = False  # holds labelled artifacts instead of exactly one


class Needs(NamedTuple):
    """What a node asks of the machine."""

    accelerator: bool = False  # runs a model: a GPU where there is one
    all_threads: bool = False  # worth all cores but one (training); others get one
    sharded: bool = False  # may be run as several parts, each working on its share of the shards


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


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of the machine that may not change a result; from flags, environment or user file."""

    num_threads: int = 1  # torch threads of this node
    num_workers: int = 1  # processes this node may use beside itself
    device: str = "cpu"  # "cpu" or "cuda"
    num_devices: int = 1  # GPUs of this node; only training gets more than one
    is_offline: bool = True
    shrink: int = 0  # how often the node ran out of memory before: halve batches that often
    checkpoint_every_s: float = 600.0  # training keeps what it has at least this often


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

    def journal(
        self,
        name: str,
        batches: Sequence[Sequence[Item]],
        work: Callable[[Sequence[Item]], Sequence[Mapping[str, Any]]],
        unit: str,
    ) -> Iterator[dict[str, Any]]:
        """Stream the rows that `work` makes of each batch, in order.

        Each finished batch is kept in scratch, so a kill costs at most one batch; a rerun reads the
        finished ones back. `work` must depend on its batch alone. In a part only the share is
        worked on, nothing is yielded, and `PartDone` is raised at the end.
        """
        chosen = self.share(range(len(batches)))
        total = sum(len(batches[number]) for number in chosen)
        done = 0
        for number in chosen:
            path = self.scratch / f"{name}-{number:06d}.jsonl"
            if not path.exists():
                rows = work(batches[number])
                _write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
            done += len(batches[number])
            self.progress(done, total, unit)
            if self.part is None:
                with path.open(encoding="utf-8") as lines:
                    yield from (json.loads(line) for line in lines)
        self.end_part()


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


def _write_whole(path: Path, text: str) -> None:
    import secrets

    # Another run may be at work on the same shard.
    temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
