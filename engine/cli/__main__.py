"""`python -m engine.cli` is the command `adapt`."""

from __future__ import annotations

from engine.cli import command

command()
