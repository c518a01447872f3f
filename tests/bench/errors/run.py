"""Give the same mistakes to `adapt` and to other tools, and write what each one prints.

    python -m tests.bench.errors.run --work /tmp/bench                 all tools, about ten minutes
    python -m tests.bench.errors.run --work /tmp/bench --only adapt    ours again, half a minute

The tools are installed below `--work` (tests/bench/peers.py) and stay there. Results are kept in
`results.json` tool by tool, so that one tool can be run again alone; README.md is written from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import peers
from tests.bench.errors import page
from tests.bench.errors.mistakes import CORRECT, MISTAKES, Mistake, text
from tests.bench.errors.reading import read, tidy
from tests.bench.measure import cost

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
MODEL = peers.ROOT / "engine" / "pocket" / "judge"  # a small Llama with a tokenizer, all three load
ROWS = [{"instruction": "Name a letter.", "input": "", "output": letter} for letter in "abcd"]


@dataclass(frozen=True, slots=True)
class Tool:
    """How one tool is asked to look at its file."""

    package: str
    file: str
    command: Sequence[str]
    furnish: Callable[[Path, Mapping[str, str]], object]  # puts beside the file what it needs


def _picture(folder: Path, environ: Mapping[str, str]) -> None:
    from PIL import Image

    (folder / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(folder / "pictures" / "a.png")
    (folder / "pictures" / "a.txt").write_text("a black picture")


def _rows(folder: Path, environ: Mapping[str, str]) -> None:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "model").symlink_to(MODEL)
    (folder / "dataset_info.json").write_text('{"rows": {"file_name": "rows.json"}}')


def _dvc(folder: Path, environ: Mapping[str, str]) -> None:
    cost(["dvc", "init", "--quiet", "--no-scm"], folder=folder, environ=environ)


def _rate(folder: Path, environ: Mapping[str, str]) -> None:
    (folder / "config.yaml").write_text("rate: 1\n")


BUNDLE = str(peers.ROOT / "schemas" / "bundle.schema.json")
TOOLS = {
    "adapt": Tool("", "recipe.yaml", peers.ours("plan", "recipe.yaml"), _picture),
    "llamafactory": Tool(
        "llamafactory", "train.yaml", ("llamafactory-cli", "train", "train.yaml"), _rows
    ),
    "axolotl": Tool(
        "axolotl",
        "train.yaml",
        ("axolotl", "train", "--launcher", "python", "train.yaml"),
        _rows,
    ),
    "dvc": Tool("dvc", "dvc.yaml", ("dvc", "repro"), _dvc),
    "snakemake": Tool("snakemake", "Snakefile", ("snakemake", "--dry-run"), _rate),
    "check-jsonschema": Tool(
        "check-jsonschema",
        "recipe.yaml",
        ("check-jsonschema", "--schemafile", BUNDLE, "recipe.yaml"),
        _picture,
    ),
}


def results(work: Path, name: str) -> dict[str, object] | None:
    """Return what a tool says to each mistake, and to the correct file."""
    tool = TOOLS[name]
    binaries = peers.ready(work, name) if tool.package else None
    if tool.package and binaries is None:
        return None
    environ = {**peers.environment(work, binaries), "PYTHONPATH": ""}
    if not tool.package:
        environ |= {"PYTHONPATH": str(peers.ROOT)}
    correct, said = _asked(work, name, None, environ)
    if correct["exit_code"]:
        print(f"{name} does not accept the correct file:\n{said[-2000:]}", file=sys.stderr)
        return None
    found = {}
    for mistake in MISTAKES:
        if name in mistake.edits:
            print(f"{name}: {mistake.name}", file=sys.stderr)
            answer, said = _asked(work, name, mistake, environ)
            reading = read(name, tool.file, mistake, said, int(answer["exit_code"]))
            shown = tidy(said, _names(work))
            found[mistake.name] = {**answer, **asdict(reading), "said": shown}
    version = peers.version(binaries, tool.package) if binaries else "this checkout"
    date = time.strftime("%Y-%m-%d")
    command = " ".join(tool.command).replace(sys.executable + " -m engine.cli", "adapt")
    command = command.replace(f"{peers.ROOT}/", "")
    correct["said"] = ""
    return {
        "version": version,
        "date": date,
        "command": command,
        "correct": correct,
        "mistakes": found,
    }


def _asked(
    work: Path, name: str, mistake: Mistake | None, environ: Mapping[str, str]
) -> tuple[dict[str, object], str]:
    tool = TOOLS[name]
    folder = peers.fresh(work / "errors" / name / (mistake.name if mistake else "correct"))
    tool.furnish(folder, environ)
    (folder / tool.file).write_text(text(name, mistake))
    variables = {
        **environ,
        "ADAPT_STORE": str(folder / "store"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    found = cost(tool.command, folder=folder, environ=variables, timeout_s=300.0)
    answer = {"exit_code": found.exit_code, "cpu_s": round(found.cpu_s, 2)}
    return {**answer, "wall_s": round(found.wall_s, 2)}, found.stdout + found.stderr


def _names(work: Path) -> dict[str, str]:
    """Return what is shown in place of folders of this machine."""
    folders = {str(work / "errors" / tool / m.name): "." for tool in TOOLS for m in MISTAKES}
    environments = {str(work / "venvs" / tool): "ENV" for tool in peers.INSTALLS}
    return {
        **folders,
        **environments,
        str(work): "WORK",
        sys.prefix: "ENV",
        sys.base_prefix: "PYTHON",
    }


def main() -> None:
    """Ask the tools, keep the results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where environments are kept")
    parser.add_argument("--only", default=",".join(TOOLS), help="tools, with commas [all]")
    args = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in args.only.split(","):
        found = results(args.work.resolve(), name)
        if found is not None:
            kept[name] = found
        RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    (HERE / "README.md").write_text(page.written({n: kept[n] for n in CORRECT if n in kept}))


if __name__ == "__main__":
    main()
