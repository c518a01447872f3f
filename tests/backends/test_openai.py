from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Any

import pytest

from engine import package_data
from engine.backends import Ask, Choices, Completion, Flow, ModelFiles, Request, Sampling
from engine.backends._http import wished_pause_s
from engine.backends._openai import OpenAiSession, log_probs_of
from engine.backends.openai import PLUGIN, Params
from engine.diagnostics import StageError
from engine.plan.stage import Machine
from engine.records import ImagePart, assistant, user
from tests.backends.hostile_server import KEY, Hostile

GREEDY = Sampling(8)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("engine.backends._http.FIRST_PAUSE_S", 0.01)
    with Hostile() as started:
        yield started


@pytest.fixture
def opened(server: Hostile) -> Iterator[Any]:
    sessions: list[OpenAiSession] = []

    def start(**settings: Any) -> OpenAiSession:
        params = Params(**{"base_url": server.url, "timeout_s": 0.5, "max_retries": 3} | settings)
        session = PLUGIN.open(ModelFiles("m"), params, Machine())
        assert isinstance(session, OpenAiSession)
        sessions.append(session)
        return session

    yield start
    for session in sessions:
        session.close()


def chat(text: str) -> Request:
    return Request((user(text),))


def texts(done: list[Completion]) -> list[str]:
    return [one.text for one in done]


def test_answers_come_in_the_order_of_the_requests(opened: Any, server: Hostile):
    server.answer_s = 0.01
    done = opened().generate([chat(f"good {n}") for n in range(30)], GREEDY)

    assert texts(done) == [f"said good {n}" for n in range(30)]
    assert {(one.finish, one.num_prompt_tokens, one.num_new_tokens) for one in done} == {
        ("stop", 10, 5)
    }


@pytest.mark.parametrize(
    "trouble",
    ["429*2", "500*3", "503*1", "truncated*2", "notjson*1", "form*1", "empty*2", "reset*2"],
)
def test_what_may_pass_is_asked_again_until_it_does(opened: Any, trouble: str):
    (done,) = opened().generate([chat(trouble)], GREEDY)

    assert (done.text, done.error) == (f"said {trouble}", None)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("429*9", "failed 4 times, at last with status 429"),
        ("500*9", "failed 4 times, at last with status 500"),
        ("truncated*9", "failed 4 times, at last with a broken answer"),
        ("form*9", "a broken answer"),
        ("reset*9", "failed 4 times"),
        ("400*9", "no 400"),
        ("404*9", "no 404"),
        ("filtered*9", "content filter"),
    ],
)
def test_a_request_that_fails_for_good_costs_itself_alone(opened: Any, trouble: str, reason: str):
    done = opened().generate([chat("good 1"), chat(trouble), chat("good 2")], GREEDY)

    assert [one.finish for one in done] == ["stop", "error", "stop"]
    assert reason in str(done[1].error)


def test_half_of_all_answers_may_fail_and_none_is_lost_or_mixed_up(opened: Any):
    kinds = ("good", "429*1", "500*9", "truncated*1", "empty*9", "drip", "nousage", "400*9")
    asked = [chat(f"{kinds[n % len(kinds)]} {n}") for n in range(80)]
    done = opened(max_retries=1).generate(asked, GREEDY)

    for number, (request, one) in enumerate(zip(asked, done, strict=True)):
        is_bad = number % len(kinds) in (2, 4, 7)
        assert (one.finish == "error") is is_bad
        assert is_bad or one.text == f"said {request.turns[0].text}"


@pytest.mark.parametrize("trouble", ["reset", "429", "503", "notjson", "hang"])
def test_a_server_that_stops_answering_costs_no_row(opened: Any, server: Hostile, trouble: str):
    server.good_for, server.then = 20, trouble
    timeout_s = 0.5 if trouble == "hang" else 20
    session = opened(max_retries=1, max_concurrency=8, timeout_s=timeout_s)
    flows = (_once(chat(f"good {n}")) for n in range(60))
    done: list[Completion] = []

    with pytest.raises(StageError, match="answers nobody: a request failed") as error:
        done.extend(one for _, one in session.run(flows))

    assert error.value.is_transient
    assert all(one.error is None for one in done)


def _once(request: Request) -> Flow[Completion]:
    reply: Completion = yield Ask(request, GREEDY)
    return reply


def test_a_server_that_answers_nothing_from_the_first_is_told_from_a_bad_first_request(
    opened: Any, server: Hostile
):
    (bad,) = opened(max_retries=1).generate([chat("500*9")], GREEDY)
    assert bad.error is not None
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": "Hello."}]

    server.good_for, server.then = 0, "503"
    with pytest.raises(StageError, match="answers nobody") as error:
        opened(max_retries=1).generate([chat("good 1")], GREEDY)
    assert error.value.is_transient


@pytest.mark.parametrize("trouble", ["500*9", "reset*9", "hang*9"])
def test_a_bad_request_that_is_asked_alone_is_told_from_a_server_that_is_down(
    opened: Any, server: Hostile, trouble: str
):
    timeout_s = 0.5 if trouble.startswith("hang") else 20
    session = opened(max_retries=1, max_concurrency=1, timeout_s=timeout_s)
    done = session.generate([chat("good 1"), chat(trouble), chat("good 2")], GREEDY)

    assert [one.finish for one in done] == ["stop", "error", "stop"]
    (probe,) = [body for body in server.bodies if body["max_tokens"] == 1]
    assert probe["messages"][0]["content"] == "good 1"


def test_a_busy_moment_at_the_wrong_time_is_no_outage(opened: Any, server: Hostile):
    session = opened(max_retries=1, max_concurrency=1)
    server.tries["429*1"] = 1  # answered at once now, and busy once when it is asked again
    done = []
    for _, one in session.run(_once(chat(text)) for text in ("429*1", "500*9", "good 2")):
        done.append(one.finish)
        server.tries["429*1"] = 0

    assert done == ["stop", "error", "stop"]


def test_texts_of_a_server_can_be_written_down(opened: Any):
    said, failed = opened().generate([chat("half"), chat("halferror")], GREEDY)

    assert [said.text, said.raw, failed.error] == ["half a smile ?"] * 3


def test_a_request_that_hangs_times_out(opened: Any, server: Hostile):
    hangs, good = opened(timeout_s=0.2, max_retries=1).generate(
        [chat("hang*9"), chat("good")], GREEDY
    )

    assert (hangs.finish, good.finish) == ("error", "stop")
    assert "ReadTimeout" in str(hangs.error)
    assert server.tries["hang*9"] == 2


def test_a_slow_drip_is_waited_for(opened: Any):
    (done,) = opened().generate([chat("drip")], GREEDY)

    assert done.text == "said drip"


def test_a_server_that_says_when_is_left_alone_until_then(opened: Any, server: Hostile):
    opened(max_concurrency=1).generate([chat("later*1"), chat("good")], GREEDY)

    first, second = (when for when, text in server.asked if text == "later*1")
    assert second - first >= 0.3


def test_a_used_up_limit_makes_the_next_request_wait(opened: Any, server: Hostile):
    opened(max_concurrency=1).generate([chat("limit"), chat("good")], GREEDY)

    (first, _), (second, _) = server.asked
    assert second - first >= 0.28


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [
        ({"retry-after": "2"}, 429, 2.0),
        ({"retry-after": "2"}, 200, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 503, 40.0),
        ({"retry-after": "soon"}, 429, None),
        ({"x-ratelimit-reset-requests": "6m0s"}, 429, 360.0),
        ({"x-ratelimit-reset-tokens": "20ms", "x-ratelimit-remaining-tokens": "0"}, 200, 0.02),
        ({"x-ratelimit-reset-tokens": "20ms", "x-ratelimit-remaining-tokens": "9"}, 200, None),
        ({"x-ratelimit-reset-requests": "1m1s", "x-ratelimit-reset-tokens": "5"}, 429, 61.0),
        ({}, 429, None),
    ],
)
def test_wishes_of_servers_are_read(headers: dict[str, str], status: int, expected: float | None):
    assert wished_pause_s(headers, status, now_s=60.0) == expected


def test_never_more_requests_than_allowed_are_under_way(opened: Any, server: Hostile):
    server.answer_s = 0.02
    opened(max_concurrency=5).generate([chat(f"good {n}") for n in range(40)], GREEDY)

    assert 2 <= server.most_under_way <= 5


def test_flows_are_read_no_further_ahead_than_requests_are_under_way(opened: Any):
    started = []

    def flow(number: int) -> Flow[int]:
        started.append(number)
        yield Ask(chat(f"good {number}"), GREEDY)
        done = yield Ask(chat(f"again {number}"), GREEDY)
        assert done.text == f"said again {number}"
        return number

    results = []
    for number, result in opened(max_concurrency=3).run(flow(n) for n in range(20)):
        results.append((number, result))
        assert len(started) <= len(results) + 3

    assert sorted(results) == [(n, n) for n in range(20)]


def test_the_key_is_sent_and_told_to_nobody(opened: Any, server: Hostile):
    with pytest.raises(StageError) as refused:
        opened().generate([chat("401*9")], GREEDY)
    (failed,) = opened().generate([chat("400*9")], GREEDY)

    for message in (str(refused.value), str(failed.error)):
        assert KEY not in message
        assert "***" in message


def test_a_server_without_the_model_is_refused_with_the_models_it_has(server: Hostile):
    server.models = ("a", "b")
    params = Params(base_url=server.url)

    with pytest.raises(StageError, match="has no model `m`") as error:
        PLUGIN.open(ModelFiles("m"), params, Machine())

    assert "`a`, `b`" in str(error.value.hint)


def test_a_server_that_is_not_there_may_come_back(monkeypatch: pytest.MonkeyPatch):
    params = Params(base_url="http://127.0.0.1:9/v1", max_retries=1)

    with pytest.raises(StageError, match="cannot be reached") as error:
        PLUGIN.open(ModelFiles("m"), params, Machine())

    assert error.value.is_transient


def test_the_address_may_come_from_the_environment(
    server: Hostile, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    session = PLUGIN.open(ModelFiles("m"), Params(), Machine())

    assert session.generate([chat("good")], GREEDY)[0].text == "said good"
    session.close()


PNG, JPEG = b"\x89PNG\r\n\x1a\n...", b"\xff\xd8\xff..."


def test_images_are_data_uris_in_their_places(opened: Any, server: Hostile):
    turns = (user(ImagePart(0), "one"), assistant("said"), user("good", ImagePart(1)))
    opened().generate([Request(turns, (PNG, JPEG))], GREEDY)

    (body,) = server.bodies
    first, middle, last = body["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert [part["type"] for part in last["content"]] == ["text", "image_url"]
    assert middle == {"role": "assistant", "content": "said"}
    uri = last["content"][1]["image_url"]["url"]
    assert uri == f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"


def test_control_tokens_in_texts_are_words_where_the_tokens_are_known(opened: Any, server: Hostile):
    judge = str(package_data.pocket_model("judge"))
    for session in (opened(tokenizer=judge), opened()):
        session.generate([chat("good <|end|><|user|> so")], GREEDY)

    known, unknown = (body["messages"][0]["content"] for body in server.bodies)
    assert known == "good < |end|>< |user|> so"
    assert unknown == "good <|end|><|user|> so"


def test_a_bare_text_is_a_completion(opened: Any, server: Hostile):
    (done,) = opened().generate([Request((user("good text"),), is_raw=True)], GREEDY)

    assert server.paths == ["/v1/completions"]
    assert server.bodies[0]["prompt"] == "good text"
    assert done.text == "said good text"


def test_decoding_is_asked_for_as_the_recipe_says(opened: Any, server: Hostile):
    schema = '{"type": "object"}'
    opened().generate([chat("good")], Sampling(7, 0.5, 3, 0.9, schema))
    opened().generate([chat("good")], Sampling(7, 0.5, 3, 0.9))
    opened().generate([chat("good")], Sampling(7, 0.5, 4, 0.9))

    first, again, other = server.bodies
    assert (first["max_tokens"], first["temperature"], first["top_p"]) == (7, 0.5, 0.9)
    assert first["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert first["seed"] == again["seed"] != other["seed"]


def test_a_greedy_request_names_no_seed(opened: Any, server: Hostile):
    opened().generate([chat("good")], GREEDY)

    assert "seed" not in server.bodies[0]
    assert server.bodies[0]["temperature"] == 0.0


def test_a_model_that_wants_the_new_name_of_the_limit_gets_it(opened: Any, server: Hostile):
    session = opened()
    done = session.generate([chat("newlimit 1"), chat("newlimit 2")], GREEDY)

    assert texts(done) == ["said newlimit 1", "said newlimit 2"]
    assert server.bodies[-1]["max_completion_tokens"] == 8


def test_choices_are_scored_by_the_likeliest_tokens_of_either_kind(opened: Any):
    labels = ("Yes", "No", "Open")
    raw = Choices(Request((user("good"),), is_raw=True), tuple(f" {label}" for label in labels))

    for found in opened().score([raw, Choices(chat("good"), labels)]):
        assert found.log_probs == (-0.1, -2.5, -math.inf)


def test_a_token_that_fits_two_choices_counts_for_none():
    assert log_probs_of(("Yes", "Yeast"), {"Ye": -1.0, "Yes": -2.0, " ": -0.1}) == (
        -2.0,
        -math.inf,
    )


def test_a_server_without_log_probabilities_cannot_judge(opened: Any):
    (found,) = opened().score([Choices(chat("nologprobs"), ("Yes", "No"))])

    assert "gives no log-probabilities" in str(found.error)


def test_a_spent_budget_stops_and_keeps_what_is_finished(opened: Any, server: Hostile):
    session = opened(max_total_tokens=60, max_concurrency=2)
    finished = []

    with pytest.raises(StageError, match="the budget is spent"):
        finished.extend(session.run(_asks(f"good {n}") for n in range(20)))

    assert 4 <= len(finished) <= 6
    assert len(server.bodies) == len(finished)


def test_a_budget_in_money_counts_by_the_two_prices(opened: Any):
    session = opened(max_cost=0.0001, price_in=2.0, price_out=6.0, max_concurrency=1)

    with pytest.raises(StageError, match=r"cost 0\.00"):
        list(session.run(_asks(f"good {n}") for n in range(20)))
    assert (session.num_tokens_in, session.num_tokens_out) == (20, 10)


def test_a_budget_that_is_just_enough_is_no_failure(opened: Any):
    session = opened(max_total_tokens=30, max_concurrency=1)

    assert len(list(session.run(_asks(f"good {n}") for n in range(2)))) == 2


def test_a_synthesizer_needs_a_tokenizer(opened: Any):
    with pytest.raises(StageError, match="without the model's tokenizer"):
        opened().generate([Request((user("good"),), opens="user")], GREEDY)


def test_an_adapter_that_changes_nothing_is_refused(server: Hostile):
    server.models = ("m", "adapter")

    with pytest.raises(StageError, match="the adapter `adapter` changes nothing"):
        PLUGIN.open(ModelFiles("m", adapter="adapter"), Params(base_url=server.url), Machine())


def _asks(text: str) -> Flow[str]:
    done = yield Ask(chat(text), GREEDY)
    return str(done.text)
