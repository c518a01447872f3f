"""Asks one vLLM session many things and prints the answers as JSON: run by `test_vllm.py`.

An engine takes up to a minute to start, so what can be asked of one session is asked of one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine import images, package_data, plugin
from engine.backends import Ask, Choices, Completion, Flow, ModelFiles, Request, Sampling
from engine.diagnostics import EngineDiedError, StageError
from engine.plan.stage import Machine
from engine.plugin import ModelUse
from engine.pocket import shapes
from engine.records import ImagePart, user
from engine.stages._models import LazySession, Models
from tests.backends import adapters
from tests.backends.ask_backend import requests

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}, "number": {"enum": [1, 2, 3]}},
        "required": ["answer", "number"],
        "additionalProperties": False,
    }
)
GREEDY = Sampling(24)


def opened(backend: str, folder: str | Path, adapter: str | None = None, **settings: Any) -> Any:
    plug = plugin.load("backends", backend)
    return plug.open(ModelFiles(str(folder), adapter=adapter), plug.params(**settings), Machine())


def judge() -> dict[str, Any]:
    """Sample texts in several orders, and write to a schema."""
    session = opened("vllm", package_data.pocket_model("judge"))
    found = _sampled(session)
    session.close()
    return found


def _sampled(session: Any) -> dict[str, Any]:
    hot = Sampling(20, temperature=1.0, seed=5)
    texts = requests("judge", 8)
    first = [one.raw for one in session.generate(texts, hot)]
    again = [one.raw for one in session.generate(texts[::-1], hot)]
    same = [one.raw for one in session.generate([texts[0]] * 2, hot)]
    other = [one.raw for one in session.generate(texts, Sampling(20, 1.0, 6))]
    narrow = [one.raw for one in session.generate(texts, Sampling(20, 1.0, 5, top_p=1e-6))]
    greedy = [one.raw for one in session.generate(texts, Sampling(20))]
    formed = session.generate(texts[:2], Sampling(40, 1.0, 5, json_schema=SCHEMA))
    return {
        "hot": first,
        "backwards": again[::-1],
        "same": same,
        "other": other,
        "narrow": narrow,
        "greedy": greedy,
        "many": [one.error for one in session.generate(requests("judge", 300), hot)],
        "json": [one.raw for one in formed],
    }


def base() -> dict[str, Any]:
    """Run flows of several questions, bad requests among them, then let the engine die."""
    session = opened("vllm", package_data.pocket_model("base"), max_images=2, max_num_seqs=16)
    results: dict[int, list[str]] = {}
    started_after: Counter[int] = Counter()  # so many had ended -> flows that were started then

    def flows() -> Iterator[Flow[list[str]]]:
        for number in range(200):
            started_after[len(results)] += 1
            yield _flow(number)

    for number, result in session.run(flows()):
        results[number] = result
    alone = [one.text for one in session.generate([_question(3)], GREEDY)]
    bad = session.generate([_broken(), _question(3), _long(), _many(3), _many(2)], GREEDY)
    late = _late(session)
    lost = _lost(session)
    return {
        "results": [results[number] for number in range(200)],
        "started": list(started_after.values()),
        "processes": _engine_processes(),
        "alone": alone,
        "bad": [(one.error, one.text) for one in bad],
        "late": late,
        "lost": lost,
        "died": _killed(session),
    }


def _engine_processes() -> list[str]:
    import psutil

    names = [child.name() for child in psutil.Process().children(recursive=True)]
    return [name for name in names if name.startswith("VLLM")]


def _flow(number: int) -> Flow[list[str]]:
    texts = []
    for _ in range(1 + number % 3):
        done: Completion = yield Ask(_question(number), GREEDY)
        texts.append(done.text)
    return texts


def _picture(number: int) -> bytes:
    return images.encode_png(shapes.draw(shapes.scene(78, "flows", number % 8)))


def _question(number: int) -> Request:
    return Request((user(ImagePart(0), "What is shown?"),), (_picture(number),))


def _broken() -> Request:
    return Request((user(ImagePart(0), "What is shown?"),), (b"no picture",))


def _long() -> Request:
    return Request((user("many " * 2000),))


def _late(session: Any) -> dict[str, Any]:
    """Ask about a picture that is too long once its tokens are counted, then in short."""
    encoded = images.encode_png(shapes.draw(shapes.scene(79, "late", 0)))
    request = Request((user(ImagePart(0), "What is shown?"),), (encoded,))
    text, _ = session._desk._text(request)
    (tokens,) = session._inputs.tokenize([text])
    (full,) = session.generate([request], Sampling(session.context_tokens - len(tokens.ids)))
    cache = session._engine.core.renderer.mm_processor_cache
    is_cached = cache.is_cached_item(hashlib.sha256(encoded).hexdigest())
    (short,) = session.generate([request], GREEDY)
    return {"error": full.error, "is_cached": is_cached, "then": short.error, "text": short.text}


def _lost(session: Any) -> dict[str, Any]:
    """Ask and score, then once more when the engine has lost its pictures behind vLLM's back."""

    def lose() -> None:
        loses = session._engine.core.engine_core.reset_mm_cache_async()
        asyncio.run_coroutine_threadsafe(loses, session._engine.loop).result()

    def answers(before_each: Callable[[], None]) -> tuple[str, list[float]]:
        before_each()
        (done,) = session.generate([_question(3)], GREEDY)
        before_each()
        (scored,) = session.score([Choices(_question(3), ("Yes", "No"))])
        return done.text, list(scored.log_probs)

    return {"kept": answers(lambda: None), "lost": answers(lose)}


def _many(count: int) -> Request:
    parts = [ImagePart(number) for number in range(count)]
    return Request((user(*parts, "What is shown?"),), tuple(map(_picture, range(count))))


def _killed(session: Any) -> str:
    """Kill the engine's processes while it works; return what the session raises."""
    import multiprocessing

    try:
        for _ in session.run(_flow(number) for number in range(100)):
            for child in multiprocessing.active_children():
                if child.name.startswith("EngineCore"):
                    os.kill(child.pid or 0, signal.SIGKILL)
    except EngineDiedError as error:
        return str(error)
    finally:
        session.close()
    return "it lives"


def adapted(folder: str, adapter: str | None = None) -> dict[str, Any]:
    """Answer with an adapter, or return what is wrong with it or its model."""
    try:
        session = opened("vllm", folder, adapter, max_num_seqs=8)
    except StageError as error:
        return {"error": str(error)}
    asked = Request((user(ImagePart(0), adapters.QUESTION),), (adapters.picture(),))
    scored = session.score([Choices(asked, adapters.CHOICES)])
    session.close()
    return {"scores": scored[0].log_probs}


def one_by_one() -> dict[str, Any]:
    """Ask two models in turn, as filters do; count the engines that are in memory meanwhile."""
    found: dict[str, Any] = {"engines": [], "raw": []}
    with Models(_lazily) as models:
        for name in ("judge", "base", "judge"):
            flows = (_one(request) for request in requests("judge", 8))
            done = dict(models.get(ModelUse(model=name)).run(flows))
            found["engines"].append(len(_engine_processes()))
            found["raw"].append([done[number].raw for number in sorted(done)])
    return found | {"left": _engine_processes()}


def _one(request: Request) -> Flow[Completion]:
    done: Completion = yield Ask(request, GREEDY)
    return done


def _lazily(use: ModelUse) -> LazySession:
    return LazySession(lambda: opened("vllm", package_data.pocket_model(use.model)), lambda: True)


def copies() -> dict[str, Any]:
    """Answer with two copies of the model."""
    import multiprocessing

    folder = package_data.pocket_model("judge")
    session = opened("vllm", folder, max_num_seqs=8, data_parallel_size=2)
    names = [child.name for child in multiprocessing.active_children()]
    done = session.generate(requests("judge"), Sampling(100))
    session.close()
    engines = sum(name.startswith("EngineCore") for name in names)
    return {"engines": engines, "raw": [one.raw for one in done]}


SESSIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "judge": judge,
    "base": base,
    "copies": copies,
    "one_by_one": one_by_one,
    "adapted": adapted,
}


def main(what: str, *arguments: str) -> None:
    """Ask a session, and print what it answers."""
    found = SESSIONS[what](*arguments)
    print("ANSWERS" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
