"""The same work written for each tool: nine tasks in a diamond, and ten thousand in chains.

Nine tasks: three in a row, a fan-out of four, a join, an end. Each writes one small JSON file with
its own parameter. Ten thousand: a thousand chains of ten. Ours is a recipe, whose tasks are not
free to choose: the quickstart, and arms that change its data (all nodes anew) or only
its training (the data is shared).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.bench.peers import ROOT, fresh

FANNED = tuple(f"middle_{i}" for i in range(4))
NEEDS: Mapping[str, tuple[str, ...]] = {
    "first": (),
    "second": ("first",),
    "third": ("second",),
    **dict.fromkeys(FANNED, ("third",)),
    "joined": FANNED,
    "last": ("joined",),
}
NUM_CHAINS, CHAIN = 1000, 10
NUM_SEEDS, NUM_RATES = 625, 2000  # arms that make 10,001 and 10,012 nodes
SMALL = {
    "source": {"num_rows": 48},
    "generator": {"tune": {"seed_tasks": {"num_rows": 24}}},
    "training": {"num_train_epochs": 1},
    "benchmarks": {"max_items": 24},
}


def ours(folder: Path) -> Path:
    """Write the shipped recipes, a miniature, a changed copy and the two large matrices."""
    shutil.copytree(ROOT / "recipes", fresh(folder), dirs_exist_ok=True)
    _recipe(folder / "small.yaml", "small", SMALL)
    (folder / "changed.yaml").write_text(
        (folder / "quickstart.yaml").read_text().replace("seed: 42", "seed: 42\n\n# changed")
        .replace("learning_rate: 1.0e-3", "learning_rate: 2.0e-3")
    )  # fmt: skip
    seeds = {f"s{i}": {"seed": i} for i in range(NUM_SEEDS)}
    _recipe(folder / "wide.yaml", "wide", {"matrix": seeds})
    rates = {f"r{i}": {"training.learning_rate": 1e-5 * (i + 1)} for i in range(NUM_RATES)}
    _recipe(folder / "trained.yaml", "trained", {"matrix": rates})
    return folder


def _recipe(path: Path, name: str, body: Mapping[str, object]) -> None:
    # JSON is YAML: one section a line.
    head = {"recipe": 1, "name": name, "extends": "quickstart.yaml", **body}
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items()))


def dvc(folder: Path, environ: Mapping[str, str], *, is_large: bool = False) -> Path:
    """Write a DVC pipeline in a git repository."""
    fresh(folder)
    stages: dict[str, object] = {}
    for name, needs in (_chains() if is_large else NEEDS).items():
        text = f'"task":"{name}"' + ("" if is_large else f',"value":${{{name}}}')
        stages[name] = {
            "cmd": f"printf '{{{text}}}' > made/{name}.json",
            "deps": [f"made/{need}.json" for need in needs],
            "outs": [f"made/{name}.json"],
        } | ({} if is_large else {"params": [name]})
    if not is_large:
        values = "".join(f"{name}: 1\n" for name in NEEDS)
        (folder / "params.yaml").write_text(values)
    (folder / "dvc.yaml").write_text(_yaml_of_stages(stages))
    (folder / "made").mkdir()
    (folder / ".gitignore").write_text("/made\n")
    mail = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    for command in (
        ["git", "init", "--quiet"],
        ["dvc", "init", "--quiet"],
        ["dvc", "config", "core.analytics", "false"],
        ["dvc", "config", "core.check_update", "false"],
        ["git", "add", "--all"],
        ["git", *mail, "commit", "--quiet", "--message", "Start"],
    ):
        subprocess.run(command, cwd=folder, env=dict(environ), check=True, capture_output=True)
    return folder


def _yaml_of_stages(stages: Mapping[str, object]) -> str:
    return "stages:\n" + "".join(f"  {n}: {json.dumps(body)}\n" for n, body in stages.items())


def _chains() -> dict[str, tuple[str, ...]]:
    return {
        f"c{chain}_{i}": (f"c{chain}_{i - 1}",) if i else ()
        for chain in range(NUM_CHAINS)
        for i in range(CHAIN)
    }


def snakemake(folder: Path) -> Path:
    """Write a Snakemake workflow with a rule for each task."""
    fresh(folder)
    (folder / "config.yaml").write_text("".join(f"{name}: 1\n" for name in NEEDS))
    text = 'configfile: "config.yaml"\n\nrule everything:\n    input: "made/last.json"\n'
    for name, needs in NEEDS.items():
        text += _rule(name, needs, f'    params: value=config["{name}"]\n', "{params.value}")
    (folder / "Snakefile").write_text(text)
    return folder


def snakemake_rules(folder: Path) -> Path:
    """Write ten thousand rules: what a compiled recipe looks like to Snakemake."""
    ends = [f"made/c{chain}_{CHAIN - 1}.json" for chain in range(NUM_CHAINS)]
    text = f"rule everything:\n    input: {json.dumps(ends)}\n"
    text += "".join(_rule(name, needs, "", "1") for name, needs in _chains().items())
    (fresh(folder) / "Snakefile").write_text(text)
    return folder


def snakemake_wildcards(folder: Path) -> Path:
    """Write the same as ten rules over a wildcard, as its users would."""
    text = (
        "rule everything:\n"
        f'    input: expand("made/c{{chain}}_{CHAIN - 1}.json", chain=range({NUM_CHAINS}))\n'
    )
    for i in range(CHAIN):
        needs = (f"c{{chain}}_{i - 1}",) if i else ()
        text += _rule(f"c_{i}", needs, "", "1", made=f"c{{chain}}_{i}")
    (fresh(folder) / "Snakefile").write_text(text)
    return folder


def _rule(
    name: str, needs: tuple[str, ...], extra: str, value: str, made: str | None = None
) -> str:
    text = f"\nrule {name}:\n"
    if needs:
        text += "    input: " + ", ".join(f'"made/{need}.json"' for need in needs) + "\n"
    text += f'    output: "made/{made or name}.json"\n{extra}'
    return text + f'    shell: "echo {value} > {{output}}"\n'


def dbt(folder: Path) -> Path:
    """Write a dbt project of nine tables in DuckDB."""
    models = fresh(folder) / "models"
    models.mkdir()
    values = "".join(f"  {name}: 1\n" for name in NEEDS)
    (folder / "dbt_project.yml").write_text(
        "name: nine\nversion: '1.0'\nprofile: nine\nmodels: {nine: {+materialized: table}}\n"
        f"vars:\n{values}"
    )
    (folder / "profiles.yml").write_text(
        "nine:\n  target: here\n  outputs:\n"
        "    here: {type: duckdb, path: nine.duckdb, threads: 1}\n"
    )
    for name, needs in NEEDS.items():
        rows = " cross join ".join(f"{{{{ ref('{need}') }}}} as {need}_" for need in needs)
        query = f"select '{name}' as task, {{{{ var('{name}') }}}} as value"
        (models / f"{name}.sql").write_text(query + (f" from {rows}" if rows else "") + "\n")
    return folder


def hydra(folder: Path) -> Path:
    """Write a Hydra application: a configuration of nine groups, no tasks."""
    conf = fresh(folder) / "conf"
    conf.mkdir()
    (conf / "config.yaml").write_text("".join(f"{n}: {{value: 1}}\n" for n in NEEDS))
    (folder / "app.py").write_text(
        "import hydra\n\n\n"
        '@hydra.main(version_base=None, config_path="conf", config_name="config")\n'
        "def main(config):\n    pass\n\n\nmain()\n"
    )
    return folder


def floor(folder: Path) -> Path:
    """Write the nine tasks for the reference floor (floor.py)."""
    stages = {name: {"needs": list(needs), "value": 1} for name, needs in NEEDS.items()}
    (fresh(folder) / "nine.yaml").write_text(_yaml_of_stages(stages))
    return folder
