"""`adapt show`: a recipe with every default and where it was said, or the rows of a run."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.artifacts import QUARANTINE, Artifact
from engine.cli import overrides, settings, tables
from engine.cli.origins import yaml_lines
from engine.cli.status import chosen_run
from engine.diagnostics import Diagnostic, RequestError, nearest
from engine.rendering import verdicts
from engine.runtime.runs import Run
from engine.runtime.store import Store

LEDGER = "ledger"
IMAGE_SUFFIX = ".png"
MAX_WIDTH = 60  # columns of a value before its origin


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "show", help="show a recipe resolved, or the rows of a run", allow_abbrev=False
    )
    parser.add_argument("what", metavar="RECIPE|RUN", help="a recipe file, a run, or `newest`")
    parser.add_argument("node", nargs="?", metavar="NODE", help="a node of the run, or `ledger`")
    overrides.add_flags(parser)
    parser.add_argument(
        "--limit", type=_limit, default=10, metavar="N", help="rows to show of each kind [10]"
    )
    parser.add_argument("--images", metavar="DIR", help="write the images of the rows to a folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Show a recipe, or rows."""
    if args.node is None and Path(args.what).suffix in (".yaml", ".yml"):
        return _show_recipe(Path(args.what), args)
    store = settings.open_store(args, os.environ)
    found = chosen_run(store, None if args.what == "newest" else args.what)
    if args.node is None:
        return _show_nodes(found, store, args)
    if args.node == LEDGER:
        return _show_ledger(found, store, args)
    return _show_rows(found, store, args)


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("it is a number of rows, 0 or more")
    return int(text)


def _show_recipe(path: Path, args: argparse.Namespace) -> int:
    from engine.recipe.load import load_experiment

    experiment = load_experiment(path, args.overrides)
    if args.json:
        print(json.dumps(experiment.raw, indent=1, ensure_ascii=False))
        return 0
    lines = list(yaml_lines(experiment.raw, (), experiment.recipe.spans))
    width = min(max(len(text) for text, _ in lines), MAX_WIDTH)
    for text, origin in lines:
        print(f"{text:<{width}}  # {origin}" if origin else text)
    return 0


def _show_nodes(found: Run, store: Store, args: argparse.Namespace) -> int:
    done = [(node.id, a) for node in found.plan().nodes if (a := store.get(node.key)) is not None]
    if args.json:
        rows = [
            {"id": name, "counts": dict(a.manifest.counts), "path": str(a.path)} for name, a in done
        ]
        print(json.dumps(rows, indent=1))
        return 0
    shown = [
        (name, ", ".join(f"{what} {count:g}" for what, count in a.manifest.counts.items()))
        for name, a in done
    ]
    print(tables.table(shown) if shown else "  nothing is finished yet")
    print(f"`adapt show {found.id} NODE` shows rows, `adapt show {found.id} {LEDGER}` the ledger")
    return 0


def _show_ledger(found: Run, store: Store, args: argparse.Namespace) -> int:
    nodes = [(node.id, store.get(node.key)) for node in found.plan().nodes]
    rows = [
        {"node": name, **row}
        for name, artifact in nodes
        if artifact is not None
        for row in artifact.rows(QUARANTINE)
    ]
    reasons = dict(Counter(row["reason"] for row in rows).most_common())
    shown = rows[: args.limit]
    if args.json:
        document = {"quarantined": len(rows), "reasons": reasons, "rows": shown}
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return 0
    print(f"{verdicts.counted(len(rows), 'row')} set aside")
    if reasons:
        print(tables.table([(f"{n:,}", reason) for reason, n in reasons.items()]) + "\n")
    for row in shown:
        detail = f" ({row['detail']})" if row["detail"] else ""
        line = f"{row['node']}: {row['source_id']}: {row['reason']}{detail}"
        print(f"  {tables.visible(line)}")
    return 0


def _show_rows(found: Run, store: Store, args: argparse.Namespace) -> int:
    artifact = _artifact(found, store, args.node)
    sets = {
        name: list(itertools.islice(artifact.rows(name), args.limit))
        for name in _row_sets(artifact)
    }
    if args.images:
        rows = [row for part in sets.values() for row in part]
        _write_images(rows, found, store, Path(args.images))
    if args.json:
        document = [
            {"rows": name, "num_rows": artifact.num_rows(name), "shown": rows}
            for name, rows in sets.items()
        ]
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return 0
    for name, rows in sets.items():
        print(f"{name}: {artifact.num_rows(name):,} rows, {len(rows)} shown")
        for row in rows:
            print("\n".join(f"  {line}" for line in readable(row)) + "\n")
    if not sets:
        print(f"`{args.node}` has no rows; its files are in {artifact.path}")
    return 0


def readable(row: Mapping[str, Any]) -> list[str]:
    """Return a row as lines: turns as a dialogue, other rows as `name: value`."""
    record = row.get("record", row)
    if "turns" not in record:
        return _lines(f"{name}: {value}" for name, value in row.items())
    shown = [f"{record['meta']['kind']} {record['meta']['source_id']}"]
    shown += [f"images: {', '.join(digest[:12] for digest in record['images'])}"]
    for turn in record["turns"]:
        text = "".join(part.get("text", "<image>") for part in turn["parts"])
        style = f" ({turn['style']})" if "style" in turn else ""
        shown.append(f"{turn['role']}{style}: {text}")
    shown += [f"{name}: {row[name]}" for name in ("filter", "reason", "detail") if row.get(name)]
    return _lines(shown)


def _lines(entries: Iterable[str]) -> list[str]:
    """Return entries line by line, the later lines of an entry indented."""
    return [
        ("  " if number else "") + tables.visible(line)
        for entry in entries
        for number, line in enumerate(entry.split("\n"))
    ]


def _artifact(found: Run, store: Store, node_id: str) -> Artifact:
    ids = [node.id for node in found.plan().nodes]
    if node_id not in ids:
        close = nearest(node_id, ids)
        hint = f"`{close}` is close" if close else f"its nodes: {', '.join(ids)}"
        message = f"run `{found.id}` has no node `{node_id}`"
        raise RequestError(Diagnostic("unknown-node", message, hint=hint))
    artifact = store.get(found.plan().node(node_id).key)
    if artifact is None:
        message = f"node `{node_id}` is not finished"
        raise RequestError(Diagnostic("not-finished", message, hint=f"`adapt status {found.id}`"))
    return artifact


def _row_sets(artifact: Artifact) -> list[str]:
    names = {p.name.rpartition("-")[0] for p in artifact.path.glob("*-[0-9]*.jsonl")}
    return sorted(names, key=lambda name: (name == QUARANTINE, name))


def _write_images(rows: list[dict[str, Any]], found: Run, store: Store, folder: Path) -> None:
    from engine.images import ImageBank, decode

    artifacts = [store.get(node.key) for node in found.plan().nodes if node.stage == "collect"]
    bank = ImageBank(artifact.path for artifact in artifacts if artifact is not None)
    folder.mkdir(parents=True, exist_ok=True)
    for digest in {d for row in rows for d in row.get("record", row).get("images", ())}:
        if digest in bank:
            decode(bank.encoded(digest)).save(folder / f"{digest[:12]}{IMAGE_SUFFIX}")
