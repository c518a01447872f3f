"""How vLLM is started and supplied; needs no vLLM."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import weakref
from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.backends import Ask, Choices, Request, Sampling
from engine.backends._talk import Ending, Prompt
from engine.backends._vllm import VllmSession
from engine.backends._vllm_engine import (
    Engine,
    _image_settings,
    _max_model_len,
    _one_process,
    _supply,
)
from engine.backends._vllm_load import num_bytes
from engine.backends._vllm_prompts import Asked, Desk, Prepared, RefusedError
from engine.backends.vllm import Params
from engine.diagnostics import EngineDiedError, StageError
from engine.plan.stage import Machine
from engine.records import user

REQUEST = Request((user("What is there to say?"),))
WAIT_S = 10.0


@pytest.mark.parametrize(
    ("device", "seqs", "copies", "expected"),
    [
        ("cpu", 256, 1, (320, 32)),  # a few wait, and they come in groups
        ("cpu", 4, 1, (16, 1)),
        ("cpu", 256, 2, (640, 32)),
        ("cuda", 256, 1, (640, 1)),  # a batch in work, one and a half waiting
        ("cuda", 4, 2, (32, 1)),
    ],
)
def test_prompts_in_hand_grow_with_the_batch(
    device: str, seqs: int, copies: int, expected: tuple[int, int]
):
    params = Params(max_num_seqs=seqs, data_parallel_size=copies)

    assert _supply(params, Machine(device=device)) == expected


def test_a_vllm_that_does_not_tell_how_it_binds_threads_keeps_its_two_processes(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "vllm.utils.ompmultiprocessing", None)
    parallel = SimpleNamespace(world_size_across_dp=1, distributed_executor_backend="mp")
    device = SimpleNamespace(device_type="cpu")

    with _one_process(SimpleNamespace(parallel_config=parallel, device_config=device)):
        assert parallel.distributed_executor_backend == "mp"


class FakeEngine:
    """Keeps what it is asked, for the test to answer."""

    def __init__(self, max_bytes: int = 10) -> None:
        self.max_bytes = max_bytes
        self.asked: queue.SimpleQueue[tuple[Any, Callable[[Any], None]]] = queue.SimpleQueue()

    def ask(self, rendered: Any, rules: Any, done: Callable[[Any], None], **_: Any) -> None:
        self.asked.put((rules, done))


class Pixels:
    """What counts of a tensor."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class FakeDesk(Desk):
    """Prepares a question in no time; each has a picture of so many bytes."""

    picture_bytes = 3

    def prepared(self, question: Any) -> Prepared:
        asked = Asked(question, Prompt(question.request, "", (), []), Ending(()))
        return Prepared(asked, {"mm_kwargs": Pixels(self.picture_bytes)}, rules=question)


def ended(reason: str) -> Any:
    return SimpleNamespace(
        outputs=[SimpleNamespace(finish_reason=reason, token_ids=[], logprobs=[])]
    )


@pytest.mark.parametrize("reason", ["error", "abort"])
@pytest.mark.parametrize("question", [Ask(REQUEST, Sampling(1)), Choices(REQUEST, ("a", "b"))])
def test_what_the_engine_gives_up_is_asked_once_more_and_then_fails(question: Any, reason: str):
    engine: Any = FakeEngine()
    desk = FakeDesk(cast(Any, None), engine)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    desk.put(question, told.put, is_new=True)
    for _ in range(2):
        _, done = engine.asked.get(timeout=WAIT_S)
        assert told.empty()
        done(ended(reason))
    desk.close()

    session: Any = object.__new__(VllmSession)
    reply = session._read(told.get(timeout=WAIT_S))
    assert engine.asked.empty()
    assert reply.error == "vLLM gave this request up twice; its own log says why"


def test_what_the_engine_answers_after_all_is_an_answer():
    engine: Any = FakeEngine()
    desk = FakeDesk(cast(Any, None), engine)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    desk.put(Ask(REQUEST, Sampling(1)), told.put, is_new=True)
    answer = ended("stop")
    for output in (ended("error"), answer):
        _, done = engine.asked.get(timeout=WAIT_S)
        done(output)
    desk.close()

    assert told.get(timeout=WAIT_S)[1] is answer


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "llava_next"])
def test_no_memory_is_kept_for_what_no_recipe_shows(model_type: str):
    kit: Any = SimpleNamespace(config=SimpleNamespace(model_type=model_type))
    found = _image_settings(kit, Params(max_images=2))

    assert found["limit_mm_per_prompt"] == {"image": 2, "video": 0, "audio": 0}


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cuda", None, -1),  # vLLM looks how much memory there is
        ("cuda", 512, 512),
        ("cuda", 4096, 1024),
        ("cpu", None, 1024),
    ],
)
def test_a_gpu_too_small_for_the_whole_context_takes_shorter_requests(
    device: str, asked: int | None, expected: int
):
    kit: Any = SimpleNamespace(context_tokens=1024)
    params = Params(max_model_len=asked)

    assert _max_model_len(kit, params, Machine(device=device)) == expected


def test_a_request_too_long_says_whether_model_or_memory_is_too_small():
    desk: Any = object.__new__(Desk)
    desk._engine = SimpleNamespace(model_tokens=1024, max_tokens=224)
    desk._check_length(224)

    with pytest.raises(StageError, match="needs 225 tokens; the memory of the GPU holds 224"):
        desk._check_length(225)
    with pytest.raises(RefusedError, match="needs 1025 tokens, the model holds 1024"):
        desk._check_length(1025)


def test_pictures_wait_unprepared_while_those_in_hand_take_too_much_memory():
    engine: Any = FakeEngine(max_bytes=10)
    desk = FakeDesk(cast(Any, None), engine)
    for _ in range(40):
        desk.put(Ask(REQUEST, Sampling(1)), lambda _: None, is_new=True)
    follow_up = Ask(REQUEST, Sampling(2))
    in_hand = [engine.asked.get(timeout=WAIT_S)[1] for _ in range(4)]  # 12 bytes, one too many
    with pytest.raises(queue.Empty):
        engine.asked.get(timeout=0.2)

    desk.put(follow_up, lambda _: None, is_new=False)
    in_hand.pop()(ended("stop"))
    assert engine.asked.get(timeout=WAIT_S)[0] is follow_up
    in_hand.pop()(RuntimeError("an error goes, too"))
    for _ in range(35):
        _, done = engine.asked.get(timeout=WAIT_S)
        assert engine.asked.empty()
        done(ended("stop"))
    desk.close()  # it waits for room at that time


def test_a_picture_larger_than_all_memory_goes_alone():
    engine: Any = FakeEngine(max_bytes=2)
    desk = FakeDesk(cast(Any, None), engine)
    for _ in range(3):
        desk.put(Ask(REQUEST, Sampling(1)), lambda _: None, is_new=True)
    for _ in range(3):
        _, done = engine.asked.get(timeout=WAIT_S)
        assert engine.asked.empty()
        done(ended("stop"))
    desk.close()


def test_bytes_are_counted_of_the_tensors_in_vllms_nested_input():
    fields = {"pixel_values": SimpleNamespace(data=Pixels(30)), "sizes": SimpleNamespace(data=None)}

    assert num_bytes({"image": [UserDict(fields), None, UserDict(fields)]}) == 60
    assert num_bytes(None) == 0


class FakeCore:
    """An engine that answers nobody until it is told to."""

    def __init__(self) -> None:
        self.added: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.aborted: list[str] = []

    async def add_request(self, request_id: str, prompt: Any, **_: Any) -> Any:
        self.added.put(request_id)
        return SimpleNamespace(request_id=request_id, get=asyncio.Event().wait)

    async def abort(self, request_id: str, internal: bool) -> None:
        self.aborted.append(request_id)


def test_an_engine_does_not_keep_pictures_and_ends_what_is_taken_back():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    core: Any = FakeCore()
    engine = Engine(core, loop, thread, 1, 1, 1, 1, 1, None, None)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    pixels = Pixels(1)
    kept = weakref.ref(pixels)
    engine.ask({"mm_kwargs": pixels}, None, told.put)
    del pixels
    added = core.added.get(timeout=WAIT_S)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(WAIT_S)

    assert kept() is None
    engine.drop_all()
    assert core.aborted == [added]
    assert isinstance(told.get(timeout=WAIT_S), EngineDiedError)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
