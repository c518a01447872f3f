"""Rows of a dataset of the Hugging Face hub, or of a local folder that `datasets` can load.

Pictures pass through as the bytes that were uploaded: `datasets` would decode and re-encode them,
and equal files would then differ between its versions. Without a network the dataset must be in the
local cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

from engine import hub
from engine.diagnostics import StageError, nearest
from engine.plan.lock import is_commit
from engine.plugin import Neutral
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

MOST_TOLD = 400  # characters of a message of `datasets`; it may list every ending it knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Params(RowParams):
    """Settings of the source `hub`."""

    dataset: Annotated[str, "Dataset id `owner/name`, or a local folder (./...)."]
    config: Annotated[str | None, "Configuration (subset) of the dataset."] = None
    split: Annotated[str, "Split; a slice such as train[:1000] works."] = "train"
    revision: Annotated[
        str | None, "Commit or tag; without one, the newest counts as the same."
    ] = None
    data_file: Annotated[
        str | None, "One file of the dataset, where it holds several tables; its split is `train`."
    ] = None
    image_root: Annotated[
        str | None,
        Neutral(),
        "Folder with the pictures, unpacked, where the rows have their names alone.",
    ] = None

    @property
    def is_local(self) -> bool:
        """Tell whether the dataset is a folder of this machine."""
        return self.dataset.startswith((".", "/", "~"))


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the rows of the split."""
    table = _table(params, context)
    wanted = [name for name in table.column_names if name in _columns.wanted(params)]
    span = range(len(table)) if span is None else span
    chosen = _undecoded(table.select_columns(wanted)).select(span)
    yield from _built(zip(span, chosen, strict=True), params, context)


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of rows of the split."""
    return len(_table(params, context))


def first(params: Params, context: SourceContext, num_rows: int) -> Iterator[Row | Problem]:
    """Yield the first rows: of the hub's files, only their beginnings are fetched."""
    name, bounds = _whole_split(params.split)
    start, stop = bounds
    most = num_rows if stop is None else min(num_rows, max(stop - start, 0))
    wanted = _wanted(params, name, context)
    builder = _builder(wanted)
    with wanted.told():
        stream = builder.as_streaming_dataset(wanted.split)
        header = stream.column_names or list(stream.features or ())
    if header:
        _columns.check_header(params, header, f"the dataset `{params.dataset}`")
    with wanted.told():
        chosen = list(_undecoded(stream).skip(start).take(most))
    yield from _built(enumerate(chosen), params, context)


def _built(
    numbered: Iterable[tuple[int, dict[str, Any]]], params: Params, context: SourceContext
) -> Iterator[Row | Problem]:
    where = (params.dataset, params.config, params.data_file, params.split)
    prefix = "/".join(name for name in where if name)
    read = _read if params.image_root is None else _reader(params.image_root, context.locate)
    for number, raw in numbered:
        yield _columns.build(raw, params, f"{prefix} row {number}", read)


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
    """Return name and revision of a hub dataset, or a digest over a local one.

    Pictures beside it are part of that as soon as they are there: a plan is wanted before.
    """
    _columns.check_names(params)
    chosen: dict[str, object] = {"config": params.config, "split": params.split}
    if params.data_file is not None:
        chosen["data_file"] = params.data_file
    if params.image_root is not None and locate(params.image_root).is_dir():
        pictures = locate(params.image_root)
        named = _files.relative(_files.walk(pictures), pictures)
        chosen["pictures"] = _files.digest_of(named, digest_file)
    if not params.is_local:
        return {"hub": params.dataset, "revision": params.revision, **chosen}
    root = _files.located_folder(params.dataset, locate)
    files = list(_files.walk(root))
    if not files:
        raise ValueError(f"the folder `{params.dataset}` is empty")
    return {**_files.digest_of(_files.relative(files, root), digest_file), **chosen}


def _table(params: Params, context: SourceContext) -> Any:
    """Return the split; its columns are looked at before a file of it is downloaded, if told."""
    wanted = _wanted(params, params.split, context)
    what = f"the dataset `{params.dataset}`"
    features = _builder(wanted).info.features
    if features:
        _columns.check_header(params, list(features), what)
    table = _load(wanted)
    _columns.check_header(params, table.column_names, what)
    return table


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked of `datasets`; it says why that cannot be had, and what there is instead."""

    dataset: str
    config: str | None
    data_file: str | None
    split: str
    revision: str | None
    context: SourceContext

    @property
    def is_local(self) -> bool:
        return self.dataset.startswith((".", "/", "~"))

    @property
    def where(self) -> str:
        return str(self.context.locate(self.dataset)) if self.is_local else self.dataset

    @property
    def is_offline(self) -> bool:
        return self.context.is_offline or hub.is_offline()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Keep to the network that is allowed, and turn what `datasets` raises into StageError."""
        from datasets.exceptions import DatasetsError

        try:
            with _network(self.context.is_offline):
                yield
        except (OSError, ValueError, DatasetsError) as error:
            raise self._refused(error) from (None if self.is_offline else error)

    def check(self, builder: Any) -> None:
        """Raise StageError before anything is downloaded that would be of no use."""
        if is_commit(self.revision) and builder.hash != self.revision and not self.is_local:
            raise self._another_commit()
        files, known = builder.config.data_files, builder.info.splits
        there = list(known or files or ())
        missing = [name for name in _split_names(self.split) if name not in (*there, "all")]
        if there and missing:
            raise self._unknown("split", missing[0], there)

    def _refused(self, error: Exception) -> StageError:
        """Return why the rows cannot be had: by the words of the data set, or of the hub."""
        there = self._configs() if isinstance(error, ValueError) else []
        if there and self.config not in there:
            return self._unknown("config", self.config, there)
        why = shorten(str(error), MOST_TOLD, placeholder=" ...")
        if not self.is_local and self.is_offline:
            return StageError(
                f"the dataset `{self.dataset}` is not in the local cache, and this machine is "
                f"offline ({why})",
                hint="load it once on a machine with a network and copy its cache, or use a local "
                "folder",
                code="hub-offline",
                about=("dataset",),
            )
        found = None if self.is_local else hub.refusal("dataset", self.dataset, self.revision)
        message = f"the dataset `{self.dataset}` cannot be loaded: {why}"
        return found or StageError(message, about=("dataset",))

    def _configs(self) -> list[str]:
        """Return the configs to choose from; none where one need not be named."""
        import datasets

        try:
            with _network(self.is_offline):
                at = {"path": self.where, "revision": self.revision}
                found = list(datasets.get_dataset_config_names(**at))
                has_default = self.config is None and (
                    len(found) == 1 or datasets.get_dataset_default_config_name(**at) is not None
                )
                return [] if has_default else found
        except Exception:  # whatever went wrong was another thing than the name of a config
            return []

    def _unknown(self, what: str, name: str | None, there: list[str]) -> StageError:
        close = nearest(name, there) if name else None
        has = f"the dataset `{self.dataset}` has"
        message = (
            f"{has} no {what} `{name}`" if name else f"{has} several {what}s, and none is named"
        )
        return StageError(
            f"{message}; it has {_columns.listed(there)}",
            hint=f"did you mean `{close}`?" if close else f"write `{what}: {there[0]}`",
            code=f"unknown-{what}",
            about=(what,),
        )

    def _another_commit(self) -> StageError:
        """Return why the copy in the cache, which `datasets` falls back on, is of no use."""
        found = None if self.is_offline else hub.refusal("dataset", self.dataset, self.revision)
        return found or StageError(
            f"the local cache holds the dataset `{self.dataset}` at another commit than "
            f"`{self.revision}`",
            hint="load it once on a machine with a network",
            code="hub-offline",
            about=("revision",),
        )


def _wanted(params: Params, split: str, context: SourceContext) -> _Wanted:
    of = (params.dataset, params.config, params.data_file)
    return _Wanted(*of, split, params.revision, context)


@lru_cache(maxsize=1)
def _builder(wanted: _Wanted) -> Any:
    """Return what can load a data set and knows its configs and splits; no row is downloaded."""
    import datasets

    datasets.disable_progress_bars()
    with wanted.told():
        found = datasets.load_dataset_builder(
            wanted.where, wanted.config, data_files=wanted.data_file, revision=wanted.revision
        )
    wanted.check(found)
    return found


@lru_cache(maxsize=1)
def _load(wanted: _Wanted) -> Any:
    builder = _builder(wanted)
    with wanted.told():
        builder.download_and_prepare()
        return builder.as_dataset(wanted.split)


def _split_names(split: str) -> list[str]:
    """Return the names in a split such as `train[:1000]+validation`."""
    return [part.strip().partition("[")[0] for part in split.split("+")]


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


def _reader(image_root: str, locate: Locate) -> Callable[[str], bytes]:
    try:
        root = _files.located_folder(image_root, locate)
    except FileNotFoundError as error:
        hint = "unpack the dataset's picture archives there"
        raise StageError(f"`image_root`: {error}", hint=hint) from None
    return partial(_files.read_under, root)


def _read(name: str) -> bytes:
    """Read a picture that the dataset holds as a path of this machine."""
    return _files.read_picture(Path(name))


PLUGIN = Source(
    version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows, first=first
)
