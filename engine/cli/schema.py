"""`adapt schema`: what may stand in the files that people and machines exchange with `adapt`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

GENERATED = ("bundle", "benchmark-bundle")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "schema",
        help="print the schema of recipes, or explain any part of it",
        description="Print a schema as JSON, or explain a section, a key or a plug-in.",
        epilog="examples: adapt schema bundle > adapt.schema.json; adapt schema training; "
        "adapt schema training.learning_rate; adapt schema near_duplicate",
        allow_abbrev=False,
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        default="bundle",
        help="a file's schema (recipe, benchmark, plan, ...; bundle and benchmark-bundle have the "
        "settings of every plug-in, for editors), or a part: a section or key of recipes, "
        "benchmark.KEY, a plug-in [bundle]",
    )
    parser.add_argument("--list", action="store_true", help="print every NAME there is")
    parser.add_argument(
        "--format", choices=("text", "json"), help="[json for a file's schema, text for a part]"
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    """Print a schema, a part of one in words, or the names of all."""
    wanted = "json" if args.json else args.format
    if args.list:
        found = names()
        print(json.dumps(found, indent=2) if wanted == "json" else _listed(found))
        return 0
    part = part_named(args.name)
    if (wanted or ("json" if part.is_file else "text")) == "json":
        print(part.to_json())
    else:
        print("\n".join(_in_words(part)))
    return 0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a schema, found by name."""

    name: str
    is_file: bool
    root: Callable[[], dict[str, Any]]
    place: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Return the part, its reference followed."""
        from engine.recipe import describe, schema

        root = self.root()
        return dict(schema.resolved(describe.part_at(self.place, root), root))

    def to_json(self) -> str:
        """Return the part as a schema that stands alone: what it refers to comes with it."""
        found = self.schema()
        if "$ref" in json.dumps(found):
            found = {**found, "$defs": self.root()["$defs"]}
        return json.dumps(found, indent=2, ensure_ascii=False)


def names() -> dict[str, list[str]]:
    """Return every name that can be asked for, by kind."""
    from engine.recipe import bundle, schema

    root = schema.load("recipe")
    return {
        "files": [*_files(), *GENERATED],
        "keys of recipes": [".".join(place) for place in _places(root)],
        "keys of benchmarks": [
            f"benchmark.{'.'.join(place)}" for place in _places(schema.load("benchmark"))
        ],
        **{family: _plugins(family) for family in bundle.DESCRIBED_FAMILIES},
    }


def part_named(name: str) -> Part:
    """Return a part by name. Raise RequestError with the nearest one if there is none."""
    from engine.recipe import schema

    head, _, rest = name.partition(".")
    place = tuple(rest.split(".")) if rest else ()
    if name in GENERATED:
        return Part(name, True, lambda: _generated(name))
    if head in _files():
        return _checked(Part(name, not place, lambda: schema.load(head), place))
    plugin_name = _plugin_named(head)
    if plugin_name is not None:
        family, _, own = plugin_name.partition("/")
        return _checked(Part(name, False, lambda: _fragment(family, own), place))
    return _checked(Part(name, False, lambda: schema.load("recipe"), tuple(name.split("."))))


def _checked(part: Part) -> Part:
    from engine.diagnostics import Diagnostic, RequestError, nearest

    try:
        part.schema()
    except KeyError:
        known = [name for listed in names().values() for name in listed]
        short = [name.partition("/")[2] for name in known if "/" in name]
        close = nearest(part.name, [*known, *short])
        hint = f"did you mean `{close}`?" if close else "`adapt schema --list` prints the names"
        message = f"there is no schema `{part.name}`"
        raise RequestError(Diagnostic("unknown-schema", message, hint=hint)) from None
    return part


def _generated(name: str) -> dict[str, Any]:
    from engine.recipe import bundle

    return bundle.bundle() if name == "bundle" else bundle.benchmark_bundle()


def _fragment(family: str, name: str) -> dict[str, Any]:
    """Return the schema of a plug-in's settings, with what its file says of it."""
    from engine import plugin
    from engine.recipe import params

    return {"description": plugin.about(family, name), **params.fragment(family, name)}


def _files() -> list[str]:
    from engine import package_data

    found = {path.name.partition(".")[0] for path in package_data.folder("schemas").glob("*.json")}
    return sorted(found - set(GENERATED))


def _plugins(family: str) -> list[str]:
    from engine import plugin

    return [f"{family}/{name}" for name in plugin.names(family)]


def _plugin_named(name: str) -> str | None:
    """Return the full name of a plug-in; a short one must be unique, and no key of recipes."""
    from engine.recipe import bundle, schema

    known = [full for family in bundle.DESCRIBED_FAMILIES for full in _plugins(family)]
    if name in known:
        return name
    matching = [full for full in known if full.partition("/")[2] == name]
    is_key = name in schema.load("recipe")["properties"]
    return matching[0] if len(matching) == 1 and not is_key else None


def _places(root: Any) -> Iterator[tuple[str, ...]]:
    from engine.recipe import describe

    sections = [(), *describe.sections_of(root, root)]
    for place in sections:
        yield from ((*place, key.name) for key in describe.keys_of(_at(place, root), root))


def _at(place: tuple[str, ...], root: Any) -> Any:
    from engine.recipe import describe

    return describe.part_at(place, root)


def _listed(found: dict[str, list[str]]) -> str:
    return "\n\n".join(
        f"{kind}:\n" + "\n".join(f"  {name}" for name in listed) for kind, listed in found.items()
    )


def _in_words(part: Part) -> Iterator[str]:
    """Yield the lines that explain a part: itself, then each of its keys."""
    from textwrap import wrap

    from engine.recipe import describe, schema

    found, root = part.schema(), part.root()
    own = describe.key_of(part.name, found, root)
    yield part.name
    yield from (f"  {line}" for line in wrap(own.about, 94))
    keys = describe.keys_of(found, root)
    if not keys or own.family:
        yield f"  {own.typed}" + _otherwise(own)
    if own.family:
        yield from _plugin_lines(own.family)
        return
    for key in keys:
        yield ""
        yield f"  {key.name}: {key.typed}" + _otherwise(key)
        yield from (f"      {line}" for line in wrap(key.about, 90))
        inner = schema.resolved(found["properties"][key.name], root)
        if "properties" in inner and key.family is None:
            yield f"      `adapt schema {part.name}.{key.name}` explains its keys."


def _plugin_lines(family: str) -> Iterator[str]:
    from engine import plugin

    names = plugin.names(family)
    width = max(map(len, names))
    yield "  use: one of"
    yield from (f"    {name:<{width}}  {plugin.about(family, name)}" for name in names)


def _otherwise(key: Any) -> str:
    if key.is_required:
        return "; required"
    return f"; default {key.default}" if key.default else ""
