"""Plays terminal sessions: every `$` line is run, and what it prints is compared.

One session stands in the README, one with every verb in `verbs.console`. `python -m
tests.rules.screencast` writes what is printed today into both; read the diff.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rules.golden import ROOT

README = ROOT / "README.md"
VERBS = ROOT / "tests" / "rules" / "verbs.console"
BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.S)


def recorded() -> str:
    """Return the session as the README shows it."""
    found = BLOCK.search(README.read_text("utf-8"))
    assert found is not None, "the README has no ```console block"
    return found.group()


def played(session: str, folder: Path) -> str:
    """Run the commands of a session in a folder; return the session with what they print now."""
    prepare(folder)
    lines = []
    for command in re.findall(r"^\$ (.*)$", session, flags=re.M):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder / "work",
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        lines += [f"$ {command}", done.stdout.rstrip("\n"), ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip("\n") + "\n"


def prepare(folder: Path) -> None:
    """Lay out what the reader has: a folder of pictures with captions, and `adapt` installed."""
    from PIL import Image

    pictures = folder / "work" / "pictures"
    pictures.mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (320, 240), (number * 6, 90, 200 - number)).save(
            pictures / f"scan_{number:03d}.png"
        )
        caption = f"Chest radiograph number {number} without acute findings."
        (pictures / f"scan_{number:03d}.txt").write_text(caption, encoding="utf-8")
    command = folder / "bin" / "adapt"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m engine.cli "$@"\n')
    command.chmod(0o755)


def environment(folder: Path) -> dict[str, str]:
    """Return what commands see: no colours, no hub, a home of their own."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    return {
        **kept,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
    }


def main() -> None:
    """Write what the sessions print now."""
    with tempfile.TemporaryDirectory() as folder:
        session = played(recorded(), Path(folder))
    README.write_text(BLOCK.sub(lambda _: session, README.read_text("utf-8"), count=1), "utf-8")
    with tempfile.TemporaryDirectory() as folder:
        VERBS.write_text(played(VERBS.read_text("utf-8"), Path(folder)), "utf-8")


if __name__ == "__main__":
    main()
