"""What a run costs when its tasks do nothing: whole, again, after one change; ours beside others.

    python -m tests.bench.run_speed --work /tmp/bench                everything, three minutes
    python -m tests.bench.run_speed --work /tmp/bench --only ours    no other tool, half a minute

The same nine tasks for each tool (`projects.NEEDS`), one process a task. In turns, in one run: from
nothing, again, and with another value for `third`, counting the tasks that ran. The table gives the
median (range, number) of processor time of the whole process tree, and multiples of ours. Ours runs
through `nine.py`: command line, plan cache, store, executor, processes and event log are the real
ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench import peers, projects
from tests.bench.measure import Cost, cost, seconds, spread

TOOLS = ("ours", "dvc", "snakemake", "floor")
NINE = str(Path(__file__).with_name("nine.py"))
QUESTIONS = ("help", "whole", "again", "after one change")
CHANGED = "third"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool with its nine tasks."""

    name: str
    folder: Path
    environ: Mapping[str, str]
    commands: Mapping[str, Sequence[str]]  # question -> command
    forget: Callable[[], object]  # back to a project that never ran
    change: Callable[[int], object]  # give CHANGED another value
    num_ran: Callable[[Cost], int]


@dataclass(slots=True)
class Row:
    """One command of one tool, measured several times."""

    question: str
    tool: str
    costs: list[Cost] = field(default_factory=list)
    num_ran: set[int] = field(default_factory=set)


def ours(work: Path) -> Tool:
    """Return ours."""
    folder = projects.floor(work / "projects" / "run-ours")
    cache = work / "projects" / "run-ours-cache"
    environ = {**peers.environment(work), "XDG_CACHE_HOME": str(cache)}
    run = [sys.executable, NINE, "run", "nine.yaml", "--offline", "--json"]
    path = folder / "nine.yaml"

    def change(value: int) -> None:
        path.write_text(re.sub(rf'({CHANGED}: .*"value": )\d+', rf"\g<1>{value}", path.read_text()))

    def forget() -> None:
        shutil.rmtree(folder / ".adapt", ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)

    def num_ran(found: Cost) -> int:
        result = json.loads(found.stdout.splitlines()[-1])
        return sum(node["state"] == "ran" for node in result["nodes"])

    environ |= {"PYTHONPATH": str(peers.ROOT)}
    commands = {"help": peers.ours("--help"), **dict.fromkeys(QUESTIONS[1:], run)}
    return Tool("ours", folder, environ, commands, forget, change, num_ran)


def dvc(work: Path) -> Tool | None:
    """Return DVC, or None when it cannot be installed."""
    binaries = peers.ready(work, "dvc")
    if binaries is None:
        return None
    environ = peers.environment(work, binaries)
    folder = projects.dvc(work / "projects" / "run-dvc", environ)

    def forget() -> None:
        for name in ("made", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "made").mkdir()
        (folder / "dvc.lock").unlink(missing_ok=True)

    repro = ["dvc", "repro"]
    commands = {"help": ["dvc", "--help"], **dict.fromkeys(QUESTIONS[1:], repro)}
    return Tool(
        "dvc", folder, environ, commands, forget,
        lambda value: _set(folder / "params.yaml", value),
        lambda found: len(re.findall(r"^Running stage", found.stdout, re.MULTILINE)),
    )  # fmt: skip


def snakemake(work: Path) -> Tool | None:
    """Return Snakemake, or None when it cannot be installed."""
    binaries = peers.ready(work, "snakemake")
    if binaries is None:
        return None
    folder = projects.snakemake(work / "projects" / "run-snakemake")

    def forget() -> None:
        for name in ("made", ".snakemake"):
            shutil.rmtree(folder / name, ignore_errors=True)

    run = ["snakemake", "--cores", "2"]
    return Tool(
        "snakemake", folder, peers.environment(work, binaries),
        {"help": ["snakemake", "--help"], **dict.fromkeys(QUESTIONS[1:], run)}, forget,
        lambda value: _set(folder / "config.yaml", value),
        lambda found: len(re.findall(r"^(?:local)?rule (?!everything)\w+:", found.stderr, re.M)),
    )  # fmt: skip


def floor(work: Path) -> Tool:
    """Return what Python itself takes: a start that does nothing, and nine more of them."""
    folder = peers.fresh(work / "projects" / "run-floor")
    nine = f"import subprocess, sys\nfor _ in range({len(projects.NEEDS)}):\n"
    nine += " subprocess.run([sys.executable, '-c', 'pass'])"
    return Tool(
        "floor", folder, peers.environment(work),
        {"again": [sys.executable, "-c", "pass"], "whole": [sys.executable, "-c", nine]},
        lambda: None, lambda value: None, lambda found: 0,
    )  # fmt: skip


def _set(path: Path, value: int) -> None:
    path.write_text(
        re.sub(rf"^{CHANGED}: .*$", f"{CHANGED}: {value}", path.read_text(), flags=re.M)
    )


def measure(tool: Tool, rows: Mapping[tuple[str, str], Row], number: int) -> None:
    """Ask one tool every question once."""
    tool.change(1)
    tool.forget()
    for question in QUESTIONS:
        if question not in tool.commands:
            continue
        if question == "after one change":
            tool.change(2 + number)
        # What was written a moment ago is hashed again by all of them.
        time.sleep(0.0 if question == "help" else 2.5 if question == "again" else 0.1)
        found = cost(tool.commands[question], folder=tool.folder, environ=tool.environ)
        if found.exit_code:
            print(f"{tool.name}, {question}: {found.exit_code}\n{found.stderr}", file=sys.stderr)
            continue
        row = rows[question, tool.name]
        row.costs.append(found)
        if question != "help":
            row.num_ran.add(tool.num_ran(found))


def document(rows: Sequence[Row], versions: Mapping[str, str]) -> dict[str, object]:
    """Return the measurements as one JSON document."""
    ours = {row.question: _median(row) for row in rows if row.tool == "ours" and row.costs}
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    found = [
        {
            "question": row.question,
            "tool": row.tool,
            "cpu_s": asdict(spread([one.cpu_s for one in row.costs])),
            "wall_s": asdict(spread([one.wall_s for one in row.costs])),
            "num_ran": sorted(row.num_ran),
            "times_ours": _median(row) / ours[row.question] if row.question in ours else None,
        }
        for row in rows
        if row.costs
    ]
    return {"machine": machine, "versions": dict(versions), "rows": found}


def _median(row: Row) -> float:
    return spread([found.cpu_s for found in row.costs]).median


def table(found: Mapping[str, object]) -> str:
    """Return the document as a table in Markdown."""
    lines = [
        "| question | tool | processor time (range; n) | wall (range) | tasks ran | times ours |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:  # type: ignore[attr-defined]
        cpu, wall = row["cpu_s"], row["wall_s"]
        times = "" if row["times_ours"] is None else f"{row['times_ours']:.1f}"
        ran = ", ".join(map(str, row["num_ran"])) if row["tool"] != "floor" else ""
        lines.append(
            f"| {row['question']} | {row['tool']} | **{seconds(cpu['median'])}** "
            f"({seconds(cpu['low'])} - {seconds(cpu['high'])}; {cpu['num']}) | "
            f"{seconds(wall['median'])} ({seconds(wall['low'])} - {seconds(wall['high'])}) | "
            f"{ran} | {times} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where environments are kept")
    parser.add_argument("--only", default=",".join(TOOLS), help="tools, with commas [all]")
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each [5]")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    make = {"ours": ours, "dvc": dvc, "snakemake": snakemake, "floor": floor}
    tools = [tool for name in args.only.split(",") if (tool := make[name](work)) is not None]
    rows = {(q, tool.name): Row(q, tool.name) for q in QUESTIONS for tool in tools}
    versions = {
        name: peers.version(work / "venvs" / name / "bin", name)
        for name in ("dvc", "snakemake")
        if name in args.only
    }
    for number in range(args.repeat):
        print(f"round {number + 1} of {args.repeat}", file=sys.stderr)
        for tool in tools:
            measure(tool, rows, number)
    found = document(list(rows.values()), versions)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['machine']}\n{found['versions']}\n\n{table(found)}")


if __name__ == "__main__":
    main()
