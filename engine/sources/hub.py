"""Rows of a dataset of the Hugging Face hub, or of a local folder that `datasets` can load.

Pictures pass through as the bytes that were uploaded: `datasets` would decode and re-encode them,
and equal files would then differ between its versions. Without a network the dataset must be in the
local cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from engine.diagnostics import StageError
from engine.sources import (
    DigestFile,
    Locate,
    Problem,
    Row,
    Source,
    SourceContext,
    _columns,
    _files,
)
from engine.sources._columns import RowParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Params(RowParams):
    """Settings of the source `hub`."""

    dataset: Annotated[str, "Dataset id `owner/name`, or a local folder (./...)."]
    config: Annotated[str | None, "Configuration (subset) of the dataset."] = None
    split: Annotated[str, "Split; a slice such as train[:1000] works."] = "train"
    revision: Annotated[
        str | None, "Commit or tag; without one, the newest counts as the same."
    ] = None

    @property
    def is_local(self) -> bool:
        """Tell whether the dataset is a folder of this machine."""
        return self.dataset.startswith((".", "/", "~"))


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the rows of the split."""
    table = _load(params.dataset, params.config, params.split, params.revision, context)
    _columns.check_header(params, table.column_names, f"the dataset `{params.dataset}`")
    wanted = [name for name in table.column_names if name in _columns.wanted(params)]
    span = range(len(table)) if span is None else span
    chosen = _undecoded(table.select_columns(wanted)).select(span)
    prefix = "/".join(name for name in (params.dataset, params.config, params.split) if name)
    for number, raw in zip(span, chosen, strict=True):
        yield _columns.build(raw, params, f"{prefix} row {number}", _read)


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of rows of the split."""
    return len(_load(params.dataset, params.config, params.split, params.revision, context))


def first(params: Params, context: SourceContext, num_rows: int) -> Iterator[Row | Problem]:
    """Yield the first rows: of the hub's files, only their beginnings are fetched."""
    name, bounds = _whole_split(params.split)
    start, stop = bounds
    most = num_rows if stop is None else min(num_rows, max(stop - start, 0))
    where = (params.dataset, params.config, name, params.revision)
    stream = _load(*where, context, is_streamed=True)
    header = stream.column_names or list(stream.features or ())
    if header:
        _columns.check_header(params, header, f"the dataset `{params.dataset}`")
    prefix = "/".join(part for part in (params.dataset, params.config, params.split) if part)
    chosen = _undecoded(stream).skip(start).take(most)
    for number, raw in enumerate(chosen):
        yield _columns.build(raw, params, f"{prefix} row {number}", _read)


def _whole_split(split: str) -> tuple[str, tuple[int, int | None]]:
    """Return the split that a slice in rows such as train[10:100] is of, and where it is cut.

    Other slices, in percent or of several splits, are read from the beginning of the first.
    """
    name, _, rest = split.partition("[")
    start, _, stop = rest.rstrip("]").partition(":")
    if not (rest.endswith("]") and rest.count("]") == 1):
        return name, (0, None)
    return name, (
        int(start) if start.isdigit() else 0,
        int(stop) if stop.isdigit() else None,
    )


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> dict[str, object]:
    """Return name and revision of a hub dataset, or a digest over a local one."""
    _columns.check_names(params)
    chosen = {"config": params.config, "split": params.split}
    if not params.is_local:
        return {"hub": params.dataset, "revision": params.revision, **chosen}
    root = _files.located_folder(params.dataset, locate)
    files = list(_files.walk(root))
    if not files:
        raise ValueError(f"the folder `{params.dataset}` is empty")
    return {**_files.digest_of(_files.relative(files, root), digest_file), **chosen}


@lru_cache(maxsize=1)
def _load(
    dataset: str,
    config: str | None,
    split: str,
    revision: str | None,
    context: SourceContext,
    *,
    is_streamed: bool = False,
) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    is_local = dataset.startswith((".", "/", "~"))
    where = str(context.locate(dataset)) if is_local else dataset
    try:
        with _network(context.is_offline):
            return datasets.load_dataset(
                where, config, split=split, revision=revision, streaming=is_streamed
            )
    except (OSError, ValueError, DatasetsError) as error:
        raise _cannot_load(dataset, is_local, context.is_offline, error) from error


@contextmanager
def _network(is_offline: bool) -> Iterator[None]:
    """Keep `datasets` off the network, which it reads from the environment when imported."""
    import datasets
    import huggingface_hub

    settings = ((datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE"))
    before = [getattr(module, name) for module, name in settings]
    for module, name in settings:
        setattr(module, name, is_offline or getattr(module, name))
    try:
        yield
    finally:
        for (module, name), value in zip(settings, before, strict=True):
            setattr(module, name, value)


def _cannot_load(dataset: str, is_local: bool, is_offline: bool, error: Exception) -> StageError:
    why = " ".join(str(error).split())
    if is_local or not is_offline:
        return StageError(f"the dataset `{dataset}` cannot be loaded: {why}")
    return StageError(
        f"the dataset `{dataset}` is not in the local cache, and this machine is offline ({why})",
        hint="load it once on a machine with a network and copy its cache, or use a local folder",
    )


def _undecoded(table: Any) -> Any:
    """Return the table with pictures as {bytes, path}."""
    import datasets

    raw = datasets.Image(decode=False)
    for name, feature in (table.features or {}).items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, raw)
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            table = table.cast_column(name, datasets.List(raw))
    return table


def _read(name: str) -> bytes:
    """Read a picture that the dataset holds as a path of this machine."""
    return _files.read_picture(Path(name))


PLUGIN = Source(
    version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows, first=first
)
