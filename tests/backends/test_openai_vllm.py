"""A real `vllm serve` on the CPU answers what transformers answers, asked over the protocol."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest

from engine import package_data, plugin
from engine.backends import Choices, ModelFiles, Request, Sampling, Session
from engine.plan.stage import Machine
from engine.records import user
from tests.backends.ask_backend import requests

INTERPRETER = os.environ.get("ADAPT_PYTHON_VLLM", "")
START_S = 400

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not INTERPRETER, reason="needs vLLM's own environment: `make test-vllm`"),
]


@contextmanager
def served(model: Path, folder: Path) -> Iterator[str]:
    """Serve a model; give the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [INTERPRETER, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager"]
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, folder / "server.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"not up after {START_S} s: {log.read_text()[-2000:]}")


def opened(backend: str, files: ModelFiles, **settings: object) -> Session:
    plug = plugin.load("backends", backend)
    session: Session = plug.open(files, plug.params(**settings), Machine())
    return session


def over_http(url: str, model: Path) -> Session:
    return opened("openai", ModelFiles("m"), base_url=url, tokenizer=str(model))


def test_a_served_synthesizer_writes_whole_dialogues_and_answers(tmp_path: Path) -> None:
    model = package_data.pocket_model("synthesizer")
    local = opened("transformers", ModelFiles(str(model)))
    dialogues, questions = requests("synthesizer"), requests("base")
    schema = {"enum": ["a cat", "a dog"]}  # a small model fills objects with line ends
    with served(model, tmp_path) as url:
        session = over_http(url, model)
        written = session.generate(dialogues, Sampling(100))
        answered = session.generate(questions, Sampling(40))
        (ordered,) = session.generate(questions[:1], Sampling(40, json_schema=json.dumps(schema)))
        session.close()

    assert [one.turns for one in written] == [
        one.turns for one in local.generate(dialogues, Sampling(100))
    ]
    assert [one.text for one in answered] == [
        one.text for one in local.generate(questions, Sampling(40))
    ]
    jsonschema.validate(json.loads(ordered.text), schema)


def test_a_served_judge_is_as_sure_as_one_in_this_process(tmp_path: Path) -> None:
    model = package_data.pocket_model("judge")
    texts = [request.turns[0].text for request in requests("judge")]
    asked = [Choices(Request((user(text),)), ("Yes", "No", "Open")) for text in texts]
    asked += [Choices(Request((user(text),), is_raw=True), ("Yes", "No")) for text in texts]
    local = opened("transformers", ModelFiles(str(model))).score(asked)
    with served(model, tmp_path) as url:
        session = over_http(url, model)
        remote = session.score(asked)
        session.close()

    for here, there in zip(local, remote, strict=True):
        for mine, theirs in zip(here.log_probs, there.log_probs, strict=True):
            assert theirs == pytest.approx(mine, abs=0.01) or (theirs == -math.inf and mine < -5)
