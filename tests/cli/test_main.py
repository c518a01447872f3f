from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from engine import __version__, cli

HEAVY = {"torch", "transformers", "datasets", "numpy", "pyarrow", "PIL", "omegaconf", "jinja2"}
SLOW = HEAVY | {"yaml", "rich", "jsonschema", "jsonschema_rs", "subprocess", "asyncio"}


def modules_after(*words: str) -> set[str]:
    code = (
        "import sys; from engine.cli import main; main(sys.argv[1:]);"
        "print(' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def test_help_lists_the_verbs_and_imports_nothing_slow(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [verb for verb in cli.VERBS if verb not in out] == []
    assert modules_after("--help") & SLOW == set()


@pytest.mark.alone
def test_help_takes_less_than_sixty_milliseconds_of_cpu():
    def cpu_ms() -> float:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.cli", "--help"], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return 1000 * (usage.ru_utime + usage.ru_stime)

    assert any(cpu_ms() < 60 for _ in range(9))  # a busy machine makes some slow, not all


@pytest.mark.parametrize("verb", ["run", "plan", "status", "review"])
def test_the_help_of_a_verb_imports_nothing_heavy(verb: str):
    assert modules_after(verb, "--help") & (SLOW - {"subprocess"}) == set()


def test_version_is_printed(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"adapt {__version__}\n"


def test_an_unknown_verb_is_a_usage_error_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["rnu"]) == 2
    assert capsys.readouterr().err == (
        "error[unknown-verb]: `adapt` has no verb `rnu`\n  help: `adapt run` is close\n"
    )


def test_no_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert cli.main([]) == 2
    assert "verbs:" in capsys.readouterr().out


def test_an_unknown_flag_is_a_usage_error():
    assert cli.main(["status", "--folow"]) == 2


def test_a_request_that_cannot_be_met_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["status", "--store", str(tmp_path / "none")]) == 1
    assert "error[no-run]: there is no run in the store" in capsys.readouterr().err


def test_a_bug_leaves_a_log_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    verb = ModuleType("engine.cli.divide")
    verb.add_parser = lambda subparsers: subparsers.add_parser("divide")
    verb.run = lambda args: 1 // 0
    monkeypatch.setitem(sys.modules, verb.__name__, verb)
    monkeypatch.setitem(cli.VERBS, "divide", "fail as a verb with a bug does")

    assert cli.main(["divide"]) == 4
    err = capsys.readouterr().err
    (log,) = tmp_path.glob("adapt-bug-*.log")
    assert "Traceback" not in err
    assert str(log) in err
    assert "Traceback" in log.read_text()


def test_an_interrupt_in_the_first_milliseconds_is_no_traceback():
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'engine.cli.again':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from engine.cli import command\n"
        "command()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (130, "interrupted\n")
