"""Tiny stages that stand in for real ones, and plans made of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts import Inputs, Outputs
from engine.diagnostics import EngineDiedError, StageError
from engine.plan import keys
from engine.plan.stage import Needs, Node, Plan, Port, Stage, Stopped, Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class CountParams:
    num_rows: int = 3
    note: str = ""  # moves the key, not the result
    ledger: str = ""  # moves the ledger, not the rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowParams:
    num_batches: int = 3
    batch_s: float = 0.05
    marks: str = ""  # a file that gets a line per batch really worked on


@dataclass(frozen=True, slots=True, kw_only=True)
class FailParams:
    how: str = "stage"
    marks: str = ""  # a file that gets a line per attempt
    times: int = 1_000  # attempts that fail


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkParams:
    num_mb: int = 0
    ballast: str = ""  # a file that fills its disk, unless it is there already
    num_words: int = 0  # progress messages after that, each of them logged


def _count(inputs: Inputs, params: CountParams, outputs: Outputs, tools: Tools) -> None:
    for number in range(params.num_rows):
        outputs.rows("rows").write({"number": number})
        tools.progress(number + 1, params.num_rows, "rows")
    if params.ledger:
        outputs.quarantine("x", params.ledger)
    tools.log(f"wrote {params.num_rows} rows with seed {tools.seed}")


def _learn(inputs: Inputs, params: CountParams, outputs: Outputs, tools: Tools) -> None:
    for step in range(1, params.num_rows + 1):
        outputs.rows("losses").write({"step": step, "loss": 1 / step})


def _double(inputs: Inputs, params: CountParams, outputs: Outputs, tools: Tools) -> None:
    for artifact in inputs.many("rows").values():
        for row in artifact.rows("rows"):
            outputs.rows("rows").write({"number": 2 * row["number"]})


def _slow(inputs: Inputs, params: SlowParams, outputs: Outputs, tools: Tools) -> None:
    def work(batch: Any) -> list[dict[str, int]]:
        time.sleep(params.batch_s)
        if params.marks:
            with Path(params.marks).open("a") as marks:
                marks.write(f"{batch[0]}\n")
        return [{"number": batch[0]}]

    def works(todo: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, list[dict[str, int]]]]:
        return ((number, work(batch)) for number, batch in todo)

    batches = [[number] for number in range(params.num_batches)]
    for _, rows in tools.shards("batch", lambda: batches, works, "batches", len(batches)):
        outputs.rows("rows").write(rows[0])


def _fail(inputs: Inputs, params: FailParams, outputs: Outputs, tools: Tools) -> None:
    print("about to fail", flush=True)
    if params.marks:
        with Path(params.marks).open("a") as marks:
            marks.write(f"{tools.machine.shrink}\n")
        if len(Path(params.marks).read_text().splitlines()) > params.times:
            outputs.rows("rows").write({"number": 1})
            return
    if params.how == "network":
        raise ConnectionResetError("the server hung up")
    if params.how == "memory":
        raise MemoryError
    if params.how == "stage":
        raise StageError("there are no rows to read", hint="choose another source")
    if params.how == "bug":
        raise ZeroDivisionError("division by zero")
    if params.how == "engine":
        raise EngineDiedError("the engine died")
    os.kill(os.getpid(), signal.SIGABRT if params.how == "abort" else signal.SIGKILL)


def _isolating(inputs: Inputs, params: FailParams, outputs: Outputs, tools: Tools) -> None:
    outputs.write_json("has_crashed.json", tools.machine.has_crashed)
    _fail(inputs, params, outputs, tools)


def _bulk(inputs: Inputs, params: BulkParams, outputs: Outputs, tools: Tools) -> None:
    with outputs.file("bulk.bin").open("wb") as file:
        for number in range(params.num_mb):
            file.write(bytes([number]) * (1 << 20))
            tools.progress(number + 1, params.num_mb, "MB")
    if params.ballast and not Path(params.ballast).exists():
        with Path(params.ballast).open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
    for number in range(params.num_words):
        tools.progress(number, number, "words")


def _late(inputs: Inputs, params: SlowParams, outputs: Outputs, tools: Tools) -> None:
    _slow(inputs, params, outputs, tools)
    for artifact in inputs.many("rows").values():
        for row in artifact.rows("rows"):
            outputs.rows("read").write(row)


def _family(inputs: Inputs, params: SlowParams, outputs: Outputs, tools: Tools) -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        _slow(inputs, params, outputs, tools)
        child.kill()


def _fail_in_parts(inputs: Inputs, params: FailParams, outputs: Outputs, tools: Tools) -> None:
    if tools.part is not None and tools.part.index > 0:
        time.sleep(60)
    _fail(inputs, params, outputs, tools)


def _environment(inputs: Inputs, params: CountParams, outputs: Outputs, tools: Tools) -> None:
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONHASHSEED", "HF_HUB_OFFLINE")
    facts = {name: os.environ.get(name) for name in names}
    facts["num_threads"] = str(tools.machine.num_threads)
    outputs.write_json("facts.json", facts)


def _on_gpu(inputs: Inputs, params: SlowParams, outputs: Outputs, tools: Tools) -> None:
    """Note when this process has the GPU."""
    began = time.monotonic()
    time.sleep(params.batch_s)
    line = f"{os.environ['CUDA_VISIBLE_DEVICES']} {began} {time.monotonic()}\n"
    with Path(params.marks).open("a") as marks:
        marks.write(line)
    outputs.write_json("done.json", True)


def _stoppable(inputs: Inputs, params: SlowParams, outputs: Outputs, tools: Tools) -> None:
    """Count to the end, from where a stop left off: as training does between its steps."""
    saved = tools.scratch / "saved"
    first = int(saved.read_text()) if saved.exists() else 0
    for number in range(first, params.num_batches):
        if tools.stopping():
            saved.write_text(str(number))
            raise Stopped
        time.sleep(params.batch_s)
        tools.progress(number + 1, params.num_batches, "batches")
    outputs.write_json("first.json", first)


MANY = (Port("rows", required=False, many=True),)
ROWS = (Port("rows", required=False, many=True, reads=("rows",)),)
STAGES = {
    stage.name: stage
    for stage in (
        Stage("count", 1, (), CountParams, Needs(), _count),
        Stage("double", 1, ROWS, CountParams, Needs(), _double),
        Stage("learn", 1, MANY, CountParams, Needs(), _learn),
        Stage("slow", 1, MANY, SlowParams, Needs(), _slow),
        Stage("sharded", 1, MANY, SlowParams, Needs(sharded=True), _slow),
        Stage("on_gpu", 1, MANY, SlowParams, Needs(accelerator=True), _on_gpu),
        Stage("stoppable", 1, MANY, SlowParams, Needs(), _stoppable),
        Stage("fail", 1, MANY, FailParams, Needs(), _fail),
        Stage("fail_in_parts", 1, MANY, FailParams, Needs(sharded=True), _fail_in_parts),
        Stage("isolating", 1, MANY, FailParams, Needs(isolates=True), _isolating),
        Stage("report", 1, MANY, FailParams, Needs(), _fail),
        Stage("bulk", 1, MANY, BulkParams, Needs(), _bulk),
        Stage("late", 1, MANY, SlowParams, Needs(), _late),
        Stage("family", 1, MANY, SlowParams, Needs(), _family),
        Stage("environment", 1, MANY, CountParams, Needs(all_threads=True), _environment),
    )
}


class PlanBuilder:
    """Builds plans for tests: `add` returns the id, so that nodes can be chained."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, node_id: str, *inputs: str, stage: str | None = None, **params: Any) -> str:
        chosen = STAGES[stage or node_id.split("/")[0]]
        by_id = {node.id: node for node in self.nodes}
        preimage = {
            "stage": chosen.name,
            "version": chosen.version,
            "params": params,
            "inputs": {"rows": {name: by_id[name].key for name in inputs}} if inputs else {},
            "seed": 7,
        }
        self.nodes.append(
            Node(
                id=node_id,
                stage=chosen.name,
                params=params,
                inputs={"rows": {name: name for name in inputs}} if inputs else {},
                key=keys.digest(preimage),
                preimage=preimage,
                seed=7,
                prompts={},
                origin={"file": "fake.yaml", "line": 1, "column": 1},
                needs=chosen.needs,
            )
        )
        return node_id

    def plan(self) -> Plan:
        return Plan("fake", tuple(self.nodes))
