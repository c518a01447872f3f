"""Drop tasks that are not written in one of the wanted languages.

Told by py3langid (Lui and Baldwin 2012, langid.py), which knows 97 languages and is sure of whole
sentences only. Short texts, and texts of which it is not sure, pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from engine.filters import Decide, Filter, FilterContext, Measure, Verdict
from engine.plugin import AtLeast, Between
from engine.records import Record
from engine.wording import num_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `language`."""

    languages: Annotated[
        tuple[str, ...], AtLeast(1), "Wanted languages, two letters each (ISO 639-1)."
    ] = ("en",)
    min_words: Annotated[int, AtLeast(1), "Shorter texts are not judged."] = 6
    min_probability: Annotated[
        float, Between(0, 1), "How sure it must be of another language to drop a task."
    ] = 0.9


def measure(params: Params, context: FilterContext) -> Measure:
    """Find out the language of each task's texts: (code, probability), or None if too short."""
    return Measure(lambda records: _languages(records, params.min_words))


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""

    def decide(record: Record, found: Sequence[Any] | None) -> Verdict | None:
        if found is None:
            return None
        code, probability = found
        if code in params.languages or probability < params.min_probability:
            return None
        return Verdict("another language", f"{code} {probability:.2f}")

    return decide


def _languages(records: Iterable[Record], min_words: int) -> Iterator[tuple[str, float] | None]:
    identify = _identifier()
    for record in records:
        text = f"{record.instruction}\n{record.answer('informative')}"
        if num_words(text) < min_words:
            yield None
            continue
        code, probability = identify(text)
        yield str(code), round(float(probability), 4)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify


PLUGIN = Filter(version=1, params=Params, open=open_filter, measure=measure)
