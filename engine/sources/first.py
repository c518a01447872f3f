"""The first rows of another source, read as it reads them: what a rehearsal takes of real data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from engine import plugin
from engine.plugin import AtLeast, Family, Use
from engine.sources import DigestFile, Locate, Problem, Row, Source, SourceContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the source `first`."""

    source: Annotated[Use, Family("sources"), "The source whose first rows are taken."]
    num_rows: Annotated[int, AtLeast(1), "How many rows, those that cannot be read included."] = 16


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the first rows; `span` is None, for so few are not cut."""
    assert span is None
    source: Source = plugin.load("sources", params.source.name)
    settings = plugin.settings_of("sources", params.source)
    if source.first is not None:
        return source.first(settings, context, params.num_rows)
    return islice(source.rows(settings, context, None), params.num_rows)


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> object:
    """Return the fingerprint of the whole source."""
    source: Source = plugin.load("sources", params.source.name)
    settings = plugin.settings_of("sources", params.source)
    return source.fingerprint(settings, locate, digest_file)


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint)
