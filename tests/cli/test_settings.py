from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.cli import settings
from engine.diagnostics import RequestError
from engine.runtime.machine import Settings
from tests.cli.fake_adapt import parsed


def resolve(*flags: str, **environ: str) -> Settings:
    given = {"CUDA_VISIBLE_DEVICES": "", "HOME": "", **environ}
    return settings.resolve(parsed("run", "r.yaml", *flags), given)


def user_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "adapt").mkdir()
    (tmp_path / "adapt" / "config.yaml").write_text(text)
    return str(tmp_path)


def test_a_flag_beats_a_variable_beats_the_user_file_beats_the_default(tmp_path: Path):
    home = user_file(tmp_path, "threads: 3\nstore: /from/file\n")

    assert resolve().store == Path(".adapt")
    assert resolve(XDG_CONFIG_HOME=home).threads == 3
    assert resolve(XDG_CONFIG_HOME=home, ADAPT_THREADS="4").threads == 4
    assert resolve("--threads", "5", XDG_CONFIG_HOME=home, ADAPT_THREADS="4").threads == 5
    assert resolve(XDG_CONFIG_HOME=home).store == Path("/from/file")
    assert resolve(XDG_CONFIG_HOME=home, ADAPT_STORE="/from/variable").store == Path(
        "/from/variable"
    )


def test_retries_are_a_number_from_zero_on():
    assert resolve().retries == 3
    assert resolve(ADAPT_RETRIES="0").retries == 0
    with pytest.raises(RequestError, match="`retries`: 'many' is not a number"):
        resolve("--retries", "many")


def test_offline_can_be_switched_off_again_by_a_flag():
    assert resolve(ADAPT_OFFLINE="1").is_offline
    assert not resolve("--online", ADAPT_OFFLINE="1").is_offline
    assert not resolve(ADAPT_OFFLINE="0").is_offline


def test_the_interpreter_of_a_backend_comes_from_a_flag_or_a_variable():
    assert resolve(ADAPT_PYTHON_VLLM=sys.executable).pythons == {"vllm": sys.executable}
    assert resolve("--python", f"vllm={sys.executable}").pythons == {"vllm": sys.executable}


def test_a_gpu_is_used_where_there_is_one():
    assert resolve(CUDA_VISIBLE_DEVICES="0,1").num_gpus == 2
    assert resolve(CUDA_VISIBLE_DEVICES="0,1").device == "cuda"
    assert resolve("--device", "cpu", CUDA_VISIBLE_DEVICES="0,1").num_gpus == 0


def test_every_wrong_setting_is_named_at_once(tmp_path: Path):
    with pytest.raises(RequestError) as caught:
        resolve(ADAPT_THREADS="many", ADAPT_DEVICE="tpu", ADAPT_PYTHON_VLLM="/not/there")

    assert [item.message for item in caught.value.diagnostics] == [
        "machine setting `device`: 'tpu' is not known",
        "machine setting `python`: backend vllm: there is no '/not/there'",
        "machine setting `threads`: 'many' is not a number of cores",
    ]


def test_a_gpu_that_is_not_there_cannot_be_asked_for():
    with pytest.raises(RequestError, match="this machine has no NVIDIA GPU"):
        resolve("--device", "cuda")


def test_a_misspelt_name_in_the_user_file_gets_the_nearest(tmp_path: Path):
    home = user_file(tmp_path, "treads: 3\n")

    with pytest.raises(RequestError) as caught:
        resolve(XDG_CONFIG_HOME=home)
    assert caught.value.diagnostics[0].hint == "`threads` is close"


def test_trackers_are_named_by_flags_a_variable_or_the_user_file(tmp_path: Path):
    home = user_file(tmp_path, "trackers: [trackio]\n")

    assert resolve().trackers == ()
    assert resolve("--tracker", "wandb", "--tracker", "mlflow").trackers == ("wandb", "mlflow")
    assert resolve(ADAPT_TRACKERS="tensorboard,wandb").trackers == ("tensorboard", "wandb")
    assert resolve(XDG_CONFIG_HOME=home).trackers == ("trackio",)


def test_an_unknown_tracker_is_told_with_the_nearest():
    with pytest.raises(RequestError) as caught:
        resolve("--tracker", "tensorbord")

    (found,) = caught.value.diagnostics
    assert found.message == "machine setting `tracker`: 'tensorbord' is not known"
    assert found.hint == "did you mean `tensorboard`?"
