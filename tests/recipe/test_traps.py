"""The traps of YAML, each read right or refused with a sentence, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.diagnostics import Diagnostic, RequestError, Span
from engine.recipe.compose import overridden
from engine.recipe.load import load_experiment
from engine.recipe.source import MAX_BYTES, read, read_file

pytestmark = pytest.mark.alone  # it measures

CPU_S = 2.0
PEAK_MB = 200
BOMB = "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}' if before else 'lol'] * 10)}]"
    for before, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
)


def codes(text: str) -> list[str]:
    with pytest.raises(RequestError) as found:
        read(text, "f.yaml")
    return [item.code for item in found.value.diagnostics]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("+1", 1),
        ("0", 0),
        ("-0", 0),
        ("0.10", 0.1),
        ("0x1F", 31),
        ("0o17", 15),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("190:20:30", "190:20:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("~", None),
        ("null", None),
        ("=", "="),
    ],
)
def test_unquoted_scalars_are_those_of_yaml_1_2(text: str, value: object):
    found = read(f"a: {text}", "f.yaml").entries()["a"].node.value

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["010", "007", "-01", "00", "08"])
def test_a_number_that_readers_disagree_about_is_refused(text: str):
    with pytest.raises(RequestError) as found:
        read(f"a: {text}", "f.yaml")
    (item,) = found.value.diagnostics

    assert item.code == "number"
    assert "YAML 1.1 reads it as octal" in item.message
    assert f'"{text}"' in str(item.hint)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: " + "[" * 100_000, "too-deep"),
        ("a: " + "{a: " * 50_000, "too-deep"),
        ("\n".join(" " * depth + "a:" for depth in range(3_000)), "too-deep"),
        ("a: " + "9" * 10_000, "number"),
        ("a: 1e999", "number"),
        ("a: \x00", "syntax"),
        ("a: \x07", "syntax"),
        ("a:\n\t- 1", "syntax"),
        ("k" * 2_000 + ": 1", "syntax"),
        ("\n".join(f"k{number}: 1" for number in range(100_000)), "too-many-values"),
        (BOMB, "too-many-values"),
        ("a: &a [*a]", "alias"),
        ("a: !!python/object/apply:os.system ['true']", "tag"),
        ("a: !env HOME", "tag"),
        ("a: 1\n---\na: 2", "several-documents"),
        ("a: 1\na: 2", "duplicate-key"),
        ("a:\n  <<: {b: 1}", "merge-key"),
        ("? [a]\n: 1", "complex-key"),
        ("%YAML 1.1\n---\na: 'x", "syntax"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_what_would_harm_or_mislead_is_refused_quickly(text: str, code: str):
    started = time.process_time()

    assert code in codes(text)
    assert time.process_time() - started < CPU_S


def test_a_line_of_five_million_characters_is_read_quickly():
    started = time.process_time()
    text = read("a: " + "x" * 5_000_000, "f.yaml").entries()["a"].node.value

    assert len(str(text)) == 5_000_000
    assert time.process_time() - started < CPU_S


def test_a_bomb_takes_little_memory(tmp_path: Path):
    (tmp_path / "bomb.yaml").write_text(BOMB)
    code = (
        "import re, sys; from pathlib import Path\n"
        "from engine.diagnostics import RequestError; from engine.recipe.source import read_file\n"
        "try: read_file(Path(sys.argv[1]), 'bomb.yaml')\n"
        "except RequestError: pass\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status).group(1)) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.yaml")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (10, 10)),
    )

    assert int(done.stdout) < PEAK_MB


def refused(path: Path) -> str:
    with pytest.raises(RequestError) as found:
        read_file(path, path.name)
    return found.value.diagnostics[0].message


def test_a_file_of_twenty_megabytes_is_not_read(tmp_path: Path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(20 * MAX_BYTES)

    assert refused(path) == "`big.yaml` holds 20.0 MB; a recipe has at most 1 MB"


def test_a_folder_is_no_recipe(tmp_path: Path):
    assert refused(tmp_path).endswith("it is a folder, not a file")


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.yaml")

    assert refused(tmp_path / "pipe.yaml").endswith("it is a device or a pipe, not a file")


def test_a_device_that_never_ends_is_not_read():
    assert refused(Path("/dev/zero")).endswith("it is a device or a pipe, not a file")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named_with_its_place(tmp_path: Path, encoding: str):
    path = tmp_path / "f.yaml"
    path.write_bytes("name: café\n".encode(encoding))

    assert refused(path) == "`f.yaml` is not UTF-8 text"


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")

    assert list(read_file(path, "f.yaml").entries()) == ["name"]


HEAD = "recipe: 1\nname: x\nbase: {model: a}\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "".join(f"training_{n}: {n}\n" for n in range(9_000)),
        HEAD + "benchmarks: {domain: [" + ", ".join(f"x{n}" for n in range(9_000)) + "]}\n",
        HEAD + "matrix:\n" + "".join(f"  a{n}: {{training.lr{n}: 1}}\n" for n in range(1_500)),
        HEAD + "? " + "k" * 200_000 + "\n: 1\n",
    ],
    ids=["keys", "names", "arms", "long key"],
)
def test_thousands_of_mistakes_are_told_in_bounded_time_and_space(tmp_path: Path, text: str):
    path = tmp_path / "many.yaml"
    path.write_text(text, encoding="utf-8")
    code = (
        "import re, sys, time; from pathlib import Path; from engine.cli import main\n"
        "code = main(['validate', sys.argv[1]])\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(code, time.process_time(), re.search(r'VmHWM:\\s+(\\d+)', status).group(1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, check=True, timeout=60
    )
    exit_code, cpu_s, peak_kb = done.stdout.split()

    assert int(exit_code) == 1
    assert len(done.stderr) < 200_000
    assert float(cpu_s) < 2 * CPU_S
    assert int(peak_kb) < PEAK_MB * 1024


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("010", "number"),
        ("9" * 5_000, "number"),
        ("[" * 100_000, "too-deep"),
        (BOMB.replace("\n", ", ").join("{}"), "too-many-values"),
        ("!!python/object:os.system x", "tag"),
        ("{a: 1, a: 2}", "duplicate-key"),
        ("{<<: {a: 1}}", "merge-key"),
        ("a\n---\nb", "several-documents"),
        ("\x00", "syntax"),
        ("\udcff", "not-utf8"),
        ("{", "syntax"),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_an_override_is_as_safe_as_a_file(value: str, code: str):
    mistakes: list[Diagnostic] = []
    overridden(read(HEAD, "f.yaml"), [f"seed={value}"], mistakes)

    assert code in {item.code for item in mistakes}
    assert {item.span for item in mistakes} == {Span("--set seed", 0, 0)}


@pytest.mark.parametrize(
    "line",
    [
        "source: {use: NAME}",
        "benchmarks: {domain: [NAME]}",
        "extends: NAME",
        "NAME: 1",
        "seed: NAME",
    ],
)
def test_a_long_name_of_many_lines_is_told_in_one_short_sentence(tmp_path: Path, line: str):
    path = tmp_path / "r.yaml"
    name = '"' + "long\\n" * 40 + '"'
    path.write_text(HEAD + line.replace("NAME", name) + "\n", encoding="utf-8")
    with pytest.raises(RequestError) as found:
        load_experiment(path)

    assert any("long" in item.message for item in found.value.diagnostics)
    for item in found.value.diagnostics:
        assert "\n" not in f"{item.message}{item.hint}"
        assert len(item.message) < 200
