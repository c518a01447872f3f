"""What it costs to ask: help, validation, a plan, a difference; ours beside other tools.

    python -m tests.bench.plan_speed --work /tmp/bench            everything, about twelve minutes
    python -m tests.bench.plan_speed --work /tmp/bench --only ours      no other tool, two minutes
    python -m tests.bench.plan_speed --work /tmp/bench --only ours,dvc --repeat 3 --json out.json

Every command is measured in one run on one machine, in turns: one of each, then again. The table
gives the median (range, number) of processor time, and what another tool needs as a multiple of
ours. Tools are installed by pip into environments below `--work` (see peers.py) and kept there, as
is the store of the finished miniature run; a second call starts measuring at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench import peers, projects
from tests.bench.measure import TIMED_OUT, Cost, cost, seconds, spread

TOOLS = ("ours", "floor", "dvc", "snakemake", "dbt", "hydra")
PACKAGES = {"dvc": "dvc", "snakemake": "snakemake", "dbt": "dbt-core", "hydra": "hydra-core"}
SLOW_S = 15.0  # a command that takes longer is measured fewer times

Prepare = Callable[[], object]


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Case:
    """One command of one tool, to be measured for one question."""

    question: str
    tool: str
    label: str
    command: Sequence[str]
    folder: Path
    environ: Mapping[str, str]
    before: Prepare = _nothing  # runs unmeasured before each measurement
    most: int = 99  # measurements at most
    accepts: tuple[int, ...] = (0,)
    costs: list[Cost] = field(default_factory=list)

    def measure(self) -> None:
        """Run once more, unless enough is known."""
        is_slow = any(found.wall_s > SLOW_S for found in self.costs)
        if len(self.costs) >= (min(self.most, 3) if is_slow else self.most):
            return
        self.before()
        found = cost(self.command, folder=self.folder, environ=self.environ, timeout_s=300.0)
        if found.exit_code not in (*self.accepts, TIMED_OUT):
            text = (found.stderr or found.stdout)[-600:]
            print(f"{self.label}: exit code {found.exit_code}\n{text}", file=sys.stderr)
        self.costs.append(found)


def our_cases(work: Path) -> list[Case]:
    """Return our commands."""
    folder = projects.ours(work / "projects" / "ours")
    environ = {**peers.environment(work), "PYTHONPATH": str(peers.ROOT)}
    cold = work / "cold"
    cold_environ = {**environ, "XDG_CACHE_HOME": str(cold / "cache"), "ADAPT_STORE": str(cold)}
    store = {**environ, "ADAPT_STORE": str(work / "store")}

    def case(question: str, *arguments: str, is_cold: bool = False, **more: object) -> Case:
        label = "adapt " + " ".join(arguments)
        before = (lambda: peers.fresh(cold)) if is_cold else _nothing
        variables = cold_environ if is_cold else store
        command = peers.ours(*arguments)
        return Case(question, "ours", label, command, folder, variables, before, **more)  # type: ignore[arg-type]

    small = case("nothing to do", "run", "small.yaml", "--offline")
    print("running the miniature until nothing is left to do", file=sys.stderr)
    first = cost(small.command, folder=folder, environ=small.environ, timeout_s=600.0)
    for recipe in ("quickstart.yaml", "biomed.yaml", "small.yaml"):  # compiled once before "again"
        cost(peers.ours("plan", recipe), folder=folder, environ=store)
    return [
        case("help", "--help"),
        case("validate", "validate", "quickstart.yaml", is_cold=True),
        case("plan, cold", "plan", "quickstart.yaml", is_cold=True),
        case("plan, cold", "plan", "biomed.yaml", is_cold=True),
        case("plan again", "plan", "quickstart.yaml"),
        case("plan again", "plan", "biomed.yaml"),
        *([small] if first.exit_code == 0 else []),
        case("difference", "diff", "quickstart.yaml", "changed.yaml", is_cold=True),
        case("10,000 nodes", "plan", "wide.yaml", is_cold=True, most=5),
        case("10,000 nodes", "plan", "trained.yaml", is_cold=True, most=5),
    ]


def floor_cases(work: Path) -> list[Case]:
    """Return the reference floor."""
    folder = projects.floor(work / "projects" / "floor")
    environ = peers.environment(work)
    script = str(Path(__file__).with_name("floor.py"))

    def case(question: str, *arguments: str) -> Case:
        label = "floor " + " ".join(arguments)
        return Case(question, "floor", label, [sys.executable, script, *arguments], folder, environ)

    return [
        case("help", "--help"),
        case("plan, cold", "plan", "nine.yaml"),
        case("plan again", "warm", "nine.yaml"),
    ]


def dvc_cases(work: Path, binaries: Path) -> list[Case]:
    """Return DVC's commands. Its dry run fails where nothing has run yet: `status` stands in."""
    environ = peers.environment(work, binaries)
    new = projects.dvc(work / "projects" / "dvc-new", environ)
    done = projects.dvc(work / "projects" / "dvc-done", environ)
    large = projects.dvc(work / "projects" / "dvc-large", environ, is_large=True)
    cost(["dvc", "repro", "--quiet"], folder=done, environ=environ)
    rows = [
        ("help", "dvc --help", new, 99, (0,)),
        ("validate", "dvc stage list", new, 99, (0,)),
        ("plan, cold", "dvc repro --dry", new, 99, (255,)),
        ("plan, cold", "dvc status", new, 99, (0,)),
        ("plan again", "dvc repro --dry", done, 99, (0,)),
        ("plan again", "dvc status", done, 99, (0,)),
        ("nothing to do", "dvc repro", done, 99, (0,)),
        ("difference", "dvc params diff", new, 99, (0,)),
        ("10,000 nodes", "dvc stage list --name-only", large, 1, (0,)),
        ("10,000 nodes", "dvc status --quiet", large, 1, (1,)),
    ]
    return [
        Case(question, "dvc", label, label.split(), folder, environ, most=most, accepts=codes)
        for question, label, folder, most, codes in rows
    ]


def snakemake_cases(work: Path, binaries: Path) -> list[Case]:
    """Return Snakemake's commands."""
    environ = peers.environment(work, binaries)
    new = projects.snakemake(work / "projects" / "snakemake-new")
    done = projects.snakemake(work / "projects" / "snakemake-done")
    wild = projects.snakemake_wildcards(work / "projects" / "snakemake-wildcards")
    rules = projects.snakemake_rules(work / "projects" / "snakemake-rules")
    cost(["snakemake", "--cores", "1", "-q"], folder=done, environ=environ)
    rows = [
        ("help", "--help", new, 99, ""),
        ("validate", "--list-rules", new, 99, ""),
        ("plan, cold", "--dry-run", new, 99, ""),
        ("plan again", "--dry-run", done, 99, ", all done"),
        ("nothing to do", "--cores 1", done, 99, ""),
        ("difference", "--dry-run --config third=2", done, 99, ""),
        ("10,000 nodes", "--dry-run -q", wild, 3, ", ten rules over a wildcard"),
        ("10,000 nodes", "--dry-run -q", rules, 2, ", a rule for each"),
    ]
    return [
        Case(q, "snakemake", f"snakemake {a}{note}", ["snakemake", *a.split()], f, environ, most=n)
        for q, a, f, n, note in rows
    ]


def dbt_cases(work: Path, binaries: Path) -> list[Case]:
    """Return dbt's commands. It has no run with nothing to do: `run` makes all tables again."""
    environ = peers.environment(work, binaries)
    folder = projects.dbt(work / "projects" / "dbt")
    kept = projects.dbt(work / "projects" / "dbt-kept")
    state = kept / "before"
    cost(["dbt", "run"], folder=kept, environ=environ)
    cost(["cp", "-r", "target", "before"], folder=kept, environ=environ)
    selected = ["ls", "--select", "state:modified+", "--state", str(state)]
    rows = [
        ("help", ["--help"], kept, False, "dbt --help"),
        ("validate", ["parse"], folder, True, "dbt parse"),
        ("plan, cold", ["compile"], folder, True, "dbt compile"),
        ("plan again", ["compile"], kept, False, "dbt compile, parsed before"),
        ("nothing to do", ["run"], kept, False, "dbt run (makes all again)"),
        ("difference", selected, kept, False, "dbt ls --select state:modified+"),
    ]
    return [
        Case(
            question, "dbt", label, ["dbt", *arguments], where, environ,
            (lambda: peers.fresh(folder / "target")) if is_cold else _nothing, most=5,
        )
        for question, arguments, where, is_cold, label in rows
    ]  # fmt: skip


def hydra_cases(work: Path, binaries: Path) -> list[Case]:
    """Return Hydra's commands: it composes a configuration and plans nothing."""
    environ = peers.environment(work, binaries)
    folder = projects.hydra(work / "projects" / "hydra")
    rows = [("help", "--help"), ("validate", "--cfg job --resolve")]
    return [
        Case(
            question, "hydra", f"app.py {arguments}",
            [str(binaries / "python"), "app.py", *arguments.split()], folder, environ,
        )
        for question, arguments in rows
    ]  # fmt: skip


def cases(work: Path, tools: Iterable[str]) -> tuple[list[Case], dict[str, str]]:
    """Return all commands of the tools that can be had, and the tools' versions."""
    made: list[Case] = []
    versions: dict[str, str] = {}
    alone = {"ours": our_cases, "floor": floor_cases}
    other = {
        "dvc": dvc_cases, "snakemake": snakemake_cases, "dbt": dbt_cases, "hydra": hydra_cases,
    }  # fmt: skip
    for tool in tools:
        if tool in alone:
            made += alone[tool](work)
        elif (binaries := peers.ready(work, tool)) is not None:
            versions[tool] = peers.version(binaries, PACKAGES[tool])
            made += other[tool](work, binaries)
    return made, versions


def document(made: Sequence[Case], versions: Mapping[str, str]) -> dict[str, object]:
    """Return the measurements as one JSON document."""
    rows = []
    best = {case.question: _median(case) for case in reversed(made) if case.tool == "ours"}
    for case in made:
        if not case.costs:
            continue
        cpu = spread([found.cpu_s for found in case.costs])
        wall = spread([found.wall_s for found in case.costs])
        rows.append(
            {
                "question": case.question,
                "tool": case.tool,
                "command": case.label,
                "cpu_s": asdict(cpu),
                "wall_s": asdict(wall),
                "exit_codes": sorted({found.exit_code for found in case.costs}),
                "times_ours": cpu.median / best[case.question] if case.question in best else None,
            }
        )
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    return {"machine": machine, "versions": dict(versions), "rows": rows}


def _median(case: Case) -> float:
    return spread([found.cpu_s for found in case.costs]).median


def table(found: Mapping[str, object]) -> str:
    """Return the document as a table in Markdown."""
    lines = [
        "| question | command | processor time (range; n) | wall | times ours |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(found["rows"], key=lambda row: _order(found, row)):  # type: ignore[index,arg-type]
        cpu, wall = row["cpu_s"], row["wall_s"]
        reach = f"{seconds(cpu['low'])} - {seconds(cpu['high'])}; {cpu['num']}"
        codes = [code for code in row["exit_codes"] if code]
        note = f" (exit code {codes[0]})" if codes else ""
        ratio = row["times_ours"]
        times = f"{ratio:.1f}" if ratio is not None else ""
        lines.append(
            f"| {row['question']} | `{row['command']}`{note} | **{seconds(cpu['median'])}** "
            f"({reach}) | {seconds(wall['median'])} | {times} |"
        )
    return "\n".join(lines)


def _order(found: Mapping[str, object], row: Mapping[str, object]) -> int:
    questions = [other["question"] for other in found["rows"]]  # type: ignore[attr-defined,index]
    return list(dict.fromkeys(questions)).index(row["question"])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where environments are kept")
    parser.add_argument("--only", default=",".join(TOOLS), help="tools, with commas [all]")
    parser.add_argument("--repeat", type=int, default=7, help="measurements of each command [7]")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    made, versions = cases(work, args.only.split(","))
    for round_ in range(args.repeat):
        print(f"round {round_ + 1} of {args.repeat}", file=sys.stderr)
        for case in made:
            case.measure()
        found = document(made, versions)
        (args.json or work / "plan_speed.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['machine']}\n{found['versions']}\n\n{table(found)}")


if __name__ == "__main__":
    main()
