from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest

from engine.backends import ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.diagnostics import StageError
from engine.plan.stage import Machine
from engine.records import ImagePart, user
from tests.models import tiny

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["yes", "no", "open"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2},
    },
    "required": ["label", "count", "words"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):
    folder = tiny.idefics3(tmp_path_factory.mktemp("idefics3"))
    return PLUGIN.open(ModelFiles(str(folder)), Params(batch_size=4), Machine())


def sampling(num: int, **settings) -> Sampling:
    return Sampling(num, json_schema=json.dumps(SCHEMA), **settings)


def asked() -> list[Request]:
    pictures = [tiny.picture(color) for color in ("red", "green", "blue")]
    seen = [Request((user(ImagePart(0), "What?"),), (one,)) for one in pictures]
    return [*seen, *(Request((user("Say " + "so " * n),)) for n in range(4))]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_every_answer_of_random_weights_is_a_document_of_the_schema(opened, temperature: float):
    pytest.importorskip("llguidance")
    for done in opened.generate(asked(), sampling(300, temperature=temperature)):
        assert done.finish == "stop"
        jsonschema.validate(json.loads(done.text), SCHEMA)


def test_an_answer_that_is_cut_says_so(opened):
    pytest.importorskip("llguidance")
    for done in opened.generate(asked(), sampling(5)):
        assert done.finish == "length"
        assert done.num_new_tokens == 5


def test_a_schema_that_is_none_stops_the_stage(opened):
    pytest.importorskip("llguidance")
    with pytest.raises(StageError, match="the form of the answer"):
        opened.generate(asked(), Sampling(5, json_schema='{"type": "nothing"}'))


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    session = PLUGIN.open(ModelFiles(str(tiny.llama(tmp_path))), Params(), Machine())

    with pytest.raises(StageError) as stopped:
        session.generate(asked()[-1:], sampling(5))

    assert stopped.value.hint == 'pip install "adapt-mllm[structured]"'
