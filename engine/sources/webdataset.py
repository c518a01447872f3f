"""Rows from WebDataset shards: tar files in which `key.jpg` stands beside `key.txt` or `key.json`.

A key is a member's name up to the first dot of its last part. `caption` is the text of `key.txt`
unless `columns` names a field of `key.json`. A tar file has no index, so shards are read whole, in
name order.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from engine.sources import (
    DigestFile,
    Locate,
    Problem,
    Row,
    Source,
    SourceContext,
    _columns,
    _files,
    _tables,
)
from engine.sources._files import RowError
from engine.sources._tables import FileParams as Params

SUFFIXES = (".tar", ".tar.gz", ".tgz")
Sample = dict[str, bytes]  # extension -> content


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the samples of all shards; `span` is None, for shards are not cut."""
    assert span is None
    for shard in _files.located_files(params.path, context.locate, SUFFIXES):
        try:
            for key, sample in _samples(shard):
                yield _row(sample, params, f"{shard.name}/{key}")
        except (tarfile.TarError, OSError, EOFError) as error:
            yield Problem(shard.name, "unreadable shard", f"{error}; the rest of it is lost")


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> dict[str, object]:
    """Return a digest over the shards."""
    return _tables.fingerprint(params, SUFFIXES, locate, digest_file)


def _row(sample: Sample, params: Params, source_id: str) -> Row | Problem:
    try:
        raw = _fields(sample)
    except ValueError as error:
        return Problem(source_id, "not JSON", str(error))
    return _columns.build(raw, params, source_id, _no_path)


def _fields(sample: Sample) -> dict[str, Any]:
    """Return the fields of the JSON, the text as `caption` and the first picture as `image`."""
    raw: dict[str, Any] = {}
    if "json" in sample:
        parsed = json.loads(sample["json"])
        raw.update(parsed if isinstance(parsed, dict) else {})
    if "txt" in sample:
        raw["caption"] = raw["txt"] = sample["txt"].decode("utf-8", errors="replace")
    pictures = {name: sample[name] for name in sample if f".{name}" in _files.PICTURES}
    return {**raw, **dict(zip(["image"], pictures.values(), strict=False)), **pictures}


def _samples(shard: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the samples of a shard; members of one sample stand together."""
    current, sample = "", Sample()
    with tarfile.open(shard, "r|*") as members:
        for member in members:
            if not member.isfile():
                continue
            name = PurePosixPath(member.name)
            stem, _, extension = name.name.partition(".")
            key = (name.parent / stem).as_posix()
            if key != current and sample:
                yield current, sample
                sample = Sample()
            current = key
            content = members.extractfile(member)
            assert content is not None
            sample[extension.lower()] = content.read()
    if sample:
        yield current, sample


def _no_path(name: str) -> bytes:
    raise RowError("no image", f"the shard has `{name}` as a path, not as a picture")


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint)
