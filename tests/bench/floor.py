"""The least a planner in Python can cost: read YAML, check a schema, make keys, remember them.

`python floor.py plan|warm FILE`. No spans, no plug-ins, no store, no reasons: a limit to compare
with, not a product. It stands alone, so that starting it loads nothing of the engine.
"""

import hashlib
import json
import sys
from pathlib import Path

SCHEMA = {
    "type": "object",
    "required": ["stages"],
    "properties": {
        "stages": {
            "additionalProperties": {
                "type": "object",
                "required": ["needs", "value"],
                "properties": {"needs": {"type": "array", "items": {"type": "string"}}},
            }
        }
    },
}


def digest(value: object) -> str:
    """Return a key."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def compiled(text: bytes) -> dict[str, str]:
    """Return the key of each task."""
    import jsonschema_rs
    import yaml

    document = yaml.load(text, yaml.CSafeLoader)
    for error in jsonschema_rs.validator_for(SCHEMA).iter_errors(document):
        raise SystemExit(str(error))
    keys: dict[str, str] = {}
    for name, stage in document["stages"].items():  # written in the order of their needs
        keys[name] = digest([name, stage["value"], [keys[need] for need in stage["needs"]]])
    return keys


def main() -> None:
    """Plan a file, with or without the cache beside it."""
    if len(sys.argv) < 3:
        import argparse

        argparse.ArgumentParser(description=__doc__).parse_args(["--help"])
    mode, path = sys.argv[1], Path(sys.argv[2])
    text, cache = path.read_bytes(), path.with_suffix(".json")
    if mode == "warm" and cache.exists():
        kept = json.loads(cache.read_text())
        if kept["of"] == hashlib.sha256(text).hexdigest():
            print(f"{len(kept['keys'])} to run")
            return
    keys = compiled(text)
    cache.write_text(json.dumps({"of": hashlib.sha256(text).hexdigest(), "keys": keys}))
    print(f"{len(keys)} to run")


main()
