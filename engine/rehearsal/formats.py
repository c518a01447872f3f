"""Writes made-up rows as a kind of source reads them, so that its own code reads them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.plugin import Use
from engine.rehearsal import rows as made_up
from engine.rehearsal.rows import Row

TABLE = "rows"
_PICTURES = ("jpg", "jpeg", "png", "webp")


def write(use: Use, rows: Sequence[Row], folder: Path) -> Use:
    """Write rows into a folder; return the source as it is, but for where it reads."""
    folder.mkdir(parents=True, exist_ok=True)
    return replace(use, settings={**use.settings, **_WRITERS[use.name](use, rows, folder)})


def _hub(use: Use, rows: Sequence[Row], folder: Path) -> Mapping[str, Any]:
    """Write a dataset with the configuration and the split that are asked for."""
    if use.settings.get("data_file"):
        named = json.dumps(_with_paths(rows, folder))
        _put(folder / use.settings["data_file"], named.encode())
        return {"dataset": str(folder), "revision": None, "image_root": str(folder)}
    split = str(use.settings.get("split") or "train").partition("[")[0].partition("+")[0]
    config = use.settings.get("config") or "default"
    parts = {"split": split, "path": _parquet(use, rows, folder)["path"].rpartition("/")[2]}
    card = {"configs": [{"config_name": config, "data_files": [parts]}]}
    _put(folder / "README.md", f"---\n{json.dumps(card)}\n---\n".encode())
    return {"dataset": str(folder), "revision": None}


def _parquet(use: Use, rows: Sequence[Row], folder: Path) -> Mapping[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([_with_pictures(row, _as_struct) for row in rows])
    path = folder / f"{TABLE}.parquet"
    written = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(_features(rows, table)), written)
    _put(path, written.getvalue())
    return {"path": str(path), "image_root": None}


def _features(rows: Sequence[Row], table: Any) -> dict[str, str]:
    """Return what `datasets` writes beside a table: which columns hold pictures."""
    features: dict[str, Any] = {}
    for name in table.column_names:
        values = [row[name] for row in rows if row[name] is not None]
        if any(isinstance(value, bytes) for value in values):
            features[name] = {"_type": "Image"}
        elif any(isinstance(value, list) and isinstance(value[0], bytes) for value in values):
            features[name] = {"feature": {"_type": "Image"}, "_type": "List"}
    if len(features) < len(table.column_names):
        import datasets

        found = datasets.Features.from_arrow_schema(table.schema).to_dict()
        features = {**found, **features}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _json_file(use: Use, rows: Sequence[Row], folder: Path) -> Mapping[str, Any]:
    lines = [json.dumps(row) for row in _with_paths(rows, folder)]
    _put(folder / f"{TABLE}.jsonl", "\n".join(lines).encode())
    return {"path": str(folder / f"{TABLE}.jsonl"), "image_root": None}


def _csv_file(use: Use, rows: Sequence[Row], folder: Path) -> Mapping[str, Any]:
    written = io.StringIO(newline="")
    table = csv.DictWriter(written, list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    for row in _with_paths(rows, folder):
        cells = {name: v[0] if isinstance(v, list) else v for name, v in row.items()}
        table.writerow({name: "" if value is None else value for name, value in cells.items()})
    _put(folder / f"{TABLE}.csv", written.getvalue().encode())
    return {"path": str(folder / f"{TABLE}.csv"), "image_root": None}


def _webdataset(use: Use, rows: Sequence[Row], folder: Path) -> Mapping[str, Any]:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as shard:
        for number, row in enumerate(rows):
            for ending, content in _members(row):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    _put(folder / f"{TABLE}.tar", written.getvalue())
    return {"path": str(folder / f"{TABLE}.tar"), "image_root": None}


def _members(row: Row) -> list[tuple[str, bytes]]:
    """Return the members of a sample by their endings: a picture, a text, the rest as JSON."""
    found: list[tuple[str, bytes]] = []
    rest: Row = {}
    for name, value in row.items():
        one = value[0] if isinstance(value, list) and isinstance(value[0], bytes) else value
        if isinstance(one, bytes):
            found.append((name if name in _PICTURES else "jpg", one))
        elif name in ("caption", "txt") and isinstance(value, str):
            found.append(("txt", value.encode()))
        else:
            rest[name] = value
    return [*found, ("json", json.dumps(rest).encode())] if rest else found


def _image_folder(use: Use, rows: Sequence[Row], folder: Path) -> Mapping[str, Any]:
    """Write pictures, and captions where the source looks for them."""
    entries: list[dict[str, str]] = []
    for number, row in enumerate(rows):
        name = f"{number:03d}.jpg"
        _put(folder / name, row["image"])
        if row["caption"] is None:
            continue
        entries.append({"file_name": name, "caption": row["caption"]})
        if use.settings.get("captions", "auto") in ("auto", "sidecar"):
            _put(folder / f"{number:03d}.txt", row["caption"].encode())
    if use.settings.get("captions") == "metadata":
        _put(folder / "metadata.jsonl", "\n".join(map(json.dumps, entries)).encode())
    if use.settings.get("captions") == "csv":
        written = io.StringIO(newline="")
        table = csv.DictWriter(written, ("file_name", "caption"))
        table.writeheader()
        table.writerows(entries)
        _put(folder / "captions.csv", written.getvalue().encode())
    return {"path": str(folder)}


def _vision_flan(use: Use, rows: Sequence[Row], folder: Path) -> Mapping[str, Any]:
    """Write the three lists of conversations, and the pictures in a zip file."""
    names = [f"task_{number}.jpg" for number in range(len(rows))]
    lists: dict[str, list[Any]] = {"tasks": [], "captions": [], "answers": []}
    for name, row in zip(names, rows, strict=True):
        asked = f"{row['instruction']}\n<image>"
        told = {"tasks": row["precise"], "captions": row["caption"], "answers": row["informative"]}
        for role, answer in told.items():
            question = "<image>\nDescribe it." if role == "captions" else asked
            exchange = made_up.exchange(question, answer)
            lists[role].append({"image": name, "conversations": exchange, "task_name": row["task"]})
    for role, items in lists.items():
        _put(folder / f"{role}.json", json.dumps(items).encode())
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as pictures:
        for name, row in zip(names, rows, strict=True):
            pictures.writestr(zipfile.ZipInfo(f"images/{name}"), row["image"])
    _put(folder / "images.zip", written.getvalue())
    found = {role: str(folder / f"{role}.json") for role in lists}
    return {**found, "images": str(folder / "images.zip")}


_WRITERS: Mapping[str, Callable[[Use, Sequence[Row], Path], Mapping[str, Any]]] = {
    "hub": _hub,
    "parquet": _parquet,
    "json_file": _json_file,
    "csv_file": _csv_file,
    "webdataset": _webdataset,
    "image_folder": _image_folder,
    "vision_flan": _vision_flan,
}


def _with_paths(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Write the pictures of rows as files; return the rows with their paths instead."""
    written: dict[bytes, str] = {}

    def path(encoded: bytes) -> str:
        name = written.setdefault(encoded, f"images/{len(written):03d}.jpg")
        (folder / "images").mkdir(exist_ok=True)
        _put(folder / name, encoded)
        return name

    return [_with_pictures(row, path) for row in rows]


def _with_pictures(row: Row, make: Callable[[bytes], Any]) -> Row:
    def made(value: Any) -> Any:
        if isinstance(value, list):
            return [made(item) for item in value]
        return make(value) if isinstance(value, bytes) else value

    return {name: made(value) for name, value in row.items()}


def _as_struct(encoded: bytes) -> dict[str, Any]:
    return {"bytes": encoded, "path": None}


def _put(path: Path, content: bytes) -> None:
    """Write a file unless it is there as it would be: another rehearsal may be reading it."""
    if path.is_file() and path.read_bytes() == content:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
