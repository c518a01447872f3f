"""`adapt store`: give back room, look for damage, carry a run to another store."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import settings, status, tables
from engine.diagnostics import Diagnostic, ExitCode, RequestError
from engine.runtime import machine
from engine.runtime.store import Store

if TYPE_CHECKING:
    from engine.runtime.keeping import Rubbish
    from engine.runtime.transfer import Carried
    from engine.runtime.verify import Damage, Found

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", re.I)
_AGE = re.compile(r"(\d+)([hdw])")
_AGE_S = {"h": 3600, "d": 86400, "w": 7 * 86400}
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
LISTED = 20


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "store", help="give back room, find damage, carry runs elsewhere", allow_abbrev=False
    )
    doing = parser.add_subparsers(dest="doing", metavar="gc|verify|export|import", required=True)
    gc = _add(doing, "gc", "remove what no run reaches any more")
    gc.add_argument(
        "roots", nargs="*", metavar="RECIPE|PLAN", help="what these need stays, run or not"
    )
    gc.add_argument(
        "--keep", metavar="N|AGE", help="runs to keep: 5 of each recipe, or those of 30d [all]"
    )
    gc.add_argument("--max-size", metavar="SIZE", help="such as 200GB: the least used goes first")
    gc.add_argument("--dry-run", action="store_true", help="list what would go; change nothing")
    verify = _add(doing, "verify", "hash everything and name what is damaged")
    verify.add_argument("run", nargs="?", metavar="RUN|RECIPE", help="what a run made [all]")
    verify.add_argument(
        "--dry-run", action="store_true", help="leave damaged artifacts where they are"
    )
    export = _add(doing, "export", "write a run and all it made into a folder")
    export.add_argument("run", metavar="RUN|RECIPE")
    export.add_argument("folder", metavar="DIR")
    bring_in = _add(doing, "import", "take an exported run into the store")
    bring_in.add_argument("folder", metavar="DIR")


def _add(doing: Any, name: str, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = doing.add_parser(name, help=what, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    settings.add_store_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    store = settings.open_store(args, os.environ)
    verbs: Mapping[str, Callable[[argparse.Namespace, Store], int]] = {
        "gc": _gc,
        "verify": _verify,
        "export": _export,
        "import": _import,
    }
    return verbs[args.doing](args, store)


def _gc(args: argparse.Namespace, store: Store) -> int:
    from engine.runtime import keeping

    items = keeping.rubbish(
        store,
        roots=_keys_of([*args.roots, *_locked(store)], store),
        keep=_keep(args.keep),
        max_bytes=_bytes(args.max_size) if args.max_size else None,
        now=time.time(),
    )
    if args.dry_run:
        freed = keeping.freed_bytes(items)
    else:
        items, freed = keeping.remove(store, items)
    if args.json:
        rows = [{"kind": i.kind, "name": i.name, "why": i.why} for i in items]
        print(json.dumps({"is_dry_run": args.dry_run, "freed_bytes": freed, "removed": rows}))
        return 0
    for item in items[:LISTED] if args.dry_run else ():
        print(f"  {item.kind:<9} {item.name}  {item.why}")
    if args.dry_run and len(items) > LISTED:
        print(f"  and {len(items) - LISTED} more; `--json` lists all")
    print(_gc_text(items, freed, is_dry=args.dry_run, left=keeping.total_bytes(store)))
    return 0


def _gc_text(items: Sequence[Rubbish], freed: int, *, is_dry: bool, left: int) -> str:
    kinds = [item.kind for item in items]
    counted = [f"{kinds.count(kind)} {_plural(kind, kinds)}" for kind in dict.fromkeys(kinds)]
    if not counted:
        return f"nothing to remove; the store holds {tables.size(left)}"
    if is_dry:
        return f"would remove {', '.join(counted)}: {freed:,} bytes of {left:,}"
    return f"removed {', '.join(counted)}: {freed:,} bytes; {left:,} are left"


def _plural(kind: str, kinds: Sequence[str]) -> str:
    if kinds.count(kind) == 1 or kind in ("scratch", "damaged", "grades"):
        return kind
    return "indexes" if kind == "index" else f"{kind}s"


def _keys_of(roots: Sequence[str], store: Store) -> set[str]:
    """Return the keys that recipes (with their locks) and saved plans need."""
    if not roots:
        return set()
    from engine.cli import planning

    plans = [planning.requested(root, (), store).plan for root in roots]
    return {node.key for plan in plans for node in plan.nodes}


def _locked(store: Store) -> list[str]:
    """Return the recipes of the store's runs that have a lock beside them: what it fixes stays."""
    from engine.cli import locked
    from engine.runtime import runs

    paths = {str(run.facts().get("recipe_path", "")) for run in runs.all_runs(store)}
    return sorted(p for p in paths if p and Path(p).is_file() and locked.path_of(Path(p)).is_file())


def _keep(text: str | None) -> Any:
    from engine.runtime.keeping import Keep

    if text is None:
        return Keep()
    if text.isdigit():
        return Keep(num_per_recipe=int(text))
    found = _AGE.fullmatch(text)
    if found is None:
        raise _wrong("keep", text, "a number of runs, or an age such as 12h, 30d or 8w")
    return Keep(age_s=int(found[1]) * _AGE_S[found[2]])


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise _wrong("max-size", text, "a size such as 500MB, 200GB or 1.5TB")
    return int(float(found[1]) * 1000 ** _POWER[found[2].upper()])


def _wrong(flag: str, text: str, hint: str) -> RequestError:
    return RequestError(Diagnostic("wrong-flag", f"`--{flag}`: '{text}' is not known", hint=hint))


def _verify(args: argparse.Namespace, store: Store) -> int:
    from engine.runtime import verify

    wanted = None
    if args.run is not None:
        wanted = {node.key for node in status.chosen_run(store, args.run).plan().nodes}
    found = verify.verify(store, wanted, num_threads=machine.num_cores(), progress=_progress())
    aside = []
    for key in () if args.dry_run else found.damaged_keys:
        aside += [key] if verify.set_aside(store, key) is not None else []
    users = _users(store, found.damaged_keys)
    if args.json:
        print(json.dumps(_verify_json(found, aside, users), indent=1))
    else:
        print(_verify_text(found, aside, users))
    return int(ExitCode.GATE_SAID_NO if found.damages else ExitCode.DONE)


def _progress() -> Callable[[Found], None]:
    """Return a function that says now and then how far it is, on a terminal only."""
    last = time.monotonic()

    def say(found: Found) -> None:
        nonlocal last
        if sys.stderr.isatty() and time.monotonic() - last > 1:
            last = time.monotonic()
            print(f"  {tables.size(found.num_bytes)} hashed", file=sys.stderr, flush=True)

    return say


def _users(store: Store, damaged: Sequence[str]) -> dict[str, str]:
    """Return which node of which run uses each damaged artifact, where one does."""
    from engine.runtime import runs

    users: dict[str, str] = {}
    for run in runs.all_runs(store) if damaged else ():
        with suppress(RequestError):  # its plan may be damaged as well
            for node in run.plan().nodes:
                if node.key in damaged:
                    users[node.key] = f"`{node.id}` of run {run.id}"
    return users


def _verify_json(found: Found, aside: Sequence[str], users: Mapping[str, str]) -> dict[str, Any]:
    return {
        "num_artifacts": found.num_artifacts,
        "num_files": found.num_files,
        "num_bytes": found.num_bytes,
        "damages": [
            {
                "key": damage.key,
                "stage": damage.stage,
                "file": damage.file,
                "what": damage.what,
                "used_by": users.get(damage.key),
            }
            for damage in found.damages
        ],
        "set_aside": list(aside),
    }


def _verify_text(found: Found, aside: Sequence[str], users: Mapping[str, str]) -> str:
    counted = (
        f"{found.num_artifacts:,} artifacts, {found.num_files:,} files, "
        f"{tables.size(found.num_bytes)}"
    )
    if not found.damages:
        return f"sound: {counted}"
    lines = [_damage_text(damage, users) for damage in found.damages]
    num = len(found.damaged_keys)
    lines.append(f"{counted}: {num} damaged")
    if aside:
        lines.append("set aside; the next run makes them anew")
    return "\n".join(lines)


def _damage_text(damage: Damage, users: Mapping[str, str]) -> str:
    user = users.get(damage.key) or (f"stage `{damage.stage}`" if damage.stage else "unknown")
    return f"damaged  {damage.key[:12]}  {damage.file}: {damage.what} ({user})"


def _export(args: argparse.Namespace, store: Store) -> int:
    from engine.runtime import transfer

    found = status.chosen_run(store, args.run)
    return _told(args, transfer.export(store, found, Path(args.folder)), "written")


def _import(args: argparse.Namespace, store: Store) -> int:
    from engine.runtime import transfer

    return _told(args, transfer.bring_in(Path(args.folder), store), "taken in")


def _told(args: argparse.Namespace, carried: Carried, done: str) -> int:
    if args.json:
        known = {"run": carried.run, "num_bytes": carried.num_bytes}
        print(json.dumps({**known, "new": list(carried.new), "known": list(carried.known)}))
        return 0
    was = f", {len(carried.known)} were there" if carried.known else ""
    size = tables.size(carried.num_bytes)
    print(f"run {carried.run}: {len(carried.new)} artifacts {done}, {size}{was}")
    return 0
