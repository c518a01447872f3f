"""`adapt schema`: the JSON Schemas of the files that people and machines exchange with `adapt`."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "schema", help="print the JSON schema of recipes", allow_abbrev=False
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        default="bundle",
        help="recipe, bundle (recipe with the settings of every plug-in, for editors), benchmark, "
        "plan, ...; or one plug-in, for example filters/near_duplicate [bundle]",
    )
    parser.add_argument("--json", action="store_true", help="schemas are JSON anyway")


def run(args: argparse.Namespace) -> int:
    """Print a schema."""
    print(json.dumps(schema_named(args.name), indent=2, ensure_ascii=False))
    return 0


def schema_named(name: str) -> dict[str, Any]:
    """Return a schema by name. Raise RequestError with the nearest one if there is none."""
    from engine import package_data, plugin
    from engine.diagnostics import Diagnostic, RequestError, nearest
    from engine.recipe import bundle, params, schema

    files = [path.name.partition(".")[0] for path in package_data.folder("schemas").glob("*.json")]
    families = {family: plugin.names(family) for family in bundle.DESCRIBED_FAMILIES}
    plugins = [f"{family}/{name}" for family, names in families.items() for name in names]
    if name == "bundle":
        return bundle.bundle()
    if name == "benchmark-bundle":
        return bundle.benchmark_bundle()
    if name in files:
        return schema.load(name)
    if name in plugins:
        return params.fragment(*name.split("/"))
    close = nearest(name, [*files, *plugins])
    hint = f"did you mean `{close}`?" if close else "there are " + ", ".join(sorted(files))
    raise RequestError(Diagnostic("unknown-schema", f"there is no schema `{name}`", hint=hint))
